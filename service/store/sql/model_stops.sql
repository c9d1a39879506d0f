-- name: model_has_jobs
-- Has the model a job that a stop could mean?
-- $1 model uuid
SELECT EXISTS (SELECT 1 FROM job WHERE model_id = $1 AND finished_at IS NULL)

-- name: model_stop_insert
-- An accepted stop, for the jobs created before it.
-- $1 id uuid, $2 model uuid, $3 reason, $4 who asked for it, $5 the stop's event id, $6 its source, $7 now
INSERT INTO model_stop (id, model_id, reason, requested_by, correlation_id, source, at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING

-- name: model_stops
-- A page of accepted stops, the oldest first.
-- $1 `at` and $2 id of the last one of the page before, $3 limit
SELECT id, model_id, reason, requested_by, correlation_id, source, at FROM model_stop
WHERE (at, id) > ($1::timestamptz, $2::uuid) ORDER BY at, id LIMIT $3

-- name: model_stop_jobs
-- Jobs that a stop by model means and that nothing has stopped yet. All of them are committed, since the
-- stop was accepted under the admission lock.
-- $1 model uuid, $2 the stop's `at`, $3 limit
SELECT job_id FROM job
WHERE model_id = $1 AND finished_at IS NULL AND stop IS NULL AND created_at < $2
ORDER BY job_id LIMIT $3

-- name: model_stop_delete
-- The stop is carried out.
-- $1 id uuid
DELETE FROM model_stop WHERE id = $1
