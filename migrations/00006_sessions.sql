-- Sessions of people who are logged in, or on their way. Which checks passed
-- and failed is in the log, in the user's stream; a session only says which of
-- them were made for it. There is no way down.

-- +goose Up

CREATE TABLE sessions (
    id          text COLLATE "C" PRIMARY KEY,
    org         text COLLATE "C" NOT NULL,
    -- The token that made it.
    creator     text        NOT NULL,
    -- SHA-256 of the session's token, which has 256 random bits.
    token_hash  bytea       NOT NULL CHECK (octet_length(token_hash) = 32),
    -- Counts the changes: whoever changes a session says which one they saw.
    sequence    bigint      NOT NULL DEFAULT 1,
    -- "" until the user has been named.
    user_id     text COLLATE "C" NOT NULL DEFAULT '',
    user_at     timestamptz,
    password_at timestamptz,
    totp_at     timestamptz,
    passkey_at  timestamptz,
    -- Whether the passkey's authenticator has verified the person.
    verified    boolean     NOT NULL DEFAULT false,
    -- The passkey ceremony under way, sealed; it is taken out when it is
    -- answered, so that it is answered once.
    challenge   text,
    -- SHA-256 of the challenge of the passkey ceremony that began the session,
    -- when one did: it begins one.
    ceremony    bytea       UNIQUE,
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_user ON sessions (user_id) WHERE user_id <> '';
CREATE INDEX sessions_expired ON sessions (expires_at);

-- Guesses in the name of nobody, by day. They are counted so that they cost
-- what a guess at somebody's password costs: one commit.
CREATE TABLE signin_misses (
    day   date   PRIMARY KEY,
    count bigint NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO muster_service;
GRANT SELECT, INSERT, UPDATE ON signin_misses TO muster_service;
