-- One stream's events in order of sequence.
-- $1 int2 slice  $2 text stream  $3 int8 after this sequence
SELECT b.base + e.idx, e.stream, e.sequence, e.slice, e.id, e.type, e.schema, e.org, e.actor, e.at, e.data, e.sealed
FROM events e
JOIN batches b ON b.id = e.batch
WHERE e.slice = $1::int2 AND e.stream = $2::text AND e.sequence > $3::int8
ORDER BY e.sequence
