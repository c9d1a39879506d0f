-- name: offsets_lock
-- Stored offsets, locked in order; waits for a commit under way.
-- $1 consumer group, $2 topics text[], $3 partitions int[]
SELECT topic, partition, next_offset FROM consumer_offset
WHERE consumer_group = $1 AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
ORDER BY topic, partition FOR UPDATE

-- name: offsets_move
-- The offsets are locked, and stand where the reader thinks they stand.
-- $1 consumer group, $2 topics text[], $3 partitions int[], $4 next offsets bigint[]
UPDATE consumer_offset AS o SET next_offset = v.next
FROM unnest($2::text[], $3::int[], $4::bigint[]) AS v(topic, partition, next)
WHERE o.consumer_group = $1 AND o.topic = v.topic AND o.partition = v.partition

-- name: offset_insert
-- Where reading starts where nothing is stored.
-- $1 consumer group, $2 topic, $3 partition, $4 next offset
INSERT INTO consumer_offset (consumer_group, topic, partition, next_offset)
VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING

-- name: ids_insert
-- Claims event ids; those that come back were not known.
-- $1 ids bytea[], $2 hashes of their contents bytea[]
INSERT INTO inbound_id (id, content, outcome, at)
SELECT id, content, 'applied', now() FROM unnest($1::bytea[], $2::bytea[]) AS v(id, content) ORDER BY id
ON CONFLICT DO NOTHING RETURNING id

-- name: ids_select
-- The contents under which these event ids were used.
-- $1 ids bytea[]
SELECT id, content FROM inbound_id WHERE id = ANY($1::bytea[])

-- name: ids_update
-- What became of events that changed nothing.
-- $1 ids bytea[], $2 outcomes text[]
UPDATE inbound_id SET outcome = v.outcome FROM unnest($1::bytea[], $2::text[]) AS v(id, outcome)
WHERE inbound_id.id = v.id

-- name: ids_forget
-- A dead letter may be sent again under its id.
-- $1 ids bytea[]
DELETE FROM inbound_id WHERE id IN (
    SELECT id FROM inbound_id WHERE id = ANY($1::bytea[]) ORDER BY id FOR UPDATE)

-- name: dead_letters_insert
-- A record is its place and its time: of a topic made anew, the same place is another record. Where even the
-- time is the same, the newest is kept, and published again when it is another one.
-- $1 topics, $2 partitions, $3 offsets, $4 times in ms, $5 consumer groups, $6 keys, $7 values, $8 headers,
-- $9 kinds, $10 messages
INSERT INTO dead_letter AS d (topic, partition, "offset", timestamp_ms, consumer_group, key, value, headers,
    kind, message, at)
SELECT v.*, now() FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[],
    $7::bytea[], $8::bytea[], $9::text[], $10::text[])
    AS v(topic, partition, "offset", ms, consumer_group, key, value, headers, kind, message)
ORDER BY topic, partition, "offset", ms
ON CONFLICT (topic, partition, "offset", timestamp_ms) DO UPDATE
SET consumer_group = EXCLUDED.consumer_group, key = EXCLUDED.key, value = EXCLUDED.value,
    headers = EXCLUDED.headers, kind = EXCLUDED.kind, message = EXCLUDED.message, at = EXCLUDED.at,
    published_at = NULL
WHERE (d.key, d.value, d.headers) IS DISTINCT FROM (EXCLUDED.key, EXCLUDED.value, EXCLUDED.headers)
