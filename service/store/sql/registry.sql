-- name: registry_lock
SELECT version, document, hub_paused FROM registry FOR UPDATE

-- name: registry_update
UPDATE registry SET version = version + 1, document = $1, applied_at = now() RETURNING version

-- name: net_register
INSERT INTO net (name, capacity, members, path_id, entry) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO UPDATE SET registered = true, capacity = EXCLUDED.capacity, members = EXCLUDED.members,
    path_id = EXCLUDED.path_id, entry = EXCLUDED.entry

-- name: nets_draining
-- Nets that left the registry while something of ours is on them, and how to reach them.
SELECT n.name, n.entry FROM net n
WHERE NOT n.registered AND n.entry IS NOT NULL
  AND (EXISTS (SELECT 1 FROM reservation s WHERE s.net = n.name)
       OR EXISTS (SELECT 1 FROM job j WHERE j.state IN ('preparing', 'submitting', 'collecting', 'stopping')
                  AND j.attempts::jsonb -> -1 ->> 'net' = n.name))
ORDER BY n.name

-- name: nets_unregister
UPDATE net SET registered = false, answering = false, online = '{}' WHERE name <> ALL($1::text[])

-- name: project_register
INSERT INTO project (project_id, max_running) VALUES ($1, $2)
ON CONFLICT (project_id) DO UPDATE SET max_running = EXCLUDED.max_running

-- name: projects_unregister
UPDATE project SET max_running = NULL WHERE project_id <> ALL($1::text[])

-- name: groups_all
SELECT * FROM job_group ORDER BY group_id

-- name: net_groups_clear
DELETE FROM net_group

-- name: net_groups_of_net_clear
DELETE FROM net_group WHERE net = $1

-- name: net_groups_insert
INSERT INTO net_group (net, group_id) SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING

-- name: review_all
-- A due time may be early: every unfinished job is judged anew under the new registry.
UPDATE job SET due_at = now() WHERE job_id IN (
    SELECT job_id FROM job WHERE finished_at IS NULL ORDER BY job_id FOR NO KEY UPDATE)

-- name: net_pause
UPDATE net SET paused = $2 WHERE name = $1 AND registered RETURNING name

-- name: hub_pause
UPDATE registry SET hub_paused = $1

-- name: net_extensions
SELECT extensions FROM net WHERE name = $1

-- name: net_update
UPDATE net SET answering = $2, online = $3, extensions = $4, strays = coalesce($5, strays), seen_at = now(),
    unknown_statuses = coalesce($7, unknown_statuses),
    version = version + CASE WHEN status_body IS DISTINCT FROM $6 THEN 1 ELSE 0 END, status_body = $6
WHERE name = $1 AND registered
