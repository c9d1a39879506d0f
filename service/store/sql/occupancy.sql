-- name: groups_select
SELECT group_id FROM job_group WHERE group_id = ANY($1::uuid[])

-- name: registry_share
SELECT version FROM registry FOR SHARE

-- name: group_insert
INSERT INTO job_group (group_id, project_id, backend, trust_ids, min_trusts, num_gpus, mem_per_gpu_gib)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING

-- name: project_insert
INSERT INTO project (project_id) VALUES ($1) ON CONFLICT DO NOTHING

-- name: net_group_insert
INSERT INTO net_group (net, group_id) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: ready_delete
DELETE FROM ready USING unnest($1::uuid[], $2::smallint[], $3::timestamptz[], $4::uuid[])
    AS v(group_id, rank, created_at, job_id)
WHERE ready.group_id = v.group_id AND ready.rank = v.rank AND ready.created_at = v.created_at
  AND ready.job_id = v.job_id

-- name: reservations_delete
DELETE FROM reservation USING unnest($1::uuid[], $2::int[]) AS v(job_id, attempt)
WHERE reservation.job_id = v.job_id AND reservation.attempt = v.attempt

-- name: reservations_upsert
INSERT INTO reservation (job_id, attempt, net, state, run_id, in_doubt)
SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::bool[])
ON CONFLICT (job_id, attempt) DO UPDATE
SET net = EXCLUDED.net, state = EXCLUDED.state, run_id = EXCLUDED.run_id, in_doubt = EXCLUDED.in_doubt

-- name: runs_insert
INSERT INTO run (net, run_id, job_id, attempt)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::int[]) ON CONFLICT DO NOTHING

-- name: nets_lock
SELECT name FROM net WHERE name = ANY($1::text[]) ORDER BY name FOR NO KEY UPDATE

-- name: nets_count
UPDATE net SET occupied = occupied + v.n FROM unnest($1::text[], $2::int[]) AS v(name, n)
WHERE net.name = v.name

-- name: projects_lock
SELECT project_id FROM project WHERE project_id = ANY($1::text[]) ORDER BY project_id FOR NO KEY UPDATE

-- name: projects_count
UPDATE project SET running = running + v.n FROM unnest($1::text[], $2::int[]) AS v(id, n)
WHERE project_id = v.id

-- name: groups_lock
SELECT group_id FROM job_group WHERE group_id = ANY($1::uuid[]) ORDER BY group_id FOR NO KEY UPDATE

-- name: groups_count
UPDATE job_group SET queued = queued + v.n FROM unnest($1::uuid[], $2::int[]) AS v(id, n)
WHERE group_id = v.id
