-- name: offsets_lock
SELECT topic, partition, next_offset FROM consumer_offset
WHERE consumer_group = $1 AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
ORDER BY topic, partition FOR UPDATE

-- name: offsets_move
UPDATE consumer_offset AS o SET next_offset = v.next
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS v(topic, partition, next)
WHERE o.consumer_group = $1 AND o.topic = v.topic AND o.partition = v.partition

-- name: offset_insert
INSERT INTO consumer_offset (consumer_group, topic, partition, next_offset)
VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING

-- name: ids_insert
INSERT INTO inbound_id (id, content, outcome, at)
SELECT id, content, 'applied', now() FROM unnest($1::bytea[], $2::bytea[]) AS v(id, content) ORDER BY id
ON CONFLICT DO NOTHING RETURNING id

-- name: ids_select
SELECT id, content FROM inbound_id WHERE id = ANY($1::bytea[])

-- name: ids_update
UPDATE inbound_id SET outcome = v.outcome FROM unnest($1::bytea[], $2::text[]) AS v(id, outcome)
WHERE inbound_id.id = v.id

-- name: ids_forget
DELETE FROM inbound_id WHERE id = ANY($1::bytea[])

-- name: dead_letters_insert
INSERT INTO dead_letter (topic, partition, "offset", timestamp_ms, consumer_group, key, value, headers,
    kind, message, at)
SELECT v.*, now() FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[],
    $7::bytea[], $8::bytea[], $9::text[], $10::text[]) AS v
ON CONFLICT (topic, partition, "offset") DO NOTHING

-- name: parked_insert
INSERT INTO parked (job_id, is_stop, event_id, topic, partition, "offset", timestamp_ms, consumer_group,
    key, value, headers, at, until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now(), now() + make_interval(secs => $12))

-- name: parked_of_jobs
SELECT * FROM parked WHERE job_id = ANY($1::uuid[]) ORDER BY id

-- name: parked_stops_of_jobs
SELECT * FROM parked WHERE job_id = ANY($1::uuid[]) AND is_stop ORDER BY id

-- name: parked_delete
DELETE FROM parked WHERE id = ANY($1::bigint[]) RETURNING id

-- name: parked_due
-- A report can't be judged while its job's submission has no answer: it must not fill the page.
SELECT p.* FROM parked p
WHERE (p.until <= now()
    OR EXISTS (SELECT 1 FROM job j WHERE j.job_id = p.job_id AND (p.is_stop OR j.state <> 'submitting')))
    AND ($2::bigint IS NULL OR p.id = $2)
ORDER BY p.id LIMIT $1

-- name: model_has_jobs
SELECT EXISTS (SELECT 1 FROM job WHERE model_id = $1 AND finished_at IS NULL)

-- name: model_stop_insert
INSERT INTO model_stop (id, model_id, reason, requested_by, correlation_id, source, at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp()) ON CONFLICT DO NOTHING

-- name: model_stops
SELECT * FROM model_stop ORDER BY at LIMIT 20

-- name: model_stop_jobs
SELECT job_id FROM job
WHERE model_id = $1 AND finished_at IS NULL AND stop IS NULL AND created_at <= $2
ORDER BY job_id LIMIT $3

-- name: model_stop_delete
DELETE FROM model_stop WHERE id = $1 AND transaction < pg_snapshot_xmin(pg_current_snapshot())
