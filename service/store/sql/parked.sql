-- name: parked_insert
-- Keeps a record until its job is known.
-- $1 job, $2 a stop or not, $3 event id bytea, $4 topic, $5 partition, $6 offset, $7 time in ms,
-- $8 consumer group, $9 key, $10 value, $11 headers, $12 seconds
INSERT INTO parked (job_id, is_stop, event_id, topic, partition, "offset", timestamp_ms, consumer_group,
    key, value, headers, at, until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now(), now() + make_interval(secs => $12))

-- name: parked_of_jobs
-- Everything that waits for these jobs, as it came.
-- $1 jobs uuid[]
SELECT * FROM parked WHERE job_id = ANY($1::uuid[]) ORDER BY id

-- name: parked_stops_of_jobs
-- The stops that wait for these jobs, as they came.
-- $1 jobs uuid[]
SELECT * FROM parked WHERE job_id = ANY($1::uuid[]) AND is_stop ORDER BY id

-- name: parked_delete
-- Two instances may feed the same records: locked in one order, the second finds nothing.
-- $1 ids bigint[]
DELETE FROM parked WHERE id IN (
    SELECT id FROM parked WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE) RETURNING id

-- name: parked_due
-- A report can't be judged while its job's submission has no answer: it must not fill the page.
-- $1 limit, $2 the one record asked for, null for any
SELECT p.* FROM parked p
WHERE (p.until <= now()
    OR EXISTS (SELECT 1 FROM job j WHERE j.job_id = p.job_id AND (p.is_stop OR j.state <> 'submitting')))
    AND ($2::bigint IS NULL OR p.id = $2)
ORDER BY p.id LIMIT $1
