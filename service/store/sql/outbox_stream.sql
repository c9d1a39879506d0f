-- name: outbox_stream
-- The stream of a topic, its number of partitions fixed.
-- $1 topic
SELECT topic, id, partitions FROM stream WHERE topic = $1
