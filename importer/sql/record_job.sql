-- Says how far a job has come.
-- $1 text id  $2 text state  $3 int8 lines  $4 int8 created  $5 int8 updated  $6 int8 skipped  $7 int8 failed
-- $8 int8 position  $9 float8 seconds  $10 jsonb forecast  $11 timestamptz now  $12 timestamptz finished or NULL
UPDATE import_jobs
SET state = $2, lines = $3, created = $4, updated = $5, skipped = $6, failed = $7,
    position = $8, seconds = $9, forecast = $10, updated_at = $11, finished_at = $12
WHERE id = $1
