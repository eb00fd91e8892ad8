-- Takes leases that nobody holds, or that have run out, or that this instance
-- has forgotten about. The token grows, so the last holder can write no more.
-- $1 text consumer  $2 text instance  $3 float8 seconds  $4 int4 at most so many
-- $5 int2[] first slices to leave alone
UPDATE consumer_ranges r
SET owner = $2, token = r.token + 1, expires_at = now() + make_interval(secs => $3::float8)
FROM (
    SELECT first_slice FROM consumer_ranges
    WHERE consumer = $1 AND NOT first_slice = ANY ($5::int2[])
      AND (owner IS NULL OR owner = $2 OR expires_at < now())
    ORDER BY first_slice
    LIMIT $4::int4
    FOR UPDATE SKIP LOCKED) free
WHERE r.consumer = $1 AND r.first_slice = free.first_slice
RETURNING r.first_slice, r.last_slice, r.token, r.epoch, r.position, r.dispatched
