-- name: outbox_tombstones_done
-- These were acknowledged; rows are locked in the order in which everybody locks them.
-- $1 jobs uuid[]
UPDATE tombstone SET published_at = clock_timestamp() WHERE job_id IN (
    SELECT job_id FROM tombstone WHERE job_id = ANY ($1::uuid[]) ORDER BY job_id FOR NO KEY UPDATE)
