-- name: outbox_lease_renew
-- Prolongs a lease that still has its token; no row: it is lost.
-- $1 name, $2 holder, $3 token, $4 seconds
UPDATE lease SET until = clock_timestamp() + make_interval(secs => $4)
WHERE name = $1 AND holder = $2 AND token = $3
RETURNING token
