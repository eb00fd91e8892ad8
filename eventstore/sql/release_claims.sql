-- Gives claims up, in order; those of other streams are left alone.
-- $1 bytea[]  hashes, ascending
-- $2 text[]   the stream that gives each up
DELETE FROM claims c
USING (
    SELECT t.hash FROM claims t
    JOIN unnest($1::bytea[], $2::text[]) AS v (hash, stream) ON t.hash = v.hash AND t.stream = v.stream
    ORDER BY t.hash
    FOR UPDATE OF t
) locked
WHERE c.hash = locked.hash
