// Package projections keeps read models: tables that are built from events and
// from nothing else.
//
// # What it promises
//
//   - A read model's rows and its checkpoint change in one transaction, which
//     only the holder of the model's lease can commit. Nothing is applied
//     twice, and nothing is passed over: an event that cannot be applied stops
//     the rows of its stream, visibly, until it can.
//   - A rebuild makes the next version beside the live one and switches in one
//     transaction, once the new one is at least as far. A reader finds the live
//     version in the snapshot of its own query, so it sees neither a gap nor
//     older data.
//   - A rebuilt version equals the live one row for row: rows follow from the
//     events alone, never from a clock or from the order of work.
//   - Read models are a cache of the log. Their transactions do not wait for
//     the disk, since a crash of the database only sets rows and checkpoint
//     back together, and they catch up by themselves.
//
// # How it is built
//
// A read model is one file (users.go, idp_links.go, organisations.go): its
// name, its columns and which of them are personal, its indexes, what it does
// with each event, and its queries. The engine does everything else:
//
//	model.go    from columns to SQL; applying a run of events set by set
//	session.go  the lease, and the loop that follows the log
//	engine.go   who works on what; start, stop, heartbeat
//	stopped.go  streams whose event failed: retry, inspect
//	rebuild.go  build beside, catch up, compare, switch, roll back
//	verify.go   recompute and compare
//	live.go     reading the live version; waiting for a position
//
// One instance at a time works on one read model: several instances share
// several models, and another one takes over within five seconds when an owner
// dies. Since one owner keeps up with the fastest import, that is all the
// sharing there is; a read model's work is not split further.
package projections
