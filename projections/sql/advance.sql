-- The fence: moves the checkpoints of ranges, and with them the leases, if
-- nobody else has done so and no lease has changed hands. Fewer rows than
-- ranges: nothing of this transaction may stay. A retired version's tokens are
-- nobody's. The first range is locked before the others, which are locked in no
-- particular order: who wants all of a version, and takes them in order of
-- slice, so waits at the first of these without holding any of them.
-- $1 text name  $2 int4 version  arrays, one element a range, by slice: $3 int2
-- first slice  $4 int8 token  $5 int8 from  $6 int8 to;  $7 int4 epoch
-- $8 float8 seconds of lease
WITH gate AS (
    SELECT FROM projection_ranges WHERE name = $1 AND version = $2 AND first_slice = ($3::int2[])[1] FOR UPDATE
)
UPDATE projection_ranges
SET position = ($6::int8[])[array_position($3::int2[], first_slice)],
    lease_until = now() + make_interval(secs => $8), updated_at = now()
WHERE name = $1 AND version = $2 AND first_slice = ANY ($3::int2[]) AND EXISTS (SELECT FROM gate)
  AND token = ($4::int8[])[array_position($3::int2[], first_slice)]
  AND position = ($5::int8[])[array_position($3::int2[], first_slice)]
  AND epoch = $7
