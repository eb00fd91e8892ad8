-- $1 int8 batch; arrays: $2 key, $3 request, $4 stream, $5 first sequence, $6 last sequence, $7 last idx, $8 at
INSERT INTO idempotency (batch, key, request, stream, first_sequence, last_sequence, last_idx, at)
SELECT $1::int8, r.*
FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::int8[], $6::int8[], $7::int4[], $8::timestamptz[]) AS r
