-- The state of the service. Times are timestamptz by the database's clock; texts with CHECK stand for
-- enums, so that a new word is an ordinary migration. No foreign key points to net, project or job_group:
-- a key-share lock there would make claims wait for writers.

CREATE TABLE registry (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    version     bigint NOT NULL,
    document    text NOT NULL,
    hub_paused  boolean NOT NULL DEFAULT false,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO registry (version, document) VALUES (0, '{}');

CREATE TABLE net (
    name              text PRIMARY KEY,
    registered        boolean NOT NULL DEFAULT true,
    capacity          integer NOT NULL CHECK (capacity >= 0),
    members           uuid[] NOT NULL,
    paused            boolean NOT NULL DEFAULT false,
    answering         boolean NOT NULL DEFAULT false,
    online            uuid[] NOT NULL DEFAULT '{}',
    extensions        text[] NOT NULL DEFAULT '{}',
    strays            text[] NOT NULL DEFAULT '{}',
    seen_at           timestamptz,
    occupied          integer NOT NULL DEFAULT 0 CHECK (occupied >= 0),
    status_body       text,
    version           bigint NOT NULL DEFAULT 0,
    published_version bigint NOT NULL DEFAULT 0,
    -- What stands as {model_id} in the adapter's paths. Where it is the model, a net keeps one app of each.
    path_id           text NOT NULL DEFAULT 'attempt' CHECK (path_id IN ('attempt', 'model')),
    unknown_statuses  text[] NOT NULL DEFAULT '{}',
    -- The registry's entry, so that a net that leaves the registry is followed until its last run is over.
    entry             text,
    gpus              integer NOT NULL DEFAULT 0,       -- at each site
    backend           text
);

CREATE TABLE project (
    project_id  text PRIMARY KEY,
    max_running integer CHECK (max_running >= 0),
    running     integer NOT NULL DEFAULT 0 CHECK (running >= 0)
);

-- What makes two jobs schedulable together or not at all.
CREATE TABLE job_group (
    group_id    uuid PRIMARY KEY,
    project_id  text NOT NULL,
    backend     text,
    trust_ids   uuid[] NOT NULL,
    min_trusts  integer NOT NULL,
    num_gpus    integer NOT NULL,
    mem_per_gpu_gib integer NOT NULL,
    queued      integer NOT NULL DEFAULT 0 CHECK (queued >= 0),
    job_type    text
);

CREATE TABLE net_group (
    net       text NOT NULL,
    group_id  uuid NOT NULL,
    PRIMARY KEY (net, group_id)
);

CREATE TABLE job (
    job_id        uuid PRIMARY KEY,
    model_id      uuid,
    project_id    text,
    group_id      uuid,
    kafka_partition integer NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'preparing', 'submitting', 'running',
                      'collecting', 'stopping', 'completed', 'failed', 'stopped', 'rejected')),
    sequence      integer NOT NULL CHECK (sequence >= 1),
    model_status  text NOT NULL,
    priority      smallint NOT NULL DEFAULT 5,
    eligible      boolean NOT NULL DEFAULT false,
    waiting       text,
    content_hash  bytea NOT NULL,
    correlation_id text,
    source        text,
    traceparent   text,
    cohort_query  text,
    request       text NOT NULL,
    attempts      text NOT NULL DEFAULT '[]',
    submissions   text NOT NULL DEFAULT '{}',
    progress      text NOT NULL DEFAULT '{}',
    stop          text,
    reason        text,
    results       text,
    lease_holder  text,
    lease_token   bigint,
    lease_until   timestamptz,
    token         bigint NOT NULL DEFAULT 0,
    tries         integer NOT NULL DEFAULT 0,
    next_try_at   timestamptz,
    due_at        timestamptz,
    created_at    timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'stopped', 'rejected'))),
    CHECK ((lease_holder IS NULL) = (lease_token IS NULL)),
    CHECK ((lease_holder IS NULL) = (lease_until IS NULL)),
    CHECK (NOT eligible OR state = 'queued')
);
CREATE INDEX job_model ON job (model_id) WHERE finished_at IS NULL;
CREATE INDEX job_active ON job (state, lease_until)
    WHERE state IN ('preparing', 'submitting', 'collecting', 'stopping');
CREATE INDEX job_due ON job (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_created ON job USING brin (created_at);
-- Unfinished jobs that are not in `ready`: on a net, or delayed.
CREATE INDEX job_off_queue ON job (group_id, job_id) WHERE finished_at IS NULL AND NOT eligible;

-- Queued jobs that wait for a time.
CREATE INDEX job_delayed ON job (due_at) WHERE state = 'queued' AND NOT eligible;

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

-- Jobs that nothing but a net and their turn keeps from starting.
CREATE TABLE ready (
    group_id   uuid NOT NULL,
    rank       smallint NOT NULL,          -- 9 less the priority: smaller goes first
    created_at timestamptz NOT NULL,
    job_id     uuid NOT NULL,
    PRIMARY KEY (group_id, rank, created_at, job_id)
);

-- Reservations on nets. The row goes when the run is known to be over.
CREATE TABLE reservation (
    job_id     uuid NOT NULL,
    attempt    integer NOT NULL,
    net        text NOT NULL,
    state      text NOT NULL CHECK (state IN ('held', 'quarantined')),
    run_id     text,
    in_doubt   boolean NOT NULL,           -- a submission went out, and its run is not known
    num_gpus   integer NOT NULL DEFAULT 0, -- taken at each of these trusts
    trust_ids  uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_id, attempt)
);
CREATE INDEX reservation_gpus ON reservation (net) WHERE num_gpus > 0;
CREATE INDEX reservation_net ON reservation (net);
-- The submit lease of a net: one submission without a known outcome at a time.
CREATE UNIQUE INDEX reservation_doubt ON reservation (net) WHERE in_doubt;

-- Every run id an attempt of ours ever had: tells our runs from strays.
CREATE TABLE run (
    net      text NOT NULL,
    run_id   text NOT NULL,
    job_id   uuid NOT NULL,
    attempt  integer NOT NULL,
    PRIMARY KEY (net, run_id)
);

-- The event log: audit trail and outbox. Append-only; positions are gapless per partition.
CREATE TABLE stream (
    topic      text PRIMARY KEY,
    id         uuid NOT NULL,
    partitions integer NOT NULL CHECK (partitions > 0)
);

CREATE TABLE head (
    partition integer PRIMARY KEY,
    position  bigint NOT NULL DEFAULT 0
);

CREATE TABLE checkpoint (
    partition  integer PRIMARY KEY,
    position   bigint NOT NULL DEFAULT 0,
    log_offset bigint NOT NULL DEFAULT 0
);

CREATE TABLE event (
    partition      integer NOT NULL,
    position       bigint NOT NULL,
    event_id       uuid NOT NULL,
    job_id         uuid,
    sequence       integer,
    type           text NOT NULL,
    subject        text NOT NULL,
    at             timestamptz NOT NULL,
    body           text NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    PRIMARY KEY (partition, position)
);
CREATE INDEX event_job ON event (job_id, sequence);
CREATE INDEX event_refusal ON event (at) WHERE sequence IS NULL;

-- Inbound.
CREATE TABLE consumer_offset (
    consumer_group text NOT NULL,
    topic          text NOT NULL,
    partition      integer NOT NULL,
    next_offset    bigint NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
);

CREATE TABLE inbound_id (
    id      bytea PRIMARY KEY CHECK (length(id) = 16),
    content bytea NOT NULL,
    outcome text NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX inbound_id_at ON inbound_id USING brin (at);

CREATE TABLE parked (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id        uuid NOT NULL,
    is_stop       boolean NOT NULL,
    event_id      bytea,
    topic         text NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint NOT NULL,
    timestamp_ms  bigint NOT NULL,
    consumer_group text NOT NULL,
    key           bytea,
    value         bytea,
    headers       bytea NOT NULL,
    at            timestamptz NOT NULL,
    until         timestamptz NOT NULL
);
CREATE INDEX parked_job ON parked (job_id, id);

CREATE TABLE dead_letter (
    topic          text NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint NOT NULL,
    timestamp_ms   bigint NOT NULL,
    consumer_group text NOT NULL,
    key            bytea,
    value          bytea,
    headers        bytea NOT NULL,
    kind           text NOT NULL,
    message        text NOT NULL,
    at             timestamptz NOT NULL,
    published_at   timestamptz,
    PRIMARY KEY (topic, partition, "offset", timestamp_ms)
);
CREATE INDEX dead_letter_published ON dead_letter (published_at) WHERE published_at IS NOT NULL;
CREATE INDEX dead_letter_unpublished ON dead_letter (at) WHERE published_at IS NULL;

-- A stop by model: a step stops the jobs created before `at`, page by page.
CREATE TABLE model_stop (
    id           uuid PRIMARY KEY,
    model_id     uuid NOT NULL,
    reason       text,
    requested_by text,
    correlation_id text NOT NULL,
    source       text NOT NULL,
    at           timestamptz NOT NULL
);
CREATE INDEX model_stop_at ON model_stop (at, id);

-- What is kept of cleaned jobs, so that an old job_id never trains again.
CREATE TABLE retired (
    job_id       uuid PRIMARY KEY,
    content_hash bytea NOT NULL,
    at           timestamptz NOT NULL
);
CREATE INDEX retired_at ON retired USING brin (at);

CREATE TABLE tombstone (
    job_id       uuid PRIMARY KEY,
    at           timestamptz NOT NULL,
    published_at timestamptz
);

-- Jobs whose state changed after their last event: the state topic hears of it by itself.
CREATE TABLE state_due (
    job_id uuid PRIMARY KEY,
    at     timestamptz NOT NULL
);

-- Named leases: relays, pollers, sweeps.
CREATE TABLE lease (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    token  bigint NOT NULL,
    until  timestamptz NOT NULL
);
