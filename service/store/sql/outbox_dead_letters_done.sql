-- name: outbox_dead_letters_done
-- These were acknowledged; rows are locked in the order in which everybody locks them.
-- $1 topics text[], $2 partitions int[], $3 offsets bigint[], $4 times in ms bigint[]
UPDATE dead_letter AS d SET published_at = clock_timestamp()
FROM (
    SELECT l.topic, l.partition, l."offset", l.timestamp_ms
    FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) AS v (topic, partition, "offset", ms)
    JOIN dead_letter l ON l.topic = v.topic AND l.partition = v.partition AND l."offset" = v."offset"
        AND l.timestamp_ms = v.ms
    ORDER BY l.topic, l.partition, l."offset", l.timestamp_ms FOR NO KEY UPDATE OF l
) AS done
WHERE d.topic = done.topic AND d.partition = done.partition AND d."offset" = done."offset"
  AND d.timestamp_ms = done.timestamp_ms
