-- name: admission_share
-- Judge by the rules that hold now, until the commit.
SELECT pg_advisory_xact_lock_shared(7105822002)

-- name: admission_lock
-- Change the rules: waits for all who judge by the old ones.
SELECT pg_advisory_xact_lock(7105822002)
