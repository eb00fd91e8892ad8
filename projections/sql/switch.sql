-- Makes a candidate live, if its lease is still held and none of its ranges is
-- behind one of the live version's that it shares slices with, but for those
-- that hold rows of a lost history. The caller has locked the live version's
-- row and its ranges.
-- $1 text name  $2 int4 candidate  $3 int8 its token  $4 int4 live version
-- $5 int2[] first slices of its ranges that are lost
UPDATE projections
SET state = 'live', phase = '', owner = '', lease_until = '-infinity', switched_at = now()
WHERE name = $1 AND version = $2 AND token = $3 AND state = 'building'
  AND NOT EXISTS (
      SELECT
      FROM projection_ranges c
      JOIN projection_ranges l ON l.name = c.name AND l.first_slice <= c.last_slice AND c.first_slice <= l.last_slice
      WHERE c.name = $1 AND c.version = $2 AND l.version = $4 AND l.first_slice <> ALL ($5::int2[]) AND c.position < l.position)
