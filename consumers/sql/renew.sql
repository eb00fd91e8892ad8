-- Keeps leases; those that come back are still held.
-- $1 text consumer  $2 text instance  $3 float8 seconds  $4 int2[] first slices
-- $5 int8[] their tokens
UPDATE consumer_ranges r
SET expires_at = now() + make_interval(secs => $3::float8)
FROM unnest($4::int2[], $5::int8[]) AS held (first_slice, token)
WHERE r.consumer = $1 AND r.owner = $2 AND r.first_slice = held.first_slice AND r.token = held.token
RETURNING r.first_slice
