-- name: nets_with_capacity
-- Nets that could take a job now, the emptiest first; none while the whole service is paused.
-- $1: nets on which the caller has enough under way.
SELECT name, online, path_id = 'model' AS by_model FROM net
WHERE registered AND answering AND NOT paused AND occupied < capacity AND online <> '{}'
  AND name <> ALL($1::text[])
  AND NOT (SELECT hub_paused FROM registry)
  AND NOT EXISTS (SELECT 1 FROM reservation s WHERE s.net = net.name AND s.in_doubt AND s.state = 'quarantined')
ORDER BY occupied::float / capacity, random() LIMIT 64

-- name: models_taken
-- Models that the net works on, or whose results are still fetched from it: on a net with `path_id: model`
-- the next upload would replace their app and results.
SELECT s.net, j.model_id FROM reservation s JOIN job j USING (job_id) WHERE s.net = ANY($1::text[])
UNION
SELECT j.attempts::jsonb -> -1 ->> 'net', j.model_id FROM job j
WHERE j.state = 'collecting' AND j.attempts::jsonb -> -1 ->> 'net' = ANY($1::text[])

-- name: next_jobs_of_net
-- The first job of each group that the net serves and whose project is under its limit: one probe a group.
-- $3: models that must wait.
SELECT h.job_id, g.project_id
FROM net_group ng
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
  AND (SELECT count(*) FROM unnest(g.trust_ids) t WHERE t = ANY($2::uuid[])) >= g.min_trusts
ORDER BY h.rank, coalesce(p.running, 0), h.created_at, h.job_id LIMIT 8

-- name: net_lock
SELECT name FROM net
WHERE name = $1 AND registered AND answering AND NOT paused AND occupied < capacity
FOR NO KEY UPDATE SKIP LOCKED

-- name: job_lock
SELECT job_id FROM job WHERE job_id = $1 AND state = 'queued' AND eligible
FOR NO KEY UPDATE SKIP LOCKED

-- name: project_lock
-- Waited for, not skipped: else a lower priority would go first. The limit stands where its row is locked.
SELECT project_id FROM project
WHERE project_id = $1 AND (max_running IS NULL OR running < max_running) FOR NO KEY UPDATE

-- name: position_heads
SELECT h.job_id, j.waiting, g.group_id
FROM job_group g
CROSS JOIN LATERAL (
    SELECT r.rank, r.created_at, r.job_id FROM ready r WHERE r.group_id = g.group_id
    ORDER BY r.rank, r.created_at, r.job_id LIMIT $1
) h
JOIN job j ON j.job_id = h.job_id
WHERE g.queued > 0
ORDER BY h.rank, h.created_at, h.job_id LIMIT $1
