-- Writes low-water marks, and how far events have been handed out, where the
-- lease is still held; those that come back were written. It need not wait for
-- the disk: an older checkpoint only means that more is handled again.
-- $1 text consumer  $2 text instance  $3 int4 epoch
-- $4 int2[] first slices  $5 int8[] tokens  $6 int8[] positions  $7 int8[] dispatched
UPDATE consumer_ranges r
SET position = n.position, dispatched = greatest(n.dispatched, n.position), epoch = $3, updated_at = now()
FROM unnest($4::int2[], $5::int8[], $6::int8[], $7::int8[]) AS n (first_slice, token, position, dispatched),
     (SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) AS lazily
WHERE r.consumer = $1 AND r.owner = $2 AND r.first_slice = n.first_slice AND r.token = n.token
RETURNING r.first_slice
