-- $1 topics text[], $2 partitions int[], $3 offsets bigint[]
UPDATE dead_letter SET published_at = clock_timestamp()
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS done (topic, partition, "offset")
WHERE dead_letter.topic = done.topic AND dead_letter.partition = done.partition
  AND dead_letter."offset" = done."offset"
