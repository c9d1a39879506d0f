-- name: outbox_events
-- Events above the given position of each partition, in position order, partitions in the given order.
-- $1 partitions int[], $2 positions bigint[] (already published), $3 limit of the whole answer
SELECT e.partition, e.position, e.job_id, e.sequence, e.type, e.event_id::text, e.subject, e.at, e.body,
       e.correlation_id, e.causation_id, e.traceparent
FROM unnest($1::int[], $2::bigint[]) AS done (partition, position)
CROSS JOIN LATERAL (
    SELECT *
    FROM event
    WHERE event.partition = done.partition AND event.position > done.position
    ORDER BY event.position
    LIMIT $3
) AS e
LIMIT $3
