-- Each consumer, how far it is, and what it set aside.
SELECT c.name, r.position, r.epoch, r.ranges, r.leased, r.instances, r.updated_at,
       coalesce(p.parked, 0), coalesce(p.retrying, 0),
       (SELECT count(*) FROM consumer_effects e WHERE e.consumer = c.name AND e.state = 'uncertain')
FROM consumers c
JOIN LATERAL (
    SELECT min(position) AS position, min(epoch) AS epoch, count(*) AS ranges, max(updated_at) AS updated_at,
           count(*) FILTER (WHERE owner IS NOT NULL AND expires_at >= now()) AS leased,
           count(DISTINCT owner) FILTER (WHERE expires_at >= now()) AS instances
    FROM consumer_ranges WHERE consumer = c.name) r ON true
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'parked') AS parked, count(*) FILTER (WHERE state <> 'parked') AS retrying
    FROM consumer_parked WHERE consumer = c.name) p ON true
WHERE $1::text IS NULL OR c.name = $1
ORDER BY c.name
