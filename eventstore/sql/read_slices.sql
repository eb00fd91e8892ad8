-- All streams of a range of slices, stream by stream, up to a fixed position.
-- $1, $2 int2 slices from, to  $3 int8 up to this position
-- $4 text[] the types whose sealed part is wanted; NULL for all
SELECT b.base + e.idx, e.stream, e.sequence, e.slice, e.id, e.type, e.schema, e.org, e.actor, e.at, e.data,
       CASE WHEN $4::text[] IS NULL OR e.type = ANY ($4::text[]) THEN e.sealed END
FROM events e
JOIN batches b ON b.id = e.batch
WHERE e.slice BETWEEN $1::int2 AND $2::int2 AND b.base + e.idx <= $3::int8
ORDER BY e.slice, e.stream, e.sequence
