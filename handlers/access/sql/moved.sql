-- What changes whenever an event is appended to an organisation: sequences only
-- grow, and so does their sum.
-- $1 text  the streams from here, to $2 text exclusive
SELECT coalesce(sum(sequence), 0)::bigint
FROM streams
WHERE stream >= $1::text AND stream < $2::text
