-- Keeps a new session, unless its ceremony began one before. Each one takes a
-- few with it that expired an hour ago, so that nobody has to clean up: no
-- ceremony is good for that long.
--
-- $1 id, $2 org, $3 creator, $4 token hash, $5 user, $6 … $9 when user,
-- password, TOTP code and passkey were checked, $10 whether the passkey verified
-- the person, $11 challenge, $12 now, $13 when it expires, $14 the ceremony.
WITH gone AS (
    DELETE FROM sessions WHERE id IN (
        SELECT id FROM sessions WHERE expires_at < $12::timestamptz - interval '1 hour'
        ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO sessions (id, org, creator, token_hash, user_id, user_at, password_at, totp_at, passkey_at, verified, challenge,
                      created_at, changed_at, expires_at, ceremony)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14)
ON CONFLICT (ceremony) DO NOTHING
