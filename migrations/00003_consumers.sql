-- Consumers: how far each has come, who works on which slices, and what was
-- set aside. No Down section: the product's tables only go forward.

-- +goose Up

CREATE TABLE consumers (
    name       text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,99}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The instances that take part, so that each knows its fair share of ranges.
CREATE TABLE consumer_members (
    consumer   text COLLATE "C" NOT NULL REFERENCES consumers ON DELETE CASCADE,
    instance   text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (consumer, instance)
);

-- A range of slices: its checkpoint and its lease in one row, so that a write
-- of the checkpoint can require the token of the lease. The token grows with
-- each change of hands; whoever writes with an older one changes nothing.
--
-- Every event of the range up to position has been handled, except those of
-- streams in consumer_parked. Events above dispatched have never been handed
-- to a handler. A row with dispatched > position and a new owner means that
-- the last owner did not come to an orderly end.
CREATE TABLE consumer_ranges (
    consumer    text COLLATE "C" NOT NULL REFERENCES consumers ON DELETE CASCADE,
    first_slice smallint NOT NULL,
    last_slice  smallint NOT NULL,
    epoch       integer  NOT NULL,
    position    bigint   NOT NULL CHECK (position >= 0),
    dispatched  bigint   NOT NULL CHECK (dispatched >= position),
    owner       text COLLATE "C",
    token       bigint   NOT NULL DEFAULT 0,
    expires_at  timestamptz NOT NULL DEFAULT '-infinity',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, first_slice),
    CHECK (0 <= first_slice AND first_slice <= last_slice AND last_slice <= 1023)
) WITH (fillfactor = 50);

-- Streams set aside: everything of the stream from sequence on waits here, and
-- is read again from the log when its turn comes.
--   retrying: tried again by itself at next_attempt_at
--   released: an operator let it go on; tried at next_attempt_at
--   parked:   waits for an operator
-- started and finished count the attempts since the stream last made progress;
-- an attempt that killed the process is started and never finished.
CREATE TABLE consumer_parked (
    consumer        text COLLATE "C" NOT NULL REFERENCES consumers ON DELETE CASCADE,
    stream          text COLLATE "C" NOT NULL,
    slice           smallint NOT NULL,
    org             text COLLATE "C" NOT NULL,
    epoch           integer  NOT NULL,
    position        bigint   NOT NULL,
    sequence        bigint   NOT NULL,
    type            text COLLATE "C" NOT NULL,
    attempts        integer  NOT NULL,
    error_class     text     NOT NULL,
    state           text     NOT NULL CHECK (state IN ('retrying', 'released', 'parked')),
    next_attempt_at timestamptz NOT NULL,
    started         integer  NOT NULL DEFAULT 0,
    finished        integer  NOT NULL DEFAULT 0,
    since           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, stream)
);
CREATE INDEX consumer_parked_due ON consumer_parked (consumer, next_attempt_at) WHERE state <> 'parked';

-- Started and unfinished attempts on events that may have killed a process:
-- written only after a disorderly end, for what was then being handled.
CREATE TABLE consumer_attempts (
    consumer text COLLATE "C" NOT NULL REFERENCES consumers ON DELETE CASCADE,
    position bigint   NOT NULL,
    slice    smallint NOT NULL,
    started  integer  NOT NULL,
    PRIMARY KEY (consumer, position)
);

-- Effects on the outside that must not happen twice, such as a mail.
--   started:   about to happen, or happened without our learning of it
--   finished:  happened
--   uncertain: a process or a connection ended between the two
CREATE TABLE consumer_effects (
    consumer    text COLLATE "C" NOT NULL,
    effect      uuid NOT NULL,
    state       text NOT NULL CHECK (state IN ('started', 'finished', 'uncertain')),
    stream      text COLLATE "C" NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (consumer, effect)
);
CREATE INDEX consumer_effects_open ON consumer_effects (consumer, started_at) WHERE state <> 'finished';

-- Webhook endpoints. Each is a consumer of its own, named webhook-<id>. The
-- signing secrets are encrypted with the key-encryption key named beside them.
CREATE TABLE webhooks (
    id             text COLLATE "C" PRIMARY KEY,
    org            text COLLATE "C" NOT NULL, -- '' for all organisations
    url            text    NOT NULL,
    types          text[]  NOT NULL,          -- empty for all
    open_sealed    boolean NOT NULL,
    enabled        boolean NOT NULL DEFAULT true,
    secret_kek     text    NOT NULL,
    secret         bytea   NOT NULL,
    previous_kek   text,
    previous       bytea,
    previous_until timestamptz,
    version        bigint  NOT NULL DEFAULT 1, -- grows with each change
    created_at     timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT, UPDATE, DELETE ON
    webhooks,
    consumers, consumer_members, consumer_ranges, consumer_parked, consumer_attempts, consumer_effects
    TO muster_service;
