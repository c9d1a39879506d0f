-- name: review_clear
-- The marks of an earlier registry: the new one marks all that it does not approve.
DELETE FROM registry_review

-- name: review_mark
-- Of these groups, those that have jobs to look at again: off the queue, and in it.
-- $1 groups uuid[], $2 registry version
INSERT INTO registry_review (queued, group_id, version)
SELECT false, g, $2::bigint FROM unnest($1::uuid[]) g WHERE EXISTS (
    SELECT 1 FROM job j WHERE j.group_id = g AND j.finished_at IS NULL AND NOT j.eligible)
UNION ALL
SELECT true, g, $2::bigint FROM unnest($1::uuid[]) g WHERE EXISTS (
    SELECT 1 FROM ready r WHERE r.group_id = g)

-- name: review_groups
-- The next groups, with the cursor of each; those off the queue first.
-- $1 limit
SELECT queued, group_id, version, after_rank, after_at, after_job FROM registry_review
WHERE queued = (SELECT bool_and(queued) FROM registry_review)
ORDER BY group_id LIMIT $1

-- name: review_jobs_off_queue
-- Unfinished jobs of these groups that are on a net or delayed, behind each group's cursor.
-- $1 groups uuid[], $2 ranks smallint[] (not looked at), $3 times timestamptz[] (not looked at),
-- $4 jobs uuid[], $5 limit
SELECT v.group_id, v.rank, v.at AS created_at, h.job_id
FROM unnest($1::uuid[], $2::smallint[], $3::timestamptz[], $4::uuid[]) AS v(group_id, rank, at, job_id)
CROSS JOIN LATERAL (
    SELECT j.job_id FROM job j
    WHERE j.group_id = v.group_id AND j.finished_at IS NULL AND NOT j.eligible AND j.job_id > v.job_id
    ORDER BY j.job_id LIMIT $5
) h
ORDER BY v.group_id, h.job_id LIMIT $5

-- name: review_jobs_queued
-- Jobs of these groups that are in the queue, behind each group's cursor.
-- $1 groups uuid[], $2 ranks smallint[], $3 times timestamptz[], $4 jobs uuid[], $5 limit
SELECT v.group_id, h.rank, h.created_at, h.job_id
FROM unnest($1::uuid[], $2::smallint[], $3::timestamptz[], $4::uuid[]) AS v(group_id, rank, at, job_id)
CROSS JOIN LATERAL (
    SELECT r.rank, r.created_at, r.job_id FROM ready r
    WHERE r.group_id = v.group_id AND (r.rank, r.created_at, r.job_id) > (v.rank, v.at, v.job_id)
    ORDER BY r.rank, r.created_at, r.job_id LIMIT $5
) h
ORDER BY v.group_id, h.rank, h.created_at, h.job_id LIMIT $5

-- name: review_done
-- Nothing is left to look at in these groups; a registry applied meanwhile has marked them anew.
-- $1 queued or not, $2 groups uuid[], $3 registry version
DELETE FROM registry_review WHERE queued = $1 AND group_id = ANY($2::uuid[]) AND version = $3

-- name: review_move
-- Where a group's next page begins.
-- $1 queued or not, $2 group, $3 registry version, $4 rank, $5 time, $6 job
UPDATE registry_review SET after_rank = $4, after_at = $5, after_job = $6
WHERE queued = $1 AND group_id = $2 AND version = $3
