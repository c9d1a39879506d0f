-- name: facts
-- Read after the jobs are locked: so a job's events have times in the order of their sequence.
SELECT clock_timestamp() AS now, r.version, r.hub_paused,
    (SELECT json_agg(json_build_array(n.name, n.answering, n.online, n.occupied, n.paused,
            EXISTS (SELECT 1 FROM reservation s WHERE s.net = n.name AND s.in_doubt AND s.state = 'quarantined'),
            n.extensions, n.seen_at IS NOT NULL, cardinality(n.strays), g.taken) ORDER BY n.name)
     FROM net n
     LEFT JOIN (
         SELECT s.net, json_object_agg(s.trust, s.taken) AS taken
         FROM (SELECT r.net, u.trust, sum(r.num_gpus) AS taken
               FROM reservation r CROSS JOIN unnest(r.trust_ids) AS u (trust)
               WHERE r.num_gpus > 0 GROUP BY r.net, u.trust) s
         GROUP BY s.net
     ) g ON g.net = n.name
     WHERE n.registered)::text AS nets
FROM registry r

-- name: projects_running
-- How many jobs of these projects are on nets.
-- $1 projects text[]
SELECT project_id, running FROM project WHERE project_id = ANY($1::text[])

-- name: registry_document
-- The registry in force; version 0: none was applied.
SELECT version, document FROM registry

-- name: retired
-- Those of these ids that belonged to jobs which retention has cleaned.
-- $1 jobs uuid[]
SELECT job_id, content_hash FROM retired WHERE job_id = ANY($1::uuid[])
