-- Keeps the answers to stretches of lines.
-- $1 text job; arrays: $2 int8 first line, $3 int8 last line, $4 int8 created, $5 int8 failed, $6 bytea digest, $7 bytea answers
INSERT INTO import_chunks (job, first_line, last_line, created, failed, digest, answers)
SELECT $1, c.* FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::bytea[], $7::bytea[]) AS c
