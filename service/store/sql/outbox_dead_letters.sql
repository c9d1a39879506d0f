-- name: outbox_dead_letters
-- The oldest unpublished dead letters, as many as fit into the bytes asked for, at least one.
-- $1 limit, $2 bytes, $3 topics to leave out text[]
SELECT topic, partition, "offset", key, value, headers, timestamp_ms, consumer_group, kind, message
FROM (
    SELECT first.*,
           sum(coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0)
               + octet_length(headers)) OVER (ORDER BY at, topic, partition, "offset") AS bytes,
           row_number() OVER (ORDER BY at, topic, partition, "offset") AS nth
    FROM (
        SELECT topic, partition, "offset", key, value, headers, timestamp_ms, consumer_group, kind,
               message, at
        FROM dead_letter
        WHERE published_at IS NULL AND topic <> ALL ($3::text[])
        ORDER BY at
        LIMIT $1
    ) AS first
) AS counted
WHERE nth = 1 OR bytes <= $2
ORDER BY topic, partition, "offset"
