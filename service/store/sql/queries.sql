-- name: q_jobs
-- The newest jobs that fit every filter that is not null.
-- $1 state, $2 model, $3 project, $4 created before, $5 limit
SELECT job_id, model_id, project_id, state, model_status, priority, sequence, waiting, attempts, progress,
    reason, created_at, changed_at, finished_at
FROM job
WHERE ($1::text IS NULL OR state = $1) AND ($2::uuid IS NULL OR model_id = $2)
  AND ($3::text IS NULL OR project_id = $3) AND ($4::timestamptz IS NULL OR created_at < $4)
ORDER BY created_at DESC, job_id LIMIT $5

-- name: q_jobs_live
-- Those unfinished, and those finished since $1.
-- $1 since, $2 limit
SELECT job_id, model_id, project_id, state, model_status, priority, sequence, waiting, attempts, progress,
    reason, created_at, changed_at, finished_at
FROM job
WHERE finished_at IS NULL OR finished_at >= $1
ORDER BY created_at DESC, job_id LIMIT $2

-- name: q_events
-- A job's events above a sequence, in order.
-- $1 job, $2 sequence, $3 limit
SELECT sequence, type, at, event_id, body FROM event
WHERE job_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3

-- name: q_position
-- How many ready jobs go first: all with a smaller rank, and older ones of the same rank.
-- $1 job
SELECT 1 + count(*) FROM ready r, ready me
WHERE me.job_id = $1 AND (r.rank, r.created_at, r.job_id) < (me.rank, me.created_at, me.job_id)

-- name: q_nets
-- What the last look at each registered net showed.
SELECT name, registered, capacity, occupied, paused, answering, online, extensions, strays, seen_at,
    status_body, unknown_statuses FROM net
WHERE registered OR EXISTS (SELECT 1 FROM reservation s WHERE s.net = net.name) ORDER BY name

-- name: q_reservations
-- Every place taken, with the state of its job.
SELECT s.job_id, s.attempt, s.net, s.state, s.run_id, s.in_doubt, j.state AS job_state
FROM reservation s JOIN job j USING (job_id) ORDER BY s.net, s.job_id

-- name: q_reservations_stuck
-- A job that is over does not change any more: its reservation is quarantined at least since then.
-- $1 seconds of quarantine
SELECT s.net, s.job_id, s.attempt, s.state, s.run_id, s.in_doubt, j.state AS job_state,
    coalesce(n.registered, false) AS registered, extract(epoch FROM now() - j.changed_at)::float8 AS seconds
FROM reservation s JOIN job j USING (job_id) LEFT JOIN net n ON n.name = s.net
WHERE n.registered IS NOT TRUE
    OR (s.state = 'quarantined' AND j.changed_at < now() - make_interval(secs => $1))
ORDER BY s.net, s.job_id, s.attempt

-- name: q_offsets
-- Where a consumer group reads on.
-- $1 consumer group
SELECT topic, partition, next_offset FROM consumer_offset WHERE consumer_group = $1

-- name: q_dead_letters
-- The newest dead letters, without their content.
-- $1 topic or null for all, $2 limit
SELECT topic, partition, "offset", kind, message, at, published_at FROM dead_letter
WHERE ($1::text IS NULL OR topic = $1) ORDER BY at DESC, topic, partition, "offset" DESC LIMIT $2

-- name: q_dead_letter
-- A record as it came; of a topic made anew, the newest at this place.
-- $1 topic, $2 partition, $3 offset
SELECT topic, partition, "offset", timestamp_ms, key, value, headers, kind, message, at, published_at
FROM dead_letter WHERE topic = $1 AND partition = $2 AND "offset" = $3 ORDER BY at DESC LIMIT 1

-- name: q_states
-- How many unfinished jobs are in each state.
SELECT state, count(*) AS n FROM job WHERE finished_at IS NULL GROUP BY state

-- name: q_counts
-- The numbers behind the gauges.
SELECT (SELECT count(*) FROM parked) AS parked,
    (SELECT count(*) FROM dead_letter WHERE published_at IS NULL) AS dead_letters_unsent,
    (SELECT count(*) FROM dead_letter) AS dead_letters,
    (SELECT coalesce(sum(h.position - coalesce(t.position, 0)), 0)
     FROM head h LEFT JOIN checkpoint t USING (partition))::bigint AS outbox_lag,
    (SELECT count(*) FROM reservation WHERE state = 'quarantined') AS quarantined,
    (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0) FROM ready)::float8
        AS oldest_queued_seconds
