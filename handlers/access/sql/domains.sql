-- Every event about a domain of an organisation, in order of each stream: the
-- organisations' streams are one range of the bytewise order, and each stream's
-- events are found by their key.
-- $1 text    the streams from here, to $2 text exclusive
-- $3 text[]  the types
SELECT e.stream, e.type, e.schema, e.data
FROM streams s
JOIN events e ON e.slice = s.slice AND e.stream = s.stream
WHERE s.stream >= $1::text AND s.stream < $2::text
  AND e.type = ANY ($3::text[])
ORDER BY e.stream, e.sequence
