-- The fence: moves a version's checkpoint, and with it the lease, if nobody
-- else has done so and the lease has not changed hands. No row: nothing of
-- this transaction may stay.
-- $1 text name  $2 int4 version  $3 int8 from  $4 int8 to  $5 int8 token
-- $6 int4 epoch  $7 float8 seconds of lease
UPDATE projections
SET position = $4, lease_until = now() + make_interval(secs => $7), updated_at = now()
WHERE name = $1 AND version = $2 AND position = $3 AND token = $5 AND epoch = $6 AND state <> 'retired'
