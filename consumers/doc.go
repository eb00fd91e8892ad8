// Package consumers lets code outside the database act on the log's events.
//
// The log is a Watermill message.Subscriber, so a consumer is an ordinary
// Watermill handler, with Watermill's router and its middlewares. What the
// Subscriber promises:
//
//   - Each event reaches the handler at least once, whatever is killed and
//     whenever. A message's UUID is its effect id, the same at each delivery:
//     whoever remembers it acts once.
//   - The events of one stream come one after the other, in order of sequence.
//     Streams are independent of each other and run in parallel.
//   - A handler that fails is called again with backoff and jitter. What still
//     fails after a number of tries parks its stream: the later events of that
//     stream wait behind it, in order, and no other stream is delayed. A message
//     that kills the process is recognised and parked too.
//   - Several instances share the work. Slices are leased in ranges; a lease
//     carries a token that grows with each change of hands, and a checkpoint
//     written with an older token changes nothing.
//   - A checkpoint counts in the epoch it was written in. After a failover or a
//     restore that lost events which were handled already, the consumer stops
//     with an eventstore.ForkError, or rewinds when so configured.
//   - No transaction is open while a handler runs, and memory is bounded: when
//     the handlers do not keep up, reading stops.
//
// Mail, Relay and Webhooks are consumers of this kind.
package consumers
