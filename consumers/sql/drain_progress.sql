-- Says how far streams have been drained. Progress clears the attempts: what
-- was tried is behind.
-- $1 text consumer  $2 text instance  $3 int2[] first slices  $4 int8[] tokens
-- $5 text[] streams  $6 int8[] first sequences not handled  $7 int8[] positions
UPDATE consumer_parked p
SET sequence = n.sequence, position = n.position, attempts = 0, started = 1, finished = 0
FROM unnest($5::text[], $6::int8[], $7::int8[]) AS n (stream, sequence, position), consumer_ranges r,
     unnest($3::int2[], $4::int8[]) AS held (first_slice, token)
WHERE p.consumer = $1 AND p.stream = n.stream AND p.sequence < n.sequence
  AND r.consumer = $1 AND r.owner = $2 AND p.slice BETWEEN r.first_slice AND r.last_slice
  AND held.first_slice = r.first_slice AND held.token = r.token
