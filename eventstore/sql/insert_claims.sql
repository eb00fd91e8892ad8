-- Takes claims that are expected to be free. One that is not fails the whole
-- flush with a unique violation; the flush is then repeated with take_claims.
-- $1 bytea[]  hashes, ascending
-- $2 text[]   the stream that wants each
INSERT INTO claims (hash, stream)
SELECT unnest($1::bytea[]), unnest($2::text[])
