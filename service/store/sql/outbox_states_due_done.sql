-- Done only as it was read: it may have changed again meanwhile. $1 job ids uuid[], $2 times timestamptz[]
DELETE FROM state_due d USING unnest($1::uuid[], $2::timestamptz[]) AS done (job_id, at)
WHERE d.job_id = done.job_id AND d.at = done.at
