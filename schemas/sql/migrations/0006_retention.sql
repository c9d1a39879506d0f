-- A topic made anew counts its offsets from 0 again: the record's time tells its dead letters from old ones.
ALTER TABLE dead_letter DROP CONSTRAINT dead_letter_pkey;
ALTER TABLE dead_letter ADD PRIMARY KEY (topic, partition, "offset", timestamp_ms);

-- Retention reads both by their age.
CREATE INDEX retired_at ON retired USING brin (at);
CREATE INDEX dead_letter_published ON dead_letter (published_at) WHERE published_at IS NOT NULL;
