// Package eventstore is the log: an append-only sequence of events in
// PostgreSQL that no reader can see a hole in.
//
// # What it promises
//
//   - Positions are dense. Whoever sees position p can see every position below
//     p, on the primary and on a standby, whatever crashes, rolls back or idles.
//     It follows from the order of a flush's steps: positions are bound last,
//     under a lock that is held until the commit is durable (see flush.go).
//   - An append is whole or absent, and what was acknowledged is on disk.
//   - Within a stream, sequences are 1 to n in order of position. An expected
//     sequence that does not hold fails that append and no other.
//   - A claim has at most one owner. The loser gets a *ConflictError.
//   - The same idempotency key returns the first result and appends nothing.
//   - Nobody changes or deletes an event: the service's role has no right to.
//   - What is personal or secret is stored sealed: AES-256-GCM with a key of the
//     subject's own, bound to stream and event id. Erasing a subject destroys
//     the key.
//
// The package knows no user: an event is a type, a schema number, an open
// payload and one to be sealed.
package eventstore
