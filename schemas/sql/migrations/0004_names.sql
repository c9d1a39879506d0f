-- A reservation on a net is called one; a slot is a client's name in the FL runtime. How far the log is known
-- to hold the events is a checkpoint. The stored values stay.
ALTER TABLE slot RENAME TO reservation;
ALTER TABLE reservation RENAME CONSTRAINT slot_pkey TO reservation_pkey;
ALTER TABLE reservation RENAME CONSTRAINT slot_state_check TO reservation_state_check;
ALTER INDEX slot_net RENAME TO reservation_net;
ALTER INDEX slot_doubt RENAME TO reservation_doubt;
ALTER TABLE hint RENAME TO checkpoint;
ALTER TABLE checkpoint RENAME CONSTRAINT hint_pkey TO checkpoint_pkey;
-- From version 18 on Postgres names these too.
DO $$
DECLARE
    c record;
BEGIN
    FOR c IN
        SELECT conrelid::regclass AS relation, conname FROM pg_constraint
        WHERE conrelid IN ('reservation'::regclass, 'checkpoint'::regclass) AND conname ~ '^(slot|hint)_'
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', c.relation, c.conname,
            regexp_replace(c.conname, '^(slot|hint)', c.relation::text));
    END LOOP;
END
$$;
