-- name: outbox_undecodable
-- Records that could not be decoded, by the kind that ingest gives them.
-- $1 topic, $2 partition, $3 offset to start from
SELECT count(*) FROM dead_letter
WHERE topic = $1 AND partition = $2 AND "offset" >= $3 AND kind IN ('Undecodable', 'Unreadable')
