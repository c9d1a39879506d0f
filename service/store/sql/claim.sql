-- name: nets_with_capacity
-- Nets with a free place and a job that could take it, the emptiest first; none while the whole service is
-- paused. Each net is asked for one job, in that order and no further than the limit.
-- $1 names to leave out text[], $2 limit, $3 backends that bundles can be laid out for text[],
-- $4 job types as <backend>/<job type> text[]
SELECT n.name, n.online, n.by_model
FROM (
    SELECT name, online, backend, gpus, path_id = 'model' AS by_model FROM net
    WHERE registered AND answering AND NOT paused AND occupied + cardinality(strays) < capacity
      AND online <> '{}' AND name <> ALL($1::text[]) AND backend = ANY($3::text[])
      AND NOT (SELECT hub_paused FROM registry)
      AND NOT EXISTS (
          SELECT 1 FROM reservation s WHERE s.net = net.name AND s.in_doubt AND s.state = 'quarantined')
    ORDER BY (occupied + cardinality(strays))::float / capacity, random()
) n
CROSS JOIN LATERAL (
    SELECT 1
    FROM net_group ng
    JOIN job_group g ON g.group_id = ng.group_id AND g.queued > 0
    LEFT JOIN project p ON p.project_id = g.project_id
    WHERE ng.net = n.name
      AND (p.max_running IS NULL OR p.running < p.max_running)
      AND (g.job_type IS NULL OR n.backend || '/' || g.job_type = ANY($4::text[]))
      AND (SELECT count(*) FROM unnest(g.trust_ids) t WHERE t = ANY(n.online)) >= g.min_trusts
      AND (g.num_gpus = 0 OR NOT EXISTS (
          SELECT 1 FROM reservation s CROSS JOIN unnest(s.trust_ids) AS u (trust)
          WHERE s.net = n.name AND s.num_gpus > 0
            AND u.trust = ANY(g.trust_ids) AND u.trust = ANY(n.online)
          GROUP BY u.trust HAVING sum(s.num_gpus) + g.num_gpus > n.gpus))
      AND EXISTS (SELECT 1 FROM ready r WHERE r.group_id = g.group_id)
    LIMIT 1
) work
LIMIT $2

-- name: models_taken
-- Models that the net works on, or whose results are still fetched from it: on a net with `path_id: model`
-- the next upload would replace their app and results.
-- $1 nets text[]
SELECT s.net, j.model_id FROM reservation s JOIN job j USING (job_id) WHERE s.net = ANY($1::text[])
UNION
SELECT j.attempts::jsonb -> -1 ->> 'net', j.model_id FROM job j
WHERE j.state = 'collecting' AND j.attempts::jsonb -> -1 ->> 'net' = ANY($1::text[])

-- name: next_jobs_of_net
-- The first job of each group that the net serves, with the GPUs that it wants free, and whose project is
-- under its limit: one probe a group. The net is locked, so nobody else takes a place on it meanwhile.
-- $1 net, $2 trusts online there uuid[], $3 models that must wait uuid[],
-- $4 job types as <backend>/<job type> text[]
SELECT h.job_id, g.project_id
FROM net_group ng
JOIN net n ON n.name = ng.net
JOIN job_group g ON g.group_id = ng.group_id AND g.queued > 0
LEFT JOIN project p ON p.project_id = g.project_id
CROSS JOIN LATERAL (
    SELECT r.rank, r.created_at, r.job_id FROM ready r WHERE r.group_id = g.group_id
      AND (cardinality($3::uuid[]) = 0 OR NOT EXISTS (
          SELECT 1 FROM job j WHERE j.job_id = r.job_id AND j.model_id = ANY($3::uuid[])))
    ORDER BY r.rank, r.created_at, r.job_id LIMIT 2
) h
WHERE ng.net = $1
  AND (p.max_running IS NULL OR p.running < p.max_running)
  AND (g.job_type IS NULL OR n.backend || '/' || g.job_type = ANY($4::text[]))
  AND (SELECT count(*) FROM unnest(g.trust_ids) t WHERE t = ANY($2::uuid[])) >= g.min_trusts
  AND (g.num_gpus = 0 OR NOT EXISTS (
      SELECT 1 FROM reservation s CROSS JOIN unnest(s.trust_ids) AS u (trust)
      WHERE s.net = ng.net AND s.num_gpus > 0
        AND u.trust = ANY(g.trust_ids) AND u.trust = ANY($2::uuid[])
      GROUP BY u.trust HAVING sum(s.num_gpus) + g.num_gpus > n.gpus))
ORDER BY h.rank, coalesce(p.running, 0), h.created_at, h.job_id LIMIT 8

-- name: net_lock
-- Locks the net if it still has a free place; nothing while another instance claims there.
-- $1 net
SELECT name FROM net
WHERE name = $1 AND registered AND answering AND NOT paused AND occupied + cardinality(strays) < capacity
FOR NO KEY UPDATE SKIP LOCKED

-- name: job_lock
-- Locks the job if it still waits; nothing while another instance holds it.
-- $1 job
SELECT job_id FROM job WHERE job_id = $1 AND state = 'queued' AND eligible
FOR NO KEY UPDATE SKIP LOCKED

-- name: project_lock
-- Waited for, not skipped: else a lower priority would go first. The limit stands where its row is locked.
-- $1 project
SELECT project_id FROM project
WHERE project_id = $1 AND (max_running IS NULL OR running < max_running) FOR NO KEY UPDATE

-- name: position_heads
-- The first jobs of the whole queue, with the group of each.
-- $1 limit
SELECT h.job_id, j.waiting, g.group_id
FROM job_group g
CROSS JOIN LATERAL (
    SELECT r.rank, r.created_at, r.job_id FROM ready r WHERE r.group_id = g.group_id
    ORDER BY r.rank, r.created_at, r.job_id LIMIT $1
) h
JOIN job j ON j.job_id = h.job_id
WHERE g.queued > 0
ORDER BY h.rank, h.created_at, h.job_id LIMIT $1

-- name: delayed_heads
-- The first jobs that wait for a time: a start time that was asked for, or the delay of a retry.
-- $1 limit
SELECT job_id, waiting FROM job WHERE state = 'queued' AND NOT eligible ORDER BY due_at LIMIT $1
