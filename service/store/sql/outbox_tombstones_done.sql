-- $1 job ids uuid[]
UPDATE tombstone SET published_at = clock_timestamp() WHERE job_id = ANY ($1::uuid[])
