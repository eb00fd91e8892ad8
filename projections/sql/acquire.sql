-- Takes those of some ranges of the live version that are free, whose lease
-- has run out, or that are the caller's already: a new token shuts out whatever
-- the old one left behind. The version's row is kept as it is meanwhile, so
-- that none is taken of a version that is being retired; locks are taken in
-- the order that all take them in.
-- $1 text name  $2 int4 version  $3 int2[] first slices  $4 text owner
-- $5 float8 seconds of lease
WITH live AS (
    SELECT name, version FROM projections WHERE name = $1 AND version = $2 AND state = 'live' FOR SHARE
), free AS (
    SELECT r.first_slice
    FROM projection_ranges r
    JOIN live USING (name, version)
    WHERE r.first_slice = ANY ($3) AND (r.lease_until < now() OR r.owner = $4)
    ORDER BY r.first_slice
    FOR UPDATE OF r
)
UPDATE projection_ranges r
SET owner = $4, token = r.token + 1, lease_until = now() + make_interval(secs => $5), problem = ''
FROM free
WHERE r.name = $1 AND r.version = $2 AND r.first_slice = free.first_slice AND (r.lease_until < now() OR r.owner = $4)
RETURNING r.first_slice, r.last_slice, r.token, r.epoch, r.position
