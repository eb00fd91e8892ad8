-- Gives claims that this transaction took for a request that then failed to
-- the next request in line.
-- $1 bytea[]  hashes
-- $2 text[]   the stream that gets each
UPDATE claims c SET stream = v.stream
FROM unnest($1::bytea[], $2::text[]) AS v (hash, stream)
WHERE c.hash = v.hash
