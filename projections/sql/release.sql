-- Gives the leases of ranges up, those that are still held.
-- $1 text name  $2 int4 version  arrays: $3 int2 first slice  $4 int8 token
WITH locked AS (
    SELECT first_slice
    FROM projection_ranges
    WHERE name = $1 AND version = $2 AND first_slice = ANY ($3::int2[])
    ORDER BY first_slice
    FOR UPDATE
)
UPDATE projection_ranges r
SET owner = '', lease_until = '-infinity'
FROM unnest($3::int2[], $4::int8[]) AS h (first_slice, token)
JOIN locked USING (first_slice)
WHERE r.name = $1 AND r.version = $2 AND r.first_slice = h.first_slice AND r.token = h.token
