-- Events of a window of positions, in order. Positions are dense, so a window
-- of n positions holds n events, and the batches that it touches are one short
-- range: from the last one whose base is not past the window's first position.
-- $1 int8  after this position, to $2 int8 inclusive
-- $3 text[]  only these types; NULL for all
-- $4 text    only this organisation; NULL for all
-- $5, $6 int2  only slices from, to
SELECT b.base + e.idx, e.stream, e.sequence, e.slice, e.id, e.type, e.schema, e.org, e.actor, e.at, e.data, e.sealed
FROM batches b
JOIN events e ON e.batch = b.id
WHERE b.base >= coalesce((SELECT base FROM batches WHERE base <= $1::int8 + 1 ORDER BY base DESC LIMIT 1), 0)
  AND b.base <= $2::int8
  AND b.base + e.idx > $1::int8
  AND b.base + e.idx <= $2::int8
  AND ($3::text[] IS NULL OR e.type = ANY ($3::text[]))
  AND ($4::text IS NULL OR e.org = $4::text)
  AND e.slice BETWEEN $5::int2 AND $6::int2
ORDER BY b.base, e.idx
