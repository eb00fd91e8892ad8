-- All versions, with how far the log is beyond each, how long its oldest
-- unhandled event has waited, and what has stopped.
SELECT p.name, p.version, p.definition, p.state, p.phase, p.epoch, p.position, p.bulk_to, p.owner,
       p.lease_until >= now(), p.problem, p.updated_at, p.switched_at, h.head,
       (SELECT extract(epoch FROM now() - b.at)::float8 FROM batches b
        WHERE p.position < h.head AND b.base <= p.position + 1 ORDER BY b.base DESC LIMIT 1),
       (SELECT count(*) FROM projection_stopped s WHERE s.name = p.name AND s.version = p.version),
       (SELECT count(*) FROM projection_stopped s WHERE s.name = p.name AND s.version = p.version AND s.retry_at IS NULL),
       (SELECT count(*) FROM projection_chunks c WHERE c.name = p.name AND c.version = p.version),
       (SELECT coalesce(sum(c.events), 0)::int8 FROM projection_chunks c WHERE c.name = p.name AND c.version = p.version)
FROM projections p
CROSS JOIN (SELECT coalesce((SELECT base + n - 1 FROM batches ORDER BY base DESC LIMIT 1), 0) AS head) h
ORDER BY p.name, p.version
