-- Sets a stream aside, or says how another try of it went, if the lease is
-- still held. The lease's row is locked so that it can't change hands between.
-- $1 text consumer  $2 text instance  $3 int2 first slice  $4 int8 token
-- $5 text stream  $6 int2 slice  $7 text org  $8 int4 epoch  $9 int8 position
-- $10 int8 sequence  $11 text type  $12 int4 attempts  $13 text error class
-- $14 text state  $15 float8 seconds to the next attempt
WITH lease AS (
    SELECT FROM consumer_ranges
    WHERE consumer = $1 AND owner = $2 AND first_slice = $3 AND token = $4
    FOR SHARE)
INSERT INTO consumer_parked (consumer, stream, slice, org, epoch, position, sequence, type, attempts, error_class, state, next_attempt_at)
SELECT $1, $5, $6, $7, $8::int4, $9::int8, $10::int8, $11, $12::int4, $13, $14, now() + make_interval(secs => $15::float8) FROM lease
ON CONFLICT (consumer, stream) DO UPDATE
SET epoch = excluded.epoch, position = excluded.position, sequence = excluded.sequence, type = excluded.type,
    attempts = excluded.attempts, error_class = excluded.error_class, state = excluded.state,
    next_attempt_at = excluded.next_attempt_at, finished = consumer_parked.started
