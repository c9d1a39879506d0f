-- name: lock_jobs
-- Locks jobs in the order of their ids.
-- $1 jobs uuid[]
SELECT job_id FROM job WHERE job_id = ANY($1::uuid[]) ORDER BY job_id FOR NO KEY UPDATE

-- name: renew_job_leases
-- Prolongs the leases that still have their token.
-- $1 jobs uuid[], $2 tokens bigint[], $3 seconds
UPDATE job SET lease_until = now() + make_interval(secs => $3)
FROM unnest($1::uuid[], $2::bigint[]) AS v(job_id, token)
WHERE job.job_id = v.job_id AND job.lease_token = v.token
RETURNING job.job_id

-- name: due_jobs
-- Jobs to look at again, the one that waits longest first.
-- $1 limit
SELECT job_id FROM job WHERE due_at <= now() ORDER BY due_at LIMIT $1

-- name: due_put_off
-- A job whose review fails must not stand at the head of every page.
-- $1 job uuid, $2 seconds
UPDATE job SET due_at = now() + make_interval(secs => $2) WHERE job_id = $1 AND due_at <= now()

-- name: expired_work
-- Jobs in these states that nobody holds and that are due, locked; those locked by others are left out.
-- $1 states text[], $2 limit, $3 nets to leave out text[]
SELECT job_id FROM job
WHERE state = ANY($1::text[]) AND state IN ('preparing', 'submitting', 'collecting', 'stopping')
  AND (lease_until IS NULL OR lease_until <= now())
  AND (next_try_at IS NULL OR next_try_at <= now())
  AND (cardinality($3::text[]) = 0
       OR (attempts::jsonb -> -1 ->> 'net' = ANY($3::text[])) IS NOT TRUE)
ORDER BY lease_until NULLS FIRST, changed_at LIMIT $2
FOR NO KEY UPDATE SKIP LOCKED

-- name: states_due_upsert
-- Their state changed after their last event.
-- $1 jobs uuid[]
INSERT INTO state_due (job_id, at) SELECT id, clock_timestamp() FROM unnest($1::uuid[]) AS id ORDER BY id
ON CONFLICT (job_id) DO UPDATE SET at = EXCLUDED.at
