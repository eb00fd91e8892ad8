-- The latest jobs of all organisations.
-- $1 int  how many
SELECT id, org, actor, remote, dry_run, on_conflict, notify, state, lines, created, updated, skipped, failed, removed,
       position, seconds, forecast, started_at, updated_at, finished_at
FROM import_jobs
ORDER BY started_at DESC, id
LIMIT $1
