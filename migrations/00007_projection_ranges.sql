-- Read models are shared by slices: a version's checkpoint and the lease on
-- the work of it are kept for each of its ranges of slices, no longer for the
-- whole. No Down section: the product's tables only go forward.

-- +goose Up

-- One row for each range of slices of each version. Checkpoint and lease are in
-- one row, so that the write of the checkpoint can require the token of the
-- lease: the token grows with each change of hands, and whoever writes with an
-- older one changes nothing. The ranges of a version do not overlap, and cover
-- all slices.
CREATE TABLE projection_ranges (
    name        text COLLATE "C" NOT NULL,
    version     integer  NOT NULL,
    first_slice smallint NOT NULL CHECK (first_slice >= 0),
    last_slice  smallint NOT NULL CHECK (last_slice BETWEEN first_slice AND 1023),
    epoch       integer  NOT NULL,
    position    bigint   NOT NULL CHECK (position >= 0),
    owner       text     NOT NULL DEFAULT '',
    token       bigint   NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    problem     text     NOT NULL DEFAULT '',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version, first_slice),
    FOREIGN KEY (name, version) REFERENCES projections ON DELETE CASCADE
) WITH (fillfactor = 50);

-- What there is goes on where it was, in as many ranges as a version that is
-- made anew has.
INSERT INTO projection_ranges (name, version, first_slice, last_slice, epoch, position, updated_at)
SELECT p.name, p.version, s, s + n.size - 1, p.epoch, p.position, p.updated_at
FROM projections p
CROSS JOIN LATERAL (SELECT CASE WHEN p.name IN ('users', 'idp_links') THEN 128 ELSE 1024 END AS size) n
CROSS JOIN LATERAL generate_series(0, 1023, n.size) s;

-- What is left in a version's own row: a candidate's lease, which covers the
-- whole of it. An instance of an older program finds its checkpoint gone, and
-- stops, instead of applying beside its successors what they have applied.
ALTER TABLE projections DROP COLUMN epoch, DROP COLUMN position;
UPDATE projections SET owner = '', token = token + 1, lease_until = '-infinity';

-- The instances that can work on a read model of a definition, and until when
-- each is believed alive. The ranges are divided among them in order of their
-- coming.
CREATE TABLE projection_members (
    name       text COLLATE "C" NOT NULL,
    definition integer NOT NULL,
    member     text COLLATE "C" NOT NULL,
    joined_at  timestamptz NOT NULL DEFAULT now(),
    seen_until timestamptz NOT NULL,
    PRIMARY KEY (name, definition, member)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON projection_ranges, projection_members TO muster_service;
