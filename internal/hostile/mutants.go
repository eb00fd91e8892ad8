//go:build mutant

package hostile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

// A mutant is the true log but for one thing. Those that number events in a
// way of their own keep the numbers in a table beside it.

const otherOrder = `
	CREATE TABLE other_order (
		batch bigint, idx integer, position bigint NOT NULL, xid xid8 NOT NULL, PRIMARY KEY (batch, idx));
	CREATE INDEX ON other_order (position);
	CREATE SEQUENCE other_positions;
	CREATE SEQUENCE other_bases;
	GRANT SELECT, INSERT ON other_order TO muster_service;
	GRANT USAGE ON SEQUENCE other_positions, other_bases TO muster_service`

// numbering inserts events and numbers them at the same time. Such a log takes
// no lock to order commits by; a shared one lets a committer that has lost its
// connection wait for the others.
func numbering(position, xid string) map[string]string {
	return map[string]string{
		"lock_log": `SELECT pg_advisory_xact_lock_shared(x'6d7573746572'::int8)`,
		"bind_batch": `
		INSERT INTO batches (base, n, id)
		SELECT nextval('other_bases') * 10000, CASE WHEN EXISTS (SELECT FROM abandoned_batches WHERE id = $2::int8) THEN NULL ELSE $1::int4 END, $2::int8
		RETURNING base`,
		"insert_events": `
		WITH added AS (
			INSERT INTO events (batch, idx, slice, stream, sequence, id, type, schema, org, actor, at, data, sealed)
			SELECT $1::int8, e.*
			FROM unnest($2::int4[], $3::int2[], $4::text[], $5::int8[], $6::uuid[], $7::text[], $8::int2[],
			            $9::text[], $10::text[], $11::timestamptz[], $12::bytea[], $13::bytea[]) AS e
			RETURNING batch, idx)
		INSERT INTO other_order (batch, idx, position, xid)
		SELECT batch, idx, ` + position + `, ` + xid + ` FROM (SELECT batch, idx FROM added ORDER BY idx) added`,
	}
}

// reading reads in the other order, behind a gate.
func reading(gate string) string {
	return `
		SELECT o.position, e.stream, e.sequence, e.id, e.data
		FROM other_order o JOIN events e ON e.batch = o.batch AND e.idx = o.idx
		WHERE o.position > $1 AND ` + gate + ` ORDER BY o.position LIMIT $2`
}

const (
	serial    = `nextval('other_positions')`
	ownXID    = `pg_current_xact_id()`
	earlyXID  = `current_setting('muster.early')::xid8`
	drawEarly = `SELECT set_config('muster.early', pg_current_xact_id()::text, false)`
	// byXID makes one number of a transaction's id and a place in it; the ids of
	// a young server leave room for that.
	byOwnXID   = `(` + ownXID + `::text::int8 << 24) + idx`
	byEarlyXID = `(` + earlyXID + `::text::int8 << 24) + idx`
	// byClock makes clocks' microseconds unique within a statement.
	byClock = `(extract(epoch FROM clock_timestamp()) * 1000000)::int8 * 1024 + idx % 1024`

	noGate   = `true`
	xminGate = `o.xid < pg_snapshot_xmin(pg_current_snapshot())`
)

const (
	swallowingEvents = `
		INSERT INTO events (batch, idx, slice, stream, sequence, id, type, schema, org, actor, at, data, sealed)
		SELECT $1::int8, e.*
		FROM unnest($2::int4[], $3::int2[], $4::text[], $5::int8[], $6::uuid[], $7::text[], $8::int2[],
		            $9::text[], $10::text[], $11::timestamptz[], $12::bytea[], $13::bytea[]) AS e
		ON CONFLICT DO NOTHING`
	swallowingStreams = `
		INSERT INTO streams (stream, slice, org, sequence, kek, data_key)
		SELECT * FROM unnest($1::text[], $2::int2[], $3::text[], $4::int8[], $5::text[], $6::bytea[])
		ON CONFLICT DO NOTHING`
)

// Mutants are the wrong logs.
var Mutants = []Variant{
	{
		Name: "serial", Fault: "naive serial reader: numbers drawn at insert, readers take what is above their checkpoint",
		Sparse: true, setup: otherOrder, statements: numbering(serial, ownXID), read: reading(noGate),
	},
	{
		Name: "gap-timeout", Fault: "a reader waits at a gap for a second, then goes on behind it",
		Sparse: true, setup: otherOrder, statements: numbering(serial, ownXID), read: reading(noGate), patience: time.Second,
	},
	{
		Name: "gate-position", Fault: "readers wait for older transactions, but their checkpoint is a position only",
		Sparse: true, Gated: true, setup: otherOrder, statements: numbering(serial, ownXID), read: reading(xminGate),
	},
	{
		Name: "xid-order", Fault: "events in order of their transaction's id, which is given early and commits late",
		Sparse: true, setup: otherOrder, statements: numbering(byOwnXID, ownXID), read: reading(noGate),
	},
	{
		Name: "xid-early", Fault: "the same behind a gate on running transactions, the id drawn in a transaction before",
		Sparse: true, Gated: true, setup: otherOrder, statements: numbering(byEarlyXID, earlyXID), read: reading(xminGate), before: drawEarly,
	},
	{
		Name: "clock", Fault: "events in order of the database's clock at their insert",
		Sparse: true, setup: otherOrder, statements: numbering(byClock, ownXID), read: reading(noGate),
	},
	{
		Name: "one-statement", Fault: "the log's lock and the reading of the last batch in one statement",
		// The primary key would notice and refuse; this log has none.
		setup: `ALTER TABLE batches DROP CONSTRAINT batches_pkey; CREATE INDEX ON batches (base)`,
		statements: map[string]string{
			"lock_log": `SELECT 1`,
			"bind_batch": `
				WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(x'6d7573746572'::int8))
				INSERT INTO batches (base, n, id)
				SELECT coalesce((SELECT base + n FROM batches ORDER BY base DESC LIMIT 1), 1), $1::int4, $2::int8 FROM locked
				RETURNING base`,
		},
	},
	{
		Name: "swallowed", Fault: "a conflict of two writers on a stream ends in ON CONFLICT DO NOTHING",
		statements: map[string]string{"insert_events": swallowingEvents, "insert_streams": swallowingStreams},
	},
	{
		Name: "async-ack", Fault: "an append is acknowledged before its commit is on disk",
		statements: map[string]string{
			"lock_log": `SELECT pg_advisory_xact_lock(x'6d7573746572'::int8), set_config('synchronous_commit', 'off', true)`,
		},
	},
	{
		Name: "lost-is-done", Fault: "a connection lost during the commit counts as a success",
		Sparse:     true, // where the events went is not known to it
		lostIsDone: true,
	},
	{
		Name: "claims-unlocked", Fault: "claims are looked up and then taken, with nothing to hold them",
		setup: `
			ALTER TABLE claims DROP CONSTRAINT claims_pkey;
			CREATE INDEX ON claims (hash);
			CREATE FUNCTION taken() RETURNS text LANGUAGE plpgsql AS $$
			BEGIN RAISE unique_violation; END $$`,
		statements: map[string]string{
			"insert_claims": `
				INSERT INTO claims (hash, stream)
				SELECT hash, CASE WHEN EXISTS (SELECT FROM claims c WHERE c.hash = wanted.hash) THEN taken() ELSE stream END
				FROM unnest($1::bytea[], $2::text[]) AS wanted (hash, stream)`,
			"take_claims": `
				INSERT INTO claims (hash, stream)
				SELECT hash, stream FROM unnest($1::bytea[], $2::text[]) AS wanted (hash, stream)
				WHERE NOT EXISTS (SELECT FROM claims c WHERE c.hash = wanted.hash)
				RETURNING hash`,
		},
	},
	{
		Name: "keys-raced", Fault: "idempotency keys are looked up without anything to hold two that come at once apart",
		statements: map[string]string{
			"insert_repeats": `
				INSERT INTO idempotency (batch, key, request, stream, first_sequence, last_sequence, last_idx, at)
				SELECT $1::int8, r.*
				FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::int8[], $6::int8[], $7::int4[], $8::timestamptz[]) AS r
				ON CONFLICT DO NOTHING`,
		},
	},
	{
		Name: "trusted-head", Fault: "a reader takes a head that it has seen once for one that stays visible, on a standby too",
		trusting: true,
	},
}

// Named returns the variant of that name.
func Named(name string) (Variant, error) {
	for _, v := range append([]Variant{True}, Mutants...) {
		if v.Name == name {
			return v, nil
		}
	}
	return Variant{}, fmt.Errorf("hostile: there is no mutant %q", name)
}

// prepare puts the variant's statements in the place of the true ones, for
// this process.
func (v *Variant) prepare() {
	for statement, sql := range v.statements {
		eventstore.Mutate(statement, sql)
	}
}

func (v *Variant) wrap(s *eventstore.Store) Log {
	if v.before == "" && !v.lostIsDone && v.read == "" && !v.trusting {
		return s
	}
	return &wrong{Store: s, variant: *v, writer: eventstore.Wrong{Before: v.before, LostIsDone: v.lostIsDone}}
}

// wrong is a store with a fault in the code around its statements.
type wrong struct {
	*eventstore.Store
	variant Variant
	writer  eventstore.Wrong

	// The place where a reader waits at a gap, and since when.
	gap   eventstore.Position
	since time.Time

	known eventstore.Position // the head that a trusting reader goes by
}

func (w *wrong) AppendMany(ctx context.Context, as []eventstore.Append) []eventstore.Outcome {
	if w.variant.before == "" && !w.variant.lostIsDone {
		return w.Store.AppendMany(ctx, as)
	}
	return w.writer.AppendMany(ctx, w.Store, as)
}

// Wait leaves it to reading to find what there is.
func (w *wrong) Wait(ctx context.Context, after eventstore.Position) error {
	if w.variant.read == "" {
		return w.Store.Wait(ctx, after)
	}
	sleep(ctx, 3*time.Millisecond)
	return ctx.Err()
}

func (w *wrong) ReadPage(ctx context.Context, q eventstore.Query) (eventstore.Page, error) {
	if w.variant.trusting {
		return w.readTrusting(ctx, q)
	}
	if w.variant.read == "" {
		return w.Store.ReadPage(ctx, q)
	}
	rows, err := w.Pool().Query(ctx, w.variant.read, int64(q.After), q.Limit)
	if err != nil {
		return eventstore.Page{}, err
	}
	events, err := collect(rows)
	if err != nil {
		return eventstore.Page{}, err
	}
	if w.variant.patience > 0 {
		events = w.upToGap(q.After, events)
	}
	page := eventstore.Page{Events: events, Through: q.After}
	if len(events) > 0 {
		page.Through = events[len(events)-1].Position
	}
	return page, nil
}

func collect(rows pgx.Rows) ([]eventstore.Event, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e eventstore.Event, err error) {
		return e, row.Scan(&e.Position, &e.Stream, &e.Sequence, (*[16]byte)(&e.ID), &e.Data)
	})
}

// readTrusting takes a window that ends at a head it has seen for complete. It
// looks at the head each time, but only believes that it has grown.
func (w *wrong) readTrusting(ctx context.Context, q eventstore.Query) (eventstore.Page, error) {
	head, err := w.Head(ctx)
	if err != nil {
		return eventstore.Page{}, err
	}
	w.known = max(w.known, head.Position)
	q.UpTo = max(q.After, min(q.After+eventstore.Position(q.Limit), w.known))
	page, err := w.Store.ReadPage(ctx, q)
	page.Through = q.UpTo
	return page, err
}

// upToGap cuts events at the first gap, until it has been there for too long.
func (w *wrong) upToGap(after eventstore.Position, events []eventstore.Event) []eventstore.Event {
	n := 0
	for n < len(events) && events[n].Position == after+eventstore.Position(n)+1 {
		n++
	}
	switch gap := after + 1; {
	case n > 0 || len(events) == 0:
		return events[:n]
	case w.gap != gap:
		w.gap, w.since = gap, time.Now()
		fallthrough
	case time.Since(w.since) < w.variant.patience:
		if w.variant.patience > 1 {
			return nil
		}
	}
	return events
}
