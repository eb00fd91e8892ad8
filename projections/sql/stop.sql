-- Stops a stream, or counts another failed attempt. It is tried again by
-- itself after 1, 4, 16 and 64 seconds; then it waits for an operator.
-- $1 text name  $2 int4 version  $3 text stream  $4 int8 sequence
-- $5 int8 position  $6 text error
INSERT INTO projection_stopped AS s (name, version, stream, sequence, position, error, attempts, retry_at)
VALUES ($1, $2, $3, $4, $5, $6, 1, now() + interval '1 second')
ON CONFLICT (name, version, stream) DO UPDATE
SET sequence = excluded.sequence, position = excluded.position, error = excluded.error, attempts = s.attempts + 1,
    retry_at = CASE WHEN s.attempts < 4 THEN now() + make_interval(secs => power(4, s.attempts)) END
