-- The wrapped data keys of streams; NULL when erased.
-- $1 text[] streams
SELECT stream, kek, data_key FROM streams WHERE stream = ANY ($1::text[])
