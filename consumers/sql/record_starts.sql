-- Records that attempts on single events start, if the leases are still held. It
-- need not wait for the disk: it has to outlive this process, not the server.
-- $1 text consumer  $2 text instance  $3 int2[] first slices of the ranges
-- $4 int8[] their tokens  $5 int8[] positions  $6 int2[] slices
INSERT INTO consumer_attempts (consumer, position, slice, started)
SELECT $1, e.position, e.slice, 1
FROM (SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) AS lazily
CROSS JOIN unnest($3::int2[], $4::int8[], $5::int8[], $6::int2[]) AS e (first_slice, token, position, slice)
JOIN consumer_ranges r ON r.consumer = $1 AND r.owner = $2 AND r.first_slice = e.first_slice AND r.token = e.token
ON CONFLICT (consumer, position) DO UPDATE SET started = consumer_attempts.started + 1
