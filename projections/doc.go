// Package projections keeps read models: tables that are built from events and
// from nothing else.
//
// # What it promises
//
//   - A read model's rows and its checkpoint change in one transaction, which
//     only the holder of the lease can commit. Nothing is applied twice, and
//     nothing is passed over: an event that cannot be applied stops the rows of
//     its stream, visibly, until it can.
//   - A rebuild makes the next version beside the live one and switches in one
//     transaction, once the new one is at least as far. A reader finds the live
//     version in the snapshot of its own query, so it sees neither a gap nor
//     older data.
//   - A rebuilt version equals the live one row for row: rows follow from the
//     events alone, never from a clock or from the order of work.
//   - Several instances share the work on a read model by slices, each about as
//     much as any other; a newcomer has its share within seconds, and what a
//     dead one had is taken over within five.
//   - Read models are a cache of the log. Their transactions do not wait for
//     the disk, since a crash of the database only sets rows and checkpoint
//     back together, and they catch up by themselves.
//
// # How it is built
//
// A read model is one file (users.go, idp_links.go, organisations.go): its
// name, its columns and which of them are personal, its indexes, into how many
// ranges its work may be split, what it does with each event, and its queries.
// The engine does everything else:
//
//	model.go    from columns to SQL; applying a run of events set by set
//	session.go  leases, checkpoints, and the transaction that moves both
//	share.go    which ranges are whose; the loop that follows the log
//	engine.go   who works on what; start, stop, heartbeat
//	stopped.go  streams whose event failed: retry, inspect
//	rebuild.go  build beside, catch up, compare, switch, roll back
//	verify.go   recompute and compare
//	live.go     reading the live version; waiting for a position
//
// # Ranges of slices
//
// The 1,024 slices of a version are divided into a few ranges (users: 8), each
// with a row of its own in projection_ranges: checkpoint (epoch and position),
// lease, and the lease's token, which is the fence. A model may be split when
// none of its rows depends on two streams, because then the events of one range
// never touch a row of another.
//
// An instance reads the log once for all ranges of a model that it holds, from
// the last of their checkpoints, and moves all of them in the transaction that
// writes their rows: the statement that moves them (advance.sql) requires token,
// position and epoch of each. If one does not hold, the whole transaction is
// undone and the session ends, so that who was pushed out of one range cannot
// write to it along with the others. Ranges that were taken over from different
// owners stand at different positions; an event is applied to a range only
// beyond that range's own checkpoint. An instance that holds everything reads
// the log without a filter, as if there were no ranges.
//
// Who is to hold what follows from projection_members, where each instance says
// every quarter of a lease that it is there (heartbeat.sql): the k-th of n
// instances in the order of their coming has the k-th of n equal parts, which
// are neighbours, so that its reading is one range of slices. Each looks in the
// same beat, gives back what is no longer its share and takes what is and is
// free. Membership only says who ought to work; that nobody works twice is up to
// leases and tokens. All clocks are the database's. An instance that fails twice
// in a row steps back, so that the others take its share.
//
// # What has to hold between them
//
// A version has come to a position when each of its ranges has: readers are told
// the lowest, and WaitFor waits for it. It never falls, since none of them does.
//
// A candidate has one worker (its lease is in the version's own row) who holds
// all its ranges. To compare, and to switch, that worker locks the live
// version's row and then its ranges, in order of slice, and brings each of its
// own ranges to where the live one is. So the comparison is exact however far
// apart the live ranges are, and the switch demands of each range that it is not
// behind (switch.sql). With the switch all tokens of the old version change:
// whoever works on it is fenced, with its next write or renewal. The old
// version's ranges stay where they were, each, and a rollback goes on from
// there.
//
// Nobody can take a range of a version that is being retired: who takes ranges
// (acquire.sql) holds the version's row in the state "live" meanwhile, and the
// switch waits for that, or the other way round. All locks are taken in one
// order, version before ranges and ranges by slice, so no two wait for each
// other.
//
// A stopped stream is retried under the lock of its range's row, up to the
// checkpoint that it finds there; the batch that its owner has in hand leaves
// the stream out or goes on from the same place.
package projections
