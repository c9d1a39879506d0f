-- name: outbox_nets
-- Nets whose status changed since it was published. $1 limit
SELECT name, status_body, version FROM net
WHERE version > published_version AND status_body IS NOT NULL
ORDER BY name LIMIT $1
