-- The log: events, the batches that give them positions, the streams that
-- they belong to, and the claims that streams hold.

-- +goose Up

-- Roles belong to the whole cluster: another database of it may have made this
-- one already, perhaps at this very moment.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_service') THEN
        CREATE ROLE muster_service NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role muster_service is missing and % may not create it', current_user
            USING HINT = format('As an administrator: CREATE ROLE muster_service; GRANT muster_service TO %I;', current_user);
END
$$;
-- +goose StatementEnd

-- Whoever migrates must be able to act as the service. From PostgreSQL 16 on
-- being a member is not enough for that: who creates a role becomes one, without
-- the right to act as it.
-- +goose StatementBegin
DO $$
DECLARE
    right_to_act text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT pg_has_role(current_user, 'muster_service', right_to_act) THEN
        EXECUTE format('GRANT muster_service TO %I', current_user);
    END IF;
END
$$;
-- +goose StatementEnd

-- Which log this is. A restored copy keeps the id and gets another epoch.
CREATE TABLE log (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    id         uuid        NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO log DEFAULT VALUES;

-- The histories of this log. A new one begins when the cluster's system
-- identifier or timeline is not the one of the latest row: after a failover or
-- a restore. Positions from first_position on belong to it.
CREATE TABLE epochs (
    epoch             integer     PRIMARY KEY CHECK (epoch > 0),
    system_identifier bigint      NOT NULL,
    timeline          bigint      NOT NULL,
    first_position    bigint      NOT NULL CHECK (first_position > 0),
    noticed_at        timestamptz NOT NULL DEFAULT now()
);

-- One row for each aggregate: its head, and its subject's data key, wrapped by
-- the key-encryption key named in kek. No key (NULL) means erased.
CREATE TABLE streams (
    stream   text COLLATE "C" PRIMARY KEY,
    slice    smallint NOT NULL CHECK (slice BETWEEN 0 AND 1023),
    org      text     NOT NULL,
    sequence bigint   NOT NULL CHECK (sequence > 0),
    kek      text,
    data_key bytea,
    CHECK ((kek IS NULL) = (data_key IS NULL))
);

-- A batch is what one flush of the committer commits. Its row is inserted last,
-- under the log's lock, so bases follow each other without a hole:
-- position = base + idx.
CREATE TABLE batches (
    base bigint PRIMARY KEY CHECK (base > 0),
    n    integer     NOT NULL CHECK (n > 0),
    id   bigint      NOT NULL UNIQUE,
    at   timestamptz NOT NULL DEFAULT now()
);
-- A committer takes a block of a thousand ids at a time.
CREATE SEQUENCE batch_ids AS bigint INCREMENT BY 1000;

-- Batches whose committer lost its connection and gave them up. Such a batch
-- can never be bound afterwards: the statement that binds looks here.
CREATE TABLE abandoned_batches (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE events (
    batch    bigint   NOT NULL,
    idx      integer  NOT NULL CHECK (idx >= 0),
    slice    smallint NOT NULL,
    stream   text COLLATE "C" NOT NULL,
    sequence bigint   NOT NULL CHECK (sequence > 0),
    id       uuid     NOT NULL,
    type     text COLLATE "C" NOT NULL,
    schema   smallint NOT NULL,
    org      text COLLATE "C" NOT NULL,
    actor    text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,
    data     bytea,
    sealed   bytea,
    PRIMARY KEY (batch, idx)
);
-- One index serves two ways of reading: one stream in order (the slice follows
-- from the stream), and all streams of a range of slices, for rebuilds.
CREATE UNIQUE INDEX events_stream ON events (slice, stream, sequence);

-- What at most one stream may own: HMAC-SHA-256 of kind, scope and value.
CREATE TABLE claims (
    hash   bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    stream text COLLATE "C" NOT NULL
);

-- Which append a caller's idempotency key led to. Both hashes are keyed.
CREATE TABLE idempotency (
    key            bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    request        bytea NOT NULL CHECK (octet_length(request) = 32),
    stream         text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    batch          bigint NOT NULL,
    last_idx       integer NOT NULL,
    at             timestamptz NOT NULL
);

-- Events are never changed or deleted: the service's role is not granted it,
-- and not even the tables' owner gets past this trigger unawares.
-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: the log only grows', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER events_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER batches_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON batches
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER epochs_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON epochs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The streams and claims tables change row by row as users come and change;
-- the default of 20 % dead rows lets them bloat for too long.
ALTER TABLE streams SET (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE claims  SET (autovacuum_vacuum_scale_factor = 0.05);

GRANT USAGE ON SCHEMA public TO muster_service;
GRANT SELECT                         ON log                TO muster_service;
GRANT SELECT, INSERT                 ON epochs             TO muster_service;
GRANT SELECT, INSERT, UPDATE         ON streams            TO muster_service;
GRANT SELECT, INSERT                 ON batches            TO muster_service;
GRANT SELECT, INSERT                 ON abandoned_batches  TO muster_service;
GRANT SELECT, INSERT                 ON events             TO muster_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON claims             TO muster_service;
GRANT SELECT, INSERT                 ON idempotency        TO muster_service;
GRANT USAGE                          ON SEQUENCE batch_ids TO muster_service;
