-- Changes a session that is as the caller saw it: $2 is the sequence then.
-- Otherwise nothing is changed.
UPDATE sessions
SET token_hash = $3, user_id = $4, user_at = $5, password_at = $6, totp_at = $7, passkey_at = $8, verified = $9, challenge = $10,
    changed_at = $11, expires_at = $12, sequence = sequence + 1
WHERE id = $1 AND sequence = $2
