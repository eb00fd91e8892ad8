-- All versions, with how far the log is beyond each, how long its oldest
-- unhandled event has waited, and what has stopped. A version has come as far
-- as the last of its ranges, and none of them further than its history is the log's.
SELECT p.name, p.version, p.definition, p.state, p.phase, r.epoch, r.position, p.bulk_to,
       CASE WHEN p.state <> 'building' THEN r.owners WHEN p.lease_until >= now() THEN p.owner ELSE '' END,
       r.ranges, CASE WHEN p.state <> 'building' THEN r.held WHEN p.lease_until >= now() THEN r.ranges ELSE 0 END,
       coalesce(nullif(p.problem, ''), r.problem), r.updated_at, p.switched_at, h.head,
       (SELECT extract(epoch FROM now() - b.at)::float8 FROM batches b
        WHERE r.position < h.head AND b.base <= r.position + 1 ORDER BY b.base DESC LIMIT 1),
       (SELECT count(*) FROM projection_stopped s WHERE s.name = p.name AND s.version = p.version),
       (SELECT count(*) FROM projection_stopped s WHERE s.name = p.name AND s.version = p.version AND s.retry_at IS NULL),
       (SELECT count(*) FROM projection_chunks c WHERE c.name = p.name AND c.version = p.version),
       (SELECT coalesce(sum(c.events), 0)::int8 FROM projection_chunks c WHERE c.name = p.name AND c.version = p.version)
FROM projections p
CROSS JOIN LATERAL (
    SELECT min(epoch) AS epoch, min(least(position, (SELECT min(e.first_position) - 1 FROM epochs e WHERE e.epoch > g.epoch))) AS position,
           max(updated_at) AS updated_at, max(problem) AS problem,
           count(*) AS ranges, count(*) FILTER (WHERE lease_until >= now()) AS held,
           coalesce(string_agg(DISTINCT owner, ', ') FILTER (WHERE lease_until >= now()), '') AS owners
    FROM projection_ranges g
    WHERE name = p.name AND version = p.version
) r
CROSS JOIN (SELECT coalesce((SELECT base + n - 1 FROM batches ORDER BY base DESC LIMIT 1), 0) AS head) h
ORDER BY p.name, p.version
