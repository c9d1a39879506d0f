-- name: hint_send
-- What was committed, for whoever listens.
-- $1 channel, $2 hints, separated by commas
SELECT pg_notify($1, $2)
