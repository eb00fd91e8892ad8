-- Takes the lease of a candidate when it is free or has run out, and with it
-- all its ranges: new tokens shut out whatever the old ones left behind.
-- $1 text name  $2 int4 version  $3 text owner  $4 float8 seconds of lease
WITH candidate AS (
    UPDATE projections
    SET owner = $3, token = token + 1, lease_until = now() + make_interval(secs => $4), problem = ''
    WHERE name = $1 AND version = $2 AND state = 'building' AND (lease_until < now() OR owner = $3)
    RETURNING token, bulk_to, phase
)
UPDATE projection_ranges r
SET owner = $3, token = r.token + 1
FROM candidate c
WHERE r.name = $1 AND r.version = $2
RETURNING c.token, c.bulk_to, c.phase, r.first_slice, r.last_slice, r.token, r.epoch, r.position
