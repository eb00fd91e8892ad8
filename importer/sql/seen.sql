-- Which of these a dry run's lines have taken.
-- $1 bytea[]  hashes
SELECT hash FROM import_seen WHERE hash = ANY ($1::bytea[])
