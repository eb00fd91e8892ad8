-- Gives leases back in good order: nothing is being handled, so nothing can be
-- suspected of having killed this process.
-- $1 text consumer  $2 text instance  $3 int4 epoch
-- $4 int2[] first slices  $5 int8[] tokens  $6 int8[] positions
WITH released AS (
    UPDATE consumer_ranges r
    SET position = n.position, dispatched = n.position, epoch = $3, owner = NULL, expires_at = '-infinity', updated_at = now()
    FROM unnest($4::int2[], $5::int8[], $6::int8[]) AS n (first_slice, token, position)
    WHERE r.consumer = $1 AND r.owner = $2 AND r.first_slice = n.first_slice AND r.token = n.token
    RETURNING r.first_slice, r.last_slice)
UPDATE consumer_parked p SET finished = p.started
FROM released r
WHERE p.consumer = $1 AND p.slice BETWEEN r.first_slice AND r.last_slice AND p.finished <> p.started
