-- name: outbox_nets_done
-- Done only for the version that was read; nets are locked in the order in which everybody locks them.
-- $1 names text[], $2 versions bigint[]
UPDATE net SET published_version = done.version
FROM (
    SELECT v.name, v.version FROM unnest($1::text[], $2::bigint[]) AS v (name, version)
    JOIN net ON net.name = v.name ORDER BY v.name FOR NO KEY UPDATE OF net
) AS done
WHERE net.name = done.name AND net.published_version < done.version
