-- Gives the batch its positions. A batch that was given up violates NOT NULL
-- here, which undoes its transaction.
-- $1 int4  number of events
-- $2 int8  batch
INSERT INTO batches (base, n, id)
SELECT coalesce((SELECT base + n FROM batches ORDER BY base DESC LIMIT 1), 1),
       CASE WHEN EXISTS (SELECT FROM abandoned_batches WHERE id = $2::int8) THEN NULL ELSE $1::int4 END,
       $2::int8
RETURNING base
