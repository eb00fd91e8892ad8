-- Parks streams whose attempts, one after the other, did not outlive their
-- processes.
-- $1 text consumer  $2 int2 first slice  $3 int2 last slice  $4 int4 so many starts
-- $5 text error class
UPDATE consumer_parked SET state = 'parked', error_class = $5, finished = started
WHERE consumer = $1 AND slice BETWEEN $2 AND $3 AND state <> 'parked' AND started - finished >= $4
