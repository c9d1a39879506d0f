-- The last position given and the last known published, by partition. $1 partitions int[]
SELECT head.partition, head.position AS head, hint.position AS hint, hint.log_offset
FROM head LEFT JOIN hint USING (partition)
WHERE head.partition = ANY ($1::int[])
