-- unnest in the select list hands over row by row; in FROM each array would be
-- stored anew first, which took a tenth of a flush.
-- $1 int8 batch; then one array a column, all of the same length: $2 idx, $3 slice, $4 stream,
-- $5 sequence, $6 id, $7 type, $8 schema, $9 org, $10 actor, $11 at, $12 data, $13 sealed
INSERT INTO events (batch, idx, slice, stream, sequence, id, type, schema, org, actor, at, data, sealed)
SELECT $1::int8,
       unnest($2::int4[]), unnest($3::int2[]), unnest($4::text[]), unnest($5::int8[]), unnest($6::uuid[]), unnest($7::text[]),
       unnest($8::int2[]), unnest($9::text[]), unnest($10::text[]), unnest($11::timestamptz[]), unnest($12::bytea[]), unnest($13::bytea[])
