-- Takes what is free and leaves alone what is not. Of two flushes that want the
-- same claim the second waits here for the first to end; both go through their
-- claims in order, so they cannot wait for each other.
-- $1 bytea[]  hashes, ascending
-- $2 text[]   the stream that wants each
INSERT INTO claims (hash, stream)
SELECT hash, stream FROM unnest($1::bytea[], $2::text[]) AS wanted (hash, stream)
ON CONFLICT DO NOTHING
RETURNING hash
