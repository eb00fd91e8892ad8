-- Locks the heads of existing streams, in order, and reads them.
-- $1 text[]  the streams
SELECT stream, sequence, data_key IS NULL AS erased
FROM streams
WHERE stream = ANY ($1::text[])
ORDER BY stream
FOR UPDATE
