-- name: outbox_checkpoint_upsert
-- Upwards only. $1 partitions int[], $2 positions bigint[], $3 log offsets bigint[]
INSERT INTO checkpoint (partition, position, log_offset)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS v (partition, position, log_offset)
ORDER BY partition
ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position, log_offset = EXCLUDED.log_offset
WHERE checkpoint.position < EXCLUDED.position
