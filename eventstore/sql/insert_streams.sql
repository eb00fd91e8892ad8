-- Begins new streams. One that exists already fails the whole flush with a
-- unique violation; the flush is then repeated with every stream looked up.
-- $1 text[] stream  $2 int2[] slice  $3 text[] org  $4 int8[] sequence  $5 text[] kek  $6 bytea[] data key
INSERT INTO streams (stream, slice, org, sequence, kek, data_key)
SELECT unnest($1::text[]), unnest($2::int2[]), unnest($3::text[]), unnest($4::int8[]), unnest($5::text[]), unnest($6::bytea[])
