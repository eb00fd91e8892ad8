-- Announces an instance; counts the others that are alive, and the ranges.
-- $1 text consumer  $2 text instance  $3 float8 seconds
WITH me AS (
    INSERT INTO consumer_members (consumer, instance, expires_at)
    VALUES ($1, $2, now() + make_interval(secs => $3::float8))
    ON CONFLICT (consumer, instance) DO UPDATE SET expires_at = excluded.expires_at),
gone AS (
    DELETE FROM consumer_members WHERE consumer = $1 AND expires_at < now() - interval '1 day')
SELECT (SELECT count(*) FROM consumer_members WHERE consumer = $1 AND instance <> $2 AND expires_at >= now()),
       (SELECT count(*) FROM consumer_ranges WHERE consumer = $1)
