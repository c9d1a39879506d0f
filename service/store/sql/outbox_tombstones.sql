-- name: outbox_tombstones
-- Tombstones to be published, the oldest first.
-- $1 limit
SELECT job_id FROM tombstone WHERE published_at IS NULL ORDER BY at LIMIT $1
