-- name: outbox_stream_insert
-- Fixes the number of partitions of the lifecycle topic permanently. $1 topic, $2 id, $3 partitions
INSERT INTO stream (topic, id, partitions) VALUES ($1, $2, $3) ON CONFLICT (topic) DO NOTHING
