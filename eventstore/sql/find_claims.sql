-- Who owns these claims.
-- $1 bytea[]  hashes
SELECT hash, stream FROM claims WHERE hash = ANY ($1::bytea[])
