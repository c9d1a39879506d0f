-- A stop by model is accepted when all that it means is committed: no older transaction is waited for.
ALTER TABLE model_stop DROP COLUMN transaction;
CREATE INDEX model_stop_at ON model_stop (at, id);

-- Groups whose approvals a registry took back: their jobs are looked at again, page by page, those that are
-- not in the queue first. A group's row goes when its last job was looked at; the cursor is that of the
-- last page.
CREATE TABLE registry_review (
    queued      boolean NOT NULL,
    group_id    uuid NOT NULL,
    version     bigint NOT NULL,
    after_rank  smallint NOT NULL DEFAULT -1,
    after_at    timestamptz NOT NULL DEFAULT 'epoch',
    after_job   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    PRIMARY KEY (queued, group_id)
);
-- Unfinished jobs that are not in `ready`: on a net, or delayed.
CREATE INDEX job_off_queue ON job (group_id, job_id) WHERE finished_at IS NULL AND NOT eligible;
