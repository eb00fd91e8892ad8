-- Import jobs: what was asked for, how far each has come, and what became of
-- each line. No Down section: the product's tables only go forward.

-- +goose Up

-- One row for each job. lines is how many lines have their answers in
-- import_chunks; the counts and the forecast are of exactly those lines, since
-- they change in the transaction that adds the answers.
--
--   running:  lines are still to come, or the call broke off and can be resumed
--   finished: the last line has its answer
--   undone:   the users that it created have been removed again
CREATE TABLE import_jobs (
    id          text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$'),
    org         text COLLATE "C" NOT NULL,
    actor       text COLLATE "C" NOT NULL,
    remote      text        NOT NULL,
    dry_run     boolean     NOT NULL,
    on_conflict text        NOT NULL CHECK (on_conflict IN ('fail', 'skip', 'update')),
    notify      text        NOT NULL CHECK (notify IN ('none', 'init')),
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'finished', 'undone')),
    lines       bigint      NOT NULL DEFAULT 0,
    created     bigint      NOT NULL DEFAULT 0,
    updated     bigint      NOT NULL DEFAULT 0,
    skipped     bigint      NOT NULL DEFAULT 0,
    failed      bigint      NOT NULL DEFAULT 0,
    removed     bigint      NOT NULL DEFAULT 0,
    position    bigint      NOT NULL DEFAULT 0,
    seconds     double precision NOT NULL DEFAULT 0,
    forecast    jsonb       NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    finished_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX import_jobs_recent ON import_jobs (org, started_at DESC);

-- The answers to a stretch of lines: the lines that were sent back, compressed
-- with zstd. They hold ids, warnings and errors, and nothing that the caller
-- sent. digest is a keyed hash of the lines themselves, by which a resumed call
-- is known to send the same ones.
CREATE TABLE import_chunks (
    job        text COLLATE "C" NOT NULL REFERENCES import_jobs ON DELETE CASCADE,
    first_line bigint  NOT NULL,
    last_line  bigint  NOT NULL CHECK (last_line >= first_line),
    created    integer NOT NULL,
    failed     integer NOT NULL,
    digest     bytea   NOT NULL,
    answers    bytea   NOT NULL,
    PRIMARY KEY (job, first_line)
);
ALTER TABLE import_chunks ALTER answers SET STORAGE EXTERNAL;

GRANT SELECT, INSERT, UPDATE ON import_jobs TO muster_service;
GRANT SELECT, INSERT, DELETE ON import_chunks TO muster_service;

-- A dry run keeps what its lines would take in a temporary table.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO muster_service', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'dry runs of imports need the right to make temporary tables: GRANT TEMPORARY ON DATABASE to muster_service';
END
$$;
-- +goose StatementEnd
