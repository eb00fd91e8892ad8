-- The fence: moves the checkpoints of ranges, and with them the leases, if
-- nobody else has done so and no lease has changed hands. Fewer rows than
-- ranges: nothing of this transaction may stay. A retired version's tokens are
-- nobody's. Whoever locks several ranges does so in the order of their slices.
-- $1 text name  $2 int4 version  arrays, one element a range: $3 int2 first
-- slice  $4 int8 token  $5 int8 from  $6 int8 to;  $7 int4 epoch
-- $8 float8 seconds of lease
WITH locked AS (
    SELECT first_slice
    FROM projection_ranges
    WHERE name = $1 AND version = $2 AND first_slice = ANY ($3::int2[])
    ORDER BY first_slice
    FOR UPDATE
)
UPDATE projection_ranges r
SET position = h.reached, lease_until = now() + make_interval(secs => $8), updated_at = now()
FROM unnest($3::int2[], $4::int8[], $5::int8[], $6::int8[]) AS h (first_slice, token, position, reached)
JOIN locked USING (first_slice)
WHERE r.name = $1 AND r.version = $2 AND r.first_slice = h.first_slice
  AND r.token = h.token AND r.position = h.position AND r.epoch = $7
