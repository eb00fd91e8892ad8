-- The last committed position; 0 when the log is empty.
SELECT coalesce((SELECT base + n - 1 FROM batches ORDER BY base DESC LIMIT 1), 0)
