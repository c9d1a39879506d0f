-- What an adapter's list says and nobody understands, for people. And the net's registry entry, so that a net
-- that leaves the registry is followed until its last run is over.
ALTER TABLE net ADD COLUMN unknown_statuses text[] NOT NULL DEFAULT '{}';
ALTER TABLE net ADD COLUMN entry text;
UPDATE net SET entry = listed.entry::text
FROM registry r CROSS JOIN LATERAL json_array_elements(r.document::json -> 'nets') AS listed (entry)
WHERE listed.entry ->> 'name' = net.name;

-- Jobs whose state changed after their last event: the state topic hears of it by itself.
CREATE TABLE state_due (
    job_id uuid PRIMARY KEY,
    at     timestamptz NOT NULL
);
