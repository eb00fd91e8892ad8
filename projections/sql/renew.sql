-- $1 text name  $2 int4 version  $3 int8 token  $4 float8 seconds of lease
UPDATE projections SET lease_until = now() + make_interval(secs => $4)
WHERE name = $1 AND version = $2 AND token = $3 AND state <> 'retired'
