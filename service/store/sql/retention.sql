-- name: old_jobs
-- Finished long ago, the last event of their life published, and no reservation of theirs left.
-- $1 days, $2 limit
SELECT j.job_id FROM job j
WHERE j.finished_at < now() - make_interval(days => $1)
  AND NOT EXISTS (SELECT 1 FROM reservation s WHERE s.job_id = j.job_id)
  AND NOT EXISTS (SELECT 1 FROM tombstone t WHERE t.job_id = j.job_id)
  AND NOT EXISTS (SELECT 1 FROM event e LEFT JOIN checkpoint h ON h.partition = e.partition
                  WHERE e.job_id = j.job_id AND e.sequence = j.sequence
                    AND e.position > coalesce(h.position, 0))
ORDER BY j.finished_at LIMIT $2

-- name: tombstones_insert
-- Jobs whose rows go once their tombstone is on the log.
-- $1 jobs uuid[]
INSERT INTO tombstone (job_id, at) SELECT id, now() FROM unnest($1::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING

-- name: tombstones_acknowledged
-- Jobs whose tombstone is on the log, and whose rows are still here.
-- $1 limit
SELECT t.job_id FROM tombstone t JOIN job j USING (job_id)
WHERE t.published_at IS NOT NULL ORDER BY t.job_id LIMIT $1

-- name: events_delete
-- So many published events of jobs whose tombstone is on the log.
-- $1 jobs uuid[], $2 limit
DELETE FROM event WHERE (partition, position) IN (
    SELECT e.partition, e.position FROM event e
    JOIN checkpoint h ON h.partition = e.partition AND e.position <= h.position
    WHERE e.job_id = ANY($1::uuid[])
      AND EXISTS (SELECT 1 FROM tombstone t WHERE t.job_id = e.job_id AND t.published_at IS NOT NULL)
    LIMIT $2)

-- name: purgeable_jobs
-- Of these jobs those whose tombstone is on the log and that have no published event left, locked.
-- $1 jobs uuid[]
SELECT t.job_id FROM tombstone t JOIN job j USING (job_id)
WHERE t.published_at IS NOT NULL AND t.job_id = ANY($1::uuid[])
  AND NOT EXISTS (SELECT 1 FROM event e JOIN checkpoint h ON h.partition = e.partition AND e.position <= h.position
                  WHERE e.job_id = t.job_id)
ORDER BY t.job_id FOR NO KEY UPDATE OF j

-- name: retired_insert
-- Keeps the ids and contents of jobs whose rows go.
-- $1 jobs uuid[]
INSERT INTO retired (job_id, content_hash, at)
SELECT job_id, content_hash, now() FROM job WHERE job_id = ANY($1::uuid[]) ORDER BY job_id
ON CONFLICT DO NOTHING

-- name: refusals_delete
-- Published answers about jobs that were never made, or whose rows have gone.
-- $1 days, $2 limit
DELETE FROM event WHERE (partition, position) IN
    (SELECT e.partition, e.position FROM event e JOIN checkpoint h USING (partition)
     WHERE e.sequence IS NULL AND e.at < now() - make_interval(days => $1) AND e.position <= h.position
       AND NOT EXISTS (SELECT 1 FROM job j WHERE j.job_id = e.job_id)
     LIMIT $2)

-- name: runs_delete
-- Jobs' rows go: their run ids.
-- $1 jobs uuid[]
DELETE FROM run WHERE job_id = ANY($1::uuid[])

-- name: states_due_delete
-- Jobs' rows go: the news that their state is due.
-- $1 jobs uuid[]
DELETE FROM state_due WHERE job_id = ANY($1::uuid[])

-- name: jobs_delete
-- Jobs' rows go: the jobs, last.
-- $1 jobs uuid[]
DELETE FROM job WHERE job_id = ANY($1::uuid[])

-- name: tombstones_delete
-- Published, and their job's rows have gone.
-- $1 limit
DELETE FROM tombstone WHERE job_id IN (
    SELECT t.job_id FROM tombstone t
    WHERE t.published_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job WHERE job.job_id = t.job_id)
    ORDER BY t.job_id LIMIT $1 FOR UPDATE)

-- name: ids_delete
-- Event ids that are too old to be sent again.
-- $1 days, $2 limit
DELETE FROM inbound_id WHERE id IN
    (SELECT id FROM inbound_id WHERE at < now() - make_interval(days => $1) LIMIT $2)

-- name: retired_delete
-- Ids of cleaned jobs that are old enough to be forgotten.
-- $1 days, $2 limit
DELETE FROM retired WHERE job_id IN
    (SELECT job_id FROM retired WHERE at < now() - make_interval(days => $1) LIMIT $2)

-- name: dead_letters_delete
-- Dead letters published long ago.
-- $1 days, $2 limit
DELETE FROM dead_letter WHERE (topic, partition, "offset", timestamp_ms) IN
    (SELECT topic, partition, "offset", timestamp_ms FROM dead_letter
     WHERE published_at < now() - make_interval(days => $1) LIMIT $2)
