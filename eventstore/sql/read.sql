-- Events of a window of positions, in order. Positions are dense, so a window
-- of n positions holds n events, and the batches that it touches are one short
-- range: from the last one whose base is not past the window's first position.
-- The form leaves the planner one way only, whatever its statistics say: that
-- range first, then each batch's events by their key. (OFFSET 0 keeps the inner
-- query whole, slice + 0 keeps the index on slices out of it.)
-- $1 int8  after this position, to $2 int8 inclusive
-- $3 text[]  only these types; NULL for all
-- $4 text    only this organisation; NULL for all
-- $5, $6 int2  only slices from, to
-- $7 text[]  without these types; NULL for none
WITH page AS MATERIALIZED (
    SELECT base, id
    FROM batches
    WHERE base >= coalesce((SELECT base FROM batches WHERE base <= $1::int8 + 1 ORDER BY base DESC LIMIT 1), 0)
      AND base <= $2::int8
    ORDER BY base
)
SELECT b.base + e.idx, e.stream, e.sequence, e.slice, e.id, e.type, e.schema, e.org, e.actor, e.at, e.data, e.sealed
FROM page b
CROSS JOIN LATERAL (
    SELECT * FROM events
    WHERE batch = b.id
      AND idx > $1::int8 - b.base
      AND idx <= $2::int8 - b.base
      AND ($3::text[] IS NULL OR type = ANY ($3::text[]))
      AND ($7::text[] IS NULL OR type <> ALL ($7::text[]))
      AND ($4::text IS NULL OR org = $4::text)
      AND slice + 0 BETWEEN $5::int2 AND $6::int2
    OFFSET 0
) e
ORDER BY b.base, e.idx
