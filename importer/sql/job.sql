-- One job.
-- $1 text  its id
SELECT id, org, actor, remote, dry_run, on_conflict, notify, state, lines, created, updated, skipped, failed, removed,
       position, seconds, forecast, started_at, updated_at, finished_at
FROM import_jobs
WHERE id = $1
