-- Begins a new epoch at the end of the log unless the latest one already is of
-- this system identifier and timeline. The log's lock is held.
-- $1 int8 system identifier  $2 int8 timeline
INSERT INTO epochs (epoch, system_identifier, timeline, first_position)
SELECT coalesce(max(e.epoch), 0) + 1, $1::int8, $2::int8,
       coalesce((SELECT base + n FROM batches ORDER BY base DESC LIMIT 1), 1)
FROM epochs e
HAVING NOT EXISTS (
    SELECT FROM (SELECT system_identifier, timeline FROM epochs ORDER BY epoch DESC LIMIT 1) latest
    WHERE latest.system_identifier = $1::int8 AND latest.timeline = $2::int8)
