-- name: reservations_of_net
-- The places taken on a net.
-- $1 net
SELECT s.job_id, s.attempt, s.net, s.state, s.run_id FROM reservation s WHERE s.net = $1 ORDER BY s.job_id, s.attempt

-- name: runs_select
-- Which of these runs are ours.
-- $1 net, $2 run ids text[]
SELECT run_id FROM run WHERE net = $1 AND run_id = ANY($2::text[])
