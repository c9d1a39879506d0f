-- name: outbox_accept_head
-- The operator's decision: positions continue above what the log has. $1 partition, $2 position
UPDATE head SET position = greatest(position, $2) WHERE partition = $1
