-- $1 int8 batch; then one array a column: $2 idx, $3 slice, $4 stream,
-- $5 sequence, $6 id, $7 type, $8 schema, $9 org, $10 actor, $11 at, $12 data, $13 sealed
INSERT INTO events (batch, idx, slice, stream, sequence, id, type, schema, org, actor, at, data, sealed)
SELECT $1::int8, e.*
FROM unnest($2::int4[], $3::int2[], $4::text[], $5::int8[], $6::uuid[], $7::text[], $8::int2[],
            $9::text[], $10::text[], $11::timestamptz[], $12::bytea[], $13::bytea[]) AS e
