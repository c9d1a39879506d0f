-- name: outbox_heads_insert
-- One row for each partition, so that a writer always finds one to lock. $1 partitions
INSERT INTO head (partition, position) SELECT p, 0 FROM generate_series(0, $1::int - 1) AS p
ON CONFLICT (partition) DO NOTHING
