-- A page of a stream's events, newest or oldest first, without payloads.
-- $1 int2 slice  $2 text stream  $3 text organisation, NULL for any
-- $4 int8 sequence to go on from, inclusive; 0 for the end that the order
-- begins at  $5 bool oldest first  $6 int4 limit
SELECT e.sequence, b.base + e.idx, e.type, e.schema, e.org, e.actor, e.at
FROM events e
JOIN batches b ON b.id = e.batch
WHERE e.slice = $1::int2 AND e.stream = $2::text
  AND ($3::text IS NULL OR e.org = $3::text)
  AND ($4::int8 = 0 OR CASE WHEN $5::bool THEN e.sequence >= $4::int8 ELSE e.sequence <= $4::int8 END)
ORDER BY CASE WHEN $5::bool THEN e.sequence ELSE -e.sequence END
LIMIT $6::int4
