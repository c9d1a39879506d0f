-- name: groups_select
-- Which of these groups there are.
-- $1 groups uuid[]
SELECT group_id FROM job_group WHERE group_id = ANY($1::uuid[])

-- name: registry_version
-- The version in force; it stands while the admission is shared.
SELECT version FROM registry

-- name: group_insert
-- A group that is seen for the first time.
-- $1 group, $2 project, $3 backend or null, $4 trusts uuid[], $5 trusts that must be online, $6 GPUs,
-- $7 GiB a GPU, $8 job type or null
INSERT INTO job_group (group_id, project_id, backend, trust_ids, min_trusts, num_gpus, mem_per_gpu_gib,
                       job_type)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING

-- name: projects_make
-- In the order in which everybody locks projects.
-- $1 ids text[]
INSERT INTO project (project_id) SELECT id FROM unnest($1::text[]) AS id ORDER BY id ON CONFLICT DO NOTHING

-- name: ready_delete
-- Entries that leave the queue; their jobs are locked.
-- $1 groups uuid[], $2 ranks smallint[], $3 times timestamptz[], $4 jobs uuid[]
DELETE FROM ready USING unnest($1::uuid[], $2::smallint[], $3::timestamptz[], $4::uuid[])
    AS v(group_id, rank, created_at, job_id)
WHERE ready.group_id = v.group_id AND ready.rank = v.rank AND ready.created_at = v.created_at
  AND ready.job_id = v.job_id

-- name: reservations_delete
-- Places that are free again; their jobs are locked.
-- $1 jobs uuid[], $2 attempts int[]
DELETE FROM reservation USING unnest($1::uuid[], $2::int[]) AS v(job_id, attempt)
WHERE reservation.job_id = v.job_id AND reservation.attempt = v.attempt

-- name: reservations_upsert
-- Places taken, or known better; their jobs are locked. Given by net, since a net has one open submission.
-- $1 jobs uuid[], $2 attempts int[], $3 nets text[], $4 states text[], $5 run ids text[], $6 in doubt bool[],
-- $7 GPUs at each site int[], $8 the trusts of these sites, joined by commas text[]
INSERT INTO reservation (job_id, attempt, net, state, run_id, in_doubt, num_gpus, trust_ids)
SELECT job_id, attempt, net, state, run_id, in_doubt, num_gpus, string_to_array(trusts, ',')::uuid[]
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::int[], $8::text[])
    AS v (job_id, attempt, net, state, run_id, in_doubt, num_gpus, trusts)
ON CONFLICT (job_id, attempt) DO UPDATE
SET net = EXCLUDED.net, state = EXCLUDED.state, run_id = EXCLUDED.run_id, in_doubt = EXCLUDED.in_doubt,
    num_gpus = EXCLUDED.num_gpus, trust_ids = EXCLUDED.trust_ids

-- name: runs_insert
-- Run ids of ours, kept for as long as their jobs. Given in order.
-- $1 nets text[], $2 run ids text[], $3 jobs uuid[], $4 attempts int[]
INSERT INTO run (net, run_id, job_id, attempt)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::int[]) ON CONFLICT DO NOTHING

-- name: nets_lock
-- Locks nets in the order in which everybody locks them.
-- $1 names text[]
SELECT name FROM net WHERE name = ANY($1::text[]) ORDER BY name FOR NO KEY UPDATE

-- name: nets_count
-- Places taken and freed; the nets are locked.
-- $1 names text[], $2 differences int[]
UPDATE net SET occupied = occupied + v.n FROM unnest($1::text[], $2::int[]) AS v(name, n)
WHERE net.name = v.name

-- name: projects_lock
-- Locks projects in the order in which everybody locks them.
-- $1 projects text[]
SELECT project_id FROM project WHERE project_id = ANY($1::text[]) ORDER BY project_id FOR NO KEY UPDATE

-- name: projects_count
-- Jobs that went to nets and left them; the projects are locked.
-- $1 projects text[], $2 differences int[]
UPDATE project SET running = running + v.n FROM unnest($1::text[], $2::int[]) AS v(id, n)
WHERE project_id = v.id

-- name: groups_lock
-- Locks groups in the order in which everybody locks them.
-- $1 groups uuid[]
SELECT group_id FROM job_group WHERE group_id = ANY($1::uuid[]) ORDER BY group_id FOR NO KEY UPDATE

-- name: groups_count
-- Jobs that came into the queue and left it; the groups are locked.
-- $1 groups uuid[], $2 differences int[]
UPDATE job_group SET queued = queued + v.n FROM unnest($1::uuid[], $2::int[]) AS v(id, n)
WHERE group_id = v.id
