-- Takes streams whose turn it is, and records that an attempt on each starts.
-- $1 text consumer  $2 text instance  $3 int2[] first slices  $4 int8[] tokens
-- $5 text[] streams that are being drained already  $6 int4 at most so many
UPDATE consumer_parked p SET started = p.started + 1
FROM (
    SELECT p.stream FROM consumer_parked p
    JOIN consumer_ranges r ON r.consumer = p.consumer AND p.slice BETWEEN r.first_slice AND r.last_slice
    JOIN unnest($3::int2[], $4::int8[]) AS held (first_slice, token) ON held.first_slice = r.first_slice AND held.token = r.token
    WHERE p.consumer = $1 AND r.owner = $2 AND p.state <> 'parked' AND p.next_attempt_at <= now()
      AND NOT p.stream = ANY ($5::text[])
    ORDER BY p.next_attempt_at
    LIMIT $6::int4
    FOR UPDATE OF p) due
WHERE p.consumer = $1 AND p.stream = due.stream
RETURNING p.stream, p.sequence, p.position, p.attempts
