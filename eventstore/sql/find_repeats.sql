-- Which idempotency keys have been used, and what they led to.
-- $1 bytea[]  keyed hashes of the keys
SELECT i.key, i.request, i.stream, i.first_sequence, i.last_sequence, b.base + i.last_idx AS position, i.at
FROM idempotency i
JOIN batches b ON b.id = i.batch
WHERE i.key = ANY ($1::bytea[])
