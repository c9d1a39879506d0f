-- name: lock_jobs
SELECT job_id FROM job WHERE job_id = ANY($1::uuid[]) ORDER BY job_id FOR NO KEY UPDATE

-- name: renew_job_leases
UPDATE job SET lease_until = now() + make_interval(secs => $3)
FROM unnest($1::uuid[], $2::bigint[]) AS v(job_id, token)
WHERE job.job_id = v.job_id AND job.lease_token = v.token
RETURNING job.job_id

-- name: due_jobs
SELECT job_id FROM job WHERE due_at <= now() ORDER BY due_at LIMIT $1

-- name: expired_work
-- $3: nets on which the caller has enough under way.
SELECT job_id FROM job
WHERE state = ANY($1::text[]) AND state IN ('preparing', 'submitting', 'collecting', 'stopping')
  AND (lease_until IS NULL OR lease_until <= now())
  AND (next_try_at IS NULL OR next_try_at <= now())
  AND (cardinality($3::text[]) = 0
       OR (attempts::jsonb -> -1 ->> 'net' = ANY($3::text[])) IS NOT TRUE)
ORDER BY lease_until NULLS FIRST, changed_at LIMIT $2
FOR NO KEY UPDATE SKIP LOCKED

-- name: states_due_put
INSERT INTO state_due (job_id, at) SELECT unnest($1::uuid[]), clock_timestamp()
ON CONFLICT (job_id) DO UPDATE SET at = EXCLUDED.at
