-- Which cluster and which timeline this connection writes to. The timeline is
-- that of the WAL being written, which a promotion changes at once.
SELECT system_identifier,
       ('x' || lpad(substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), 16, '0'))::bit(64)::int8 AS timeline
FROM pg_control_system()
