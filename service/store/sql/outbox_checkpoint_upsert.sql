-- Upwards only. $1 partitions int[], $2 positions bigint[], $3 log offsets bigint[]
INSERT INTO checkpoint (partition, position, log_offset)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[])
ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position, log_offset = EXCLUDED.log_offset
WHERE checkpoint.position < EXCLUDED.position
