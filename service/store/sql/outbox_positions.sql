-- name: outbox_positions
-- The last position given and the last known published, by partition. $1 partitions int[]
SELECT head.partition, head.position AS head, checkpoint.position AS checkpoint, checkpoint.log_offset
FROM head LEFT JOIN checkpoint USING (partition)
WHERE head.partition = ANY ($1::int[])
