-- name: old_jobs
-- Finished long ago, every event of theirs published, and no reservation of theirs left.
SELECT j.job_id FROM job j
WHERE j.finished_at < now() - make_interval(days => $1)
  AND NOT EXISTS (SELECT 1 FROM reservation s WHERE s.job_id = j.job_id)
  AND NOT EXISTS (SELECT 1 FROM tombstone t WHERE t.job_id = j.job_id)
  AND NOT EXISTS (SELECT 1 FROM event e LEFT JOIN checkpoint h ON h.partition = e.partition
                  WHERE e.job_id = j.job_id AND e.position > coalesce(h.position, 0))
ORDER BY j.finished_at LIMIT $2

-- name: tombstones_insert
INSERT INTO tombstone (job_id, at) SELECT unnest($1::uuid[]), now() ON CONFLICT DO NOTHING

-- name: purgeable_jobs
SELECT t.job_id FROM tombstone t JOIN job j USING (job_id)
WHERE t.published_at IS NOT NULL AND t.job_id = ANY($1::uuid[]) ORDER BY t.job_id FOR NO KEY UPDATE OF j

-- name: tombstones_acknowledged
SELECT t.job_id FROM tombstone t JOIN job j USING (job_id)
WHERE t.published_at IS NOT NULL ORDER BY t.job_id LIMIT $1

-- name: retired_insert
INSERT INTO retired (job_id, content_hash, at)
SELECT job_id, content_hash, now() FROM job WHERE job_id = ANY($1::uuid[]) ON CONFLICT DO NOTHING

-- name: events_delete
DELETE FROM event e USING checkpoint h
WHERE e.job_id = ANY($1::uuid[]) AND h.partition = e.partition AND e.position <= h.position

-- name: refusals_delete
-- Published answers about jobs that were never made, or whose rows have gone.
DELETE FROM event WHERE (partition, position) IN
    (SELECT e.partition, e.position FROM event e JOIN checkpoint h USING (partition)
     WHERE e.sequence IS NULL AND e.at < now() - make_interval(days => $1) AND e.position <= h.position
       AND NOT EXISTS (SELECT 1 FROM job j WHERE j.job_id = e.job_id)
     LIMIT $2)

-- name: runs_delete
DELETE FROM run WHERE job_id = ANY($1::uuid[])

-- name: states_due_drop
DELETE FROM state_due WHERE job_id = ANY($1::uuid[])

-- name: jobs_delete
DELETE FROM job WHERE job_id = ANY($1::uuid[])

-- name: tombstones_delete
DELETE FROM tombstone WHERE published_at IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM job WHERE job.job_id = tombstone.job_id)

-- name: ids_delete
DELETE FROM inbound_id WHERE id IN
    (SELECT id FROM inbound_id WHERE at < now() - make_interval(days => $1) LIMIT $2)

-- name: retired_delete
DELETE FROM retired WHERE job_id IN
    (SELECT job_id FROM retired WHERE at < now() - make_interval(days => $1) LIMIT $2)

-- name: dead_letters_delete
DELETE FROM dead_letter WHERE published_at < now() - make_interval(days => $1)
