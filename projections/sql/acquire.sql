-- Takes the lease of a version when it is free, has run out, or is already the
-- caller's: a new token shuts out whatever the old one left behind.
-- $1 text name  $2 int4 version  $3 text owner  $4 float8 seconds of lease
UPDATE projections
SET owner = $3, token = token + 1, lease_until = now() + make_interval(secs => $4), problem = ''
WHERE name = $1 AND version = $2 AND (lease_until < now() OR owner = $3)
RETURNING token, epoch, position, state, bulk_to, phase
