-- name: outbox_lease_acquire
-- Takes a lease that is free, run out, or already this holder's; no row: somebody else has it.
-- $1 name, $2 holder, $3 seconds
INSERT INTO lease AS l (name, holder, token, until)
VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE
SET holder = EXCLUDED.holder, token = l.token + 1, until = EXCLUDED.until
WHERE l.until <= clock_timestamp() OR l.holder = EXCLUDED.holder
RETURNING token
