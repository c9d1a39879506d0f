-- Done only for the version that was read. $1 names text[], $2 versions bigint[]
UPDATE net SET published_version = done.version
FROM unnest($1::text[], $2::bigint[]) AS done (name, version)
WHERE net.name = done.name AND net.published_version < done.version
