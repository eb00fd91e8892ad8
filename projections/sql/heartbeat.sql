-- Says that an instance can work on a model, and until when it is to be
-- believed, and lists all that are, in the order of their coming. One that had
-- fallen silent comes anew.
-- $1 text name  $2 int4 definition  $3 text member  $4 float8 seconds of lease
-- $5 int4 version
WITH me AS (
    INSERT INTO projection_members AS m (name, definition, member, seen_until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4))
    ON CONFLICT (name, definition, member) DO UPDATE
    SET seen_until = excluded.seen_until,
        joined_at = CASE WHEN m.seen_until < now() THEN now() ELSE m.joined_at END
    RETURNING member, joined_at
)
SELECT (SELECT array_agg(member ORDER BY joined_at, member)
        FROM (SELECT member, joined_at FROM me
              UNION ALL
              SELECT member, joined_at FROM projection_members
              WHERE name = $1 AND definition = $2 AND member <> $3 AND seen_until >= now()) all_of_them),
       EXISTS (SELECT FROM projections WHERE name = $1 AND version = $5 AND state = 'live')
