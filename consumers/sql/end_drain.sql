-- Forgets a stream that has been drained, if the lease is still held.
-- $1 text consumer  $2 text instance  $3 int2 first slice  $4 int8 token  $5 text stream
WITH lease AS (
    SELECT FROM consumer_ranges
    WHERE consumer = $1 AND owner = $2 AND first_slice = $3 AND token = $4
    FOR SHARE)
DELETE FROM consumer_parked USING lease WHERE consumer = $1 AND stream = $5
