-- name: heads_lock
SELECT partition, position FROM head WHERE partition = ANY($1::int[]) ORDER BY partition FOR NO KEY UPDATE

-- name: heads_move
UPDATE head SET position = head.position + v.n FROM unnest($1::int[], $2::int[]) AS v(partition, n)
WHERE head.partition = v.partition
