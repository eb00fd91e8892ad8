-- Moves the heads of streams that lock_streams.sql has locked; erasing destroys
-- the data key.
-- $1 text[] stream  $2 int8[] sequence  $3 bool[] erase
UPDATE streams s
SET sequence = v.sequence,
    kek      = CASE WHEN v.erase THEN NULL ELSE s.kek END,
    data_key = CASE WHEN v.erase THEN NULL ELSE s.data_key END
FROM unnest($1::text[], $2::int8[], $3::bool[]) AS v (stream, sequence, erase)
WHERE s.stream = v.stream
