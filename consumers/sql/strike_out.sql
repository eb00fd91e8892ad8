-- Strikes attempts out that have come to an end. Nor need this wait for the disk.
-- $1 text consumer  $2 int8[] positions
DELETE FROM consumer_attempts
USING (SELECT set_config('synchronous_commit', 'off', true) OFFSET 0) AS lazily
WHERE consumer = $1 AND position = ANY ($2)
