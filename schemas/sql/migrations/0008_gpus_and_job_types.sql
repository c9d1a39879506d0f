-- What a claim compares beside places: GPUs, and job types.
ALTER TABLE net ADD COLUMN gpus integer NOT NULL DEFAULT 0;
ALTER TABLE net ADD COLUMN backend text;
UPDATE net SET gpus = coalesce((entry::json ->> 'gpus')::integer, 0), backend = entry::json ->> 'fl_backend'
WHERE entry IS NOT NULL;

-- GPUs that an attempt takes at each of its sites.
ALTER TABLE reservation ADD COLUMN num_gpus integer NOT NULL DEFAULT 0;
ALTER TABLE reservation ADD COLUMN trust_ids uuid[] NOT NULL DEFAULT '{}';
CREATE INDEX reservation_gpus ON reservation (net) WHERE num_gpus > 0;
UPDATE reservation s SET num_gpus = (j.request::json #>> '{resources,num_gpus}')::integer,
    trust_ids = ARRAY(
        SELECT (p ->> 'trust_id')::uuid
        FROM json_array_elements(j.attempts::json) AS a, json_array_elements(a -> 'participants') AS p
        WHERE (a ->> 'number')::integer = s.attempt)
FROM job j
WHERE j.job_id = s.job_id AND (j.request::json #>> '{resources,num_gpus}')::integer > 0;

CREATE INDEX job_delayed ON job (due_at) WHERE state = 'queued' AND NOT eligible;

-- A request that names a job type by its alias means the type.
UPDATE job SET request = regexp_replace(request, '("job_type":\s*"[^"]+)_client_api"', '\1"')
WHERE finished_at IS NULL AND request::json ->> 'job_type' LIKE '%_\_client\_api';

-- A group's jobs have one job type. Those that name one leave their group for one of its own: its id is the
-- first half of a SHA-256 of its parts, as `service.domain.group` makes it.
ALTER TABLE job_group ADD COLUMN job_type text;
WITH moved AS (
    SELECT j.job_id, j.state, g.group_id AS old_id, j.request::json ->> 'job_type' AS job_type,
        encode(substring(sha256(
            convert_to(g.project_id, 'UTF8') || '\x00' || convert_to(coalesce(g.backend, ''), 'UTF8')
            || (SELECT string_agg('\x00'::bytea || convert_to(t::text, 'UTF8'), ''::bytea ORDER BY n)
                FROM unnest(g.trust_ids) WITH ORDINALITY AS u (t, n))
            || '\x00' || convert_to(g.min_trusts::text, 'UTF8')
            || '\x00' || convert_to(g.num_gpus::text, 'UTF8')
            || '\x00' || convert_to(g.mem_per_gpu_gib::text, 'UTF8')
            || '\x00' || convert_to(j.request::json ->> 'job_type', 'UTF8')
        ) FROM 1 FOR 16), 'hex')::uuid AS new_id
    FROM job j JOIN job_group g ON g.group_id = j.group_id
    WHERE j.finished_at IS NULL AND j.request::json ->> 'job_type' IS NOT NULL
), counted AS (
    SELECT old_id, new_id, job_type, count(*) FILTER (WHERE state = 'queued') AS queued
    FROM moved GROUP BY old_id, new_id, job_type
), made AS (
    INSERT INTO job_group (group_id, project_id, backend, trust_ids, min_trusts, num_gpus, mem_per_gpu_gib,
                           queued, job_type)
    SELECT c.new_id, g.project_id, g.backend, g.trust_ids, g.min_trusts, g.num_gpus, g.mem_per_gpu_gib,
        c.queued, c.job_type
    FROM counted c JOIN job_group g ON g.group_id = c.old_id
), served AS (
    INSERT INTO net_group (net, group_id)
    SELECT ng.net, c.new_id FROM counted c JOIN net_group ng ON ng.group_id = c.old_id
), reviewed AS (
    INSERT INTO registry_review (queued, group_id, version)
    SELECT r.queued, c.new_id, r.version FROM counted c JOIN registry_review r ON r.group_id = c.old_id
), left_behind AS (
    UPDATE job_group g SET queued = g.queued - c.queued
    FROM (SELECT old_id, sum(queued)::integer AS queued FROM counted GROUP BY old_id) c
    WHERE g.group_id = c.old_id
), waiting AS (
    UPDATE ready r SET group_id = m.new_id FROM moved m
    WHERE r.group_id = m.old_id AND r.job_id = m.job_id
)
UPDATE job j SET group_id = m.new_id FROM moved m WHERE j.job_id = m.job_id;
