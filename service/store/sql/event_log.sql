-- name: heads_lock
-- The last positions given, locked to the commit, in order.
-- $1 partitions int[]
SELECT partition, position FROM head WHERE partition = ANY($1::int[]) ORDER BY partition FOR NO KEY UPDATE

-- name: heads_move
-- Gives positions: the heads are locked.
-- $1 partitions int[], $2 how many on each int[]
UPDATE head SET position = head.position + v.n FROM unnest($1::int[], $2::int[]) AS v(partition, n)
WHERE head.partition = v.partition
