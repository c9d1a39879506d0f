-- Refusals belong to no job's life, so retention finds them by their age.
CREATE INDEX event_refusal ON event (at) WHERE sequence IS NULL;
