-- Begins a job, unless it has been begun.
-- $1 text id  $2 text org  $3 text actor  $4 text remote  $5 bool dry_run  $6 text on_conflict  $7 text notify  $8 timestamptz now
INSERT INTO import_jobs (id, org, actor, remote, dry_run, on_conflict, notify, started_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (id) DO NOTHING
