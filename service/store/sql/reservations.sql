-- name: reservations_of_net
SELECT s.job_id, s.attempt, s.net, s.state, s.run_id FROM reservation s WHERE s.net = $1 ORDER BY s.job_id, s.attempt

-- name: runs_select
SELECT run_id FROM run WHERE net = $1 AND run_id = ANY($2::text[])
