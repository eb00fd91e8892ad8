-- Which streams own these claims, by the claim's place in the list, from 1.
-- $1 bytea[]  hashes
SELECT wanted.ordinality, c.stream, s.org, s.sequence
FROM unnest($1::bytea[]) WITH ORDINALITY AS wanted (hash, ordinality)
JOIN claims c ON c.hash = wanted.hash
JOIN streams s ON s.stream = c.stream
