-- Read models: which versions of each exist, how far each has come, and what
-- it could not take. Their own tables are made by the service, in a schema of
-- their own, when a version is first built. No Down section: the product's
-- tables only go forward.

-- +goose Up

-- One row for each version of each read model. Its checkpoint and its lease
-- are in one row, so that the write of the checkpoint can require the token of
-- the lease: the token grows with each change of hands, and whoever writes
-- with an older one changes nothing.
--
--   building: a candidate; bulk_to is the fixed position of its first phase,
--             position what it has come to after that
--   live:     what readers get
--   retired:  was live; kept at its position for a rollback
CREATE TABLE projections (
    name        text COLLATE "C" NOT NULL,
    version     integer  NOT NULL CHECK (version > 0),
    definition  integer  NOT NULL,
    state       text     NOT NULL CHECK (state IN ('building', 'live', 'retired')),
    phase       text     NOT NULL DEFAULT '',
    epoch       integer  NOT NULL,
    position    bigint   NOT NULL CHECK (position >= 0),
    bulk_to     bigint   NOT NULL DEFAULT 0,
    owner       text     NOT NULL DEFAULT '',
    token       bigint   NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    problem     text     NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz,
    PRIMARY KEY (name, version)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projections_live ON projections (name) WHERE state = 'live';
CREATE UNIQUE INDEX projections_building ON projections (name) WHERE state = 'building';

-- The parts of a candidate's first phase that are done, each written in the
-- transaction that wrote its rows.
CREATE TABLE projection_chunks (
    name    text COLLATE "C" NOT NULL,
    version integer  NOT NULL,
    chunk   smallint NOT NULL,
    events  bigint   NOT NULL,
    rows    bigint   NOT NULL,
    done_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version, chunk),
    FOREIGN KEY (name, version) REFERENCES projections ON DELETE CASCADE
);

-- Streams whose rows stand still because an event of theirs failed: the rows
-- are as they were before that event. retry_at is when the service tries again
-- by itself; NULL means that it waits for an operator. The error is a class,
-- never a value.
CREATE TABLE projection_stopped (
    name     text COLLATE "C" NOT NULL,
    version  integer NOT NULL,
    stream   text COLLATE "C" NOT NULL,
    sequence bigint  NOT NULL,
    position bigint  NOT NULL,
    error    text    NOT NULL,
    attempts integer NOT NULL,
    retry_at timestamptz,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version, stream),
    FOREIGN KEY (name, version) REFERENCES projections ON DELETE CASCADE
);

GRANT SELECT, INSERT, UPDATE, DELETE ON projections, projection_chunks, projection_stopped TO muster_service;

CREATE SCHEMA read_models;
GRANT USAGE, CREATE ON SCHEMA read_models TO muster_service;

-- Lets read models have indexes for searches in the middle of a text. They do
-- without where the extension is not to be had.
-- +goose StatementBegin
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'without pg_trgm: searches in the middle of a text scan the table';
END
$$;
-- +goose StatementEnd
