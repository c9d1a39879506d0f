-- name: registry_lock
-- The version in force; one registry is applied at a time.
SELECT version FROM registry FOR UPDATE

-- name: registry_update
-- The next version; the one before it is locked.
-- $1 document, $2 version
UPDATE registry SET version = $2, document = $1, applied_at = now()

-- name: nets_lock_all
-- In the order in which everybody locks nets.
SELECT name FROM net ORDER BY name FOR NO KEY UPDATE

-- name: net_register
-- A net of the registry, new or known.
-- $1 name, $2 capacity, $3 members uuid[], $4 what stands as {model_id} in its paths, $5 GPUs at each site,
-- $6 backend, $7 its entry as JSON
INSERT INTO net (name, capacity, members, path_id, gpus, backend, entry)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (name) DO UPDATE SET registered = true, capacity = EXCLUDED.capacity, members = EXCLUDED.members,
    path_id = EXCLUDED.path_id, gpus = EXCLUDED.gpus, backend = EXCLUDED.backend, entry = EXCLUDED.entry

-- name: nets_draining
-- Nets that left the registry while something of ours is on them, and how to reach them.
SELECT n.name, n.entry FROM net n
WHERE NOT n.registered AND n.entry IS NOT NULL
  AND (EXISTS (SELECT 1 FROM reservation s WHERE s.net = n.name)
       OR EXISTS (SELECT 1 FROM job j WHERE j.state IN ('preparing', 'submitting', 'collecting', 'stopping')
                  AND j.attempts::jsonb -> -1 ->> 'net' = n.name))
ORDER BY n.name

-- name: nets_unregister
-- Nets that the registry does not have take no job.
-- $1 names that the registry has text[]
UPDATE net SET registered = false, answering = false, online = '{}' WHERE name <> ALL($1::text[])

-- name: projects_lock_all
-- In the order in which everybody locks projects.
SELECT project_id FROM project ORDER BY project_id FOR NO KEY UPDATE

-- name: projects_register
-- Projects of the registry, new or known.
-- $1 ids text[], $2 most running jobs int[], null for no limit
INSERT INTO project (project_id, max_running)
SELECT * FROM unnest($1::text[], $2::int[]) AS v(id, most) ORDER BY id
ON CONFLICT (project_id) DO UPDATE SET max_running = EXCLUDED.max_running

-- name: projects_unregister
-- Projects that the registry does not have are under no limit.
-- $1 ids that the registry has text[]
UPDATE project SET max_running = NULL WHERE project_id <> ALL($1::text[]) AND max_running IS NOT NULL

-- name: groups_all
-- Every group there is.
SELECT group_id, project_id, backend, trust_ids, min_trusts, num_gpus, mem_per_gpu_gib, job_type
FROM job_group ORDER BY group_id

-- name: net_groups_drop_others
-- Nets serve these groups and no others.
-- $1 nets text[], $2 groups uuid[], pair by pair
DELETE FROM net_group ng WHERE NOT EXISTS (
    SELECT 1 FROM unnest($1::text[], $2::uuid[]) AS v(net, group_id)
    WHERE v.net = ng.net AND v.group_id = ng.group_id)

-- name: net_groups_of_net_drop
-- The net serves no group until pairs are inserted again.
-- $1 net
DELETE FROM net_group WHERE net = $1

-- name: net_groups_insert
-- Which nets can serve which groups.
-- $1 nets text[], $2 groups uuid[], pair by pair
INSERT INTO net_group (net, group_id)
SELECT * FROM unnest($1::text[], $2::uuid[]) AS v(net, group_id) ORDER BY net, group_id
ON CONFLICT DO NOTHING

-- name: net_pause
-- Takes a net out of scheduling, or back in; no row: it is not in the registry.
-- $1 name, $2 paused or not
UPDATE net SET paused = $2 WHERE name = $1 AND registered RETURNING name

-- name: hub_pause
-- Starts no job anywhere, or starts again.
-- $1 paused or not
UPDATE registry SET hub_paused = $1

-- name: net_extensions
-- What the net said that it can do, and when it was looked at.
-- $1 name
SELECT extensions, seen_at FROM net WHERE name = $1

-- name: net_update
-- What a net can do is what it said when it last answered; `seen_at` is null until its first answer.
-- $1 name, $2 answering, $3 online uuid[], $4 extensions text[], $5 strays text[] or null, $6 status,
-- $7 run statuses that nobody understands text[] or null
UPDATE net SET answering = $2, online = $3, strays = coalesce($5, strays),
    unknown_statuses = coalesce($7, unknown_statuses),
    extensions = CASE WHEN $2 THEN $4 ELSE extensions END,
    seen_at = CASE WHEN $2 OR seen_at IS NOT NULL THEN now() END,
    version = version + CASE WHEN status_body IS DISTINCT FROM $6 THEN 1 ELSE 0 END, status_body = $6
WHERE name = $1 AND registered
