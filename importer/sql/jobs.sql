-- An organisation's latest jobs.
-- $1 text  the organisation
SELECT id, org, actor, remote, dry_run, on_conflict, notify, state, lines, created, updated, skipped, failed, removed,
       position, seconds, forecast, started_at, updated_at, finished_at
FROM import_jobs
WHERE org = $1
ORDER BY started_at DESC
LIMIT 1000
