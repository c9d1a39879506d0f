-- name: outbox_lease_release
-- Ends a lease that still has its token.
-- $1 name, $2 holder, $3 token
UPDATE lease SET until = clock_timestamp() WHERE name = $1 AND holder = $2 AND token = $3
