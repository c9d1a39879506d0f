-- name: outbox_stream
-- The stream of a topic, its number of partitions fixed.
-- $1 topic
SELECT topic, id, partitions FROM stream WHERE topic = $1

-- name: outbox_stream_insert
-- Fixes the number of partitions of the lifecycle topic permanently. $1 topic, $2 id, $3 partitions
INSERT INTO stream (topic, id, partitions) VALUES ($1, $2, $3) ON CONFLICT (topic) DO NOTHING

-- name: outbox_heads_insert
-- One row for each partition, so that a writer always finds one to lock. $1 partitions
INSERT INTO head (partition, position) SELECT p, 0 FROM generate_series(0, $1::int - 1) AS p
ON CONFLICT (partition) DO NOTHING

-- name: outbox_positions
-- The last position given and the last known published, by partition. $1 partitions int[]
SELECT head.partition, head.position AS head, checkpoint.position AS checkpoint, checkpoint.log_offset
FROM head LEFT JOIN checkpoint USING (partition)
WHERE head.partition = ANY ($1::int[])

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

-- name: outbox_checkpoint_upsert
-- Upwards only. $1 partitions int[], $2 positions bigint[], $3 log offsets bigint[]
INSERT INTO checkpoint (partition, position, log_offset)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS v (partition, position, log_offset)
ORDER BY partition
ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position, log_offset = EXCLUDED.log_offset
WHERE checkpoint.position < EXCLUDED.position

-- name: outbox_lease_acquire
-- Takes a lease that is free, run out, or already this holder's; no row: somebody else has it.
-- $1 name, $2 holder, $3 seconds
INSERT INTO lease AS l (name, holder, token, until)
VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE
SET holder = EXCLUDED.holder, token = l.token + 1, until = EXCLUDED.until
WHERE l.until <= clock_timestamp() OR l.holder = EXCLUDED.holder
RETURNING token

-- name: outbox_lease_renew
-- Prolongs a lease that still has its token; no row: it is lost.
-- $1 name, $2 holder, $3 token, $4 seconds
UPDATE lease SET until = clock_timestamp() + make_interval(secs => $4)
WHERE name = $1 AND holder = $2 AND token = $3
RETURNING token

-- name: outbox_lease_release
-- Ends a lease that still has its token.
-- $1 name, $2 holder, $3 token
UPDATE lease SET until = clock_timestamp() WHERE name = $1 AND holder = $2 AND token = $3

-- name: outbox_accept_checkpoint
-- The operator's decision: the log is the truth. $1 partition, $2 position, $3 log offset
INSERT INTO checkpoint (partition, position, log_offset) VALUES ($1, $2, $3)
ON CONFLICT (partition) DO UPDATE SET position = EXCLUDED.position, log_offset = EXCLUDED.log_offset

-- name: outbox_accept_head
-- The operator's decision: positions continue above what the log has. $1 partition, $2 position
UPDATE head SET position = greatest(position, $2) WHERE partition = $1

-- name: outbox_nets
-- Nets whose status changed since it was published. $1 limit
SELECT name, status_body, version FROM net
WHERE version > published_version AND status_body IS NOT NULL
ORDER BY name LIMIT $1

-- name: outbox_nets_done
-- Done only for the version that was read; nets are locked in the order in which everybody locks them.
-- $1 names text[], $2 versions bigint[]
UPDATE net SET published_version = done.version
FROM (
    SELECT v.name, v.version FROM unnest($1::text[], $2::bigint[]) AS v (name, version)
    JOIN net ON net.name = v.name ORDER BY v.name FOR NO KEY UPDATE OF net
) AS done
WHERE net.name = done.name AND net.published_version < done.version

-- name: outbox_tombstones
-- Tombstones to be published, the oldest first.
-- $1 limit
SELECT job_id FROM tombstone WHERE published_at IS NULL ORDER BY at LIMIT $1

-- name: outbox_tombstones_done
-- These were acknowledged; rows are locked in the order in which everybody locks them.
-- $1 jobs uuid[]
UPDATE tombstone SET published_at = clock_timestamp() WHERE job_id IN (
    SELECT job_id FROM tombstone WHERE job_id = ANY ($1::uuid[]) ORDER BY job_id FOR NO KEY UPDATE)

-- name: outbox_states_due
-- Jobs whose state changed after their last event, each once that event is published.
-- $1 limit
SELECT d.job_id, d.at FROM state_due d JOIN job j USING (job_id)
WHERE NOT EXISTS (SELECT 1 FROM event e LEFT JOIN checkpoint h USING (partition)
                  WHERE e.job_id = d.job_id AND e.position > coalesce(h.position, 0))
ORDER BY d.at LIMIT $1

-- name: outbox_states_due_done
-- Done only as it was read: it may have changed again meanwhile.
-- $1 jobs uuid[], $2 times timestamptz[]
DELETE FROM state_due d USING unnest($1::uuid[], $2::timestamptz[]) AS done (job_id, at)
WHERE d.job_id = done.job_id AND d.at = done.at

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

-- name: outbox_undecodable
-- Records that could not be decoded, by the kind that ingest gives them.
-- $1 topic, $2 partition, $3 offset to start from
SELECT count(*) FROM dead_letter
WHERE topic = $1 AND partition = $2 AND "offset" >= $3 AND kind IN ('Undecodable', 'Unreadable')
