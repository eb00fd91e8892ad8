-- Personal access tokens. Organisations need no table here: they live in the
-- log, in streams of their own. There is no way down: this is an append-only
-- product.

-- +goose Up

CREATE TABLE tokens (
    id           text        PRIMARY KEY,
    -- SHA-256 of the secret, which has 256 random bits: no salt, no stretching
    -- needed, and the look-up is by hash.
    hash         bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    name         text        NOT NULL,
    org          text        NOT NULL,
    role         text        NOT NULL,
    created_at   timestamptz NOT NULL,
    created_by   text        NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- What a token may do never changes; only its end and its use are recorded.
GRANT SELECT, INSERT, UPDATE (revoked_at, last_used_at) ON tokens TO muster_service;
