-- name: outbox_accept_checkpoint
-- The operator's decision: the log is the truth. $1 partition, $2 position, $3 log offset
INSERT INTO checkpoint (partition, position, log_offset) VALUES ($1, $2, $3)
ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position, log_offset = EXCLUDED.log_offset
