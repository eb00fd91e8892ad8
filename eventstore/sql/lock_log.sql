-- The log's lock, held until the transaction ends. Whatever reads the last
-- batch must be a later statement than this one: the snapshot of a statement
-- that waits here is older than the lock.
SELECT pg_advisory_xact_lock(x'6d7573746572'::int8)
