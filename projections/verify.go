package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/eventstore"
)

// Report is what Verify found. It names streams and columns and holds no
// value of either.
type Report struct {
	Projection string
	Version    int
	// Position is the checkpoint that rows and events were compared at; of
	// several ranges that of the last. Each range is compared at its own.
	Position eventstore.Position
	// Streams and Rows are how many were compared. Stopped is how many streams
	// were left out because their rows are known to stand still.
	Streams, Rows, Stopped int64
	// Drifted is the number of differences, of which Drifts holds the first
	// thousand.
	Drifted int64
	Drifts  []Drift
}

// Drift is one difference between a row and the events.
type Drift struct {
	// Stream is the row's; empty for a counter.
	Stream string
	// Column is the one that differs; empty when the whole row is missing or
	// too many.
	Column string
	// Kind is "differs", "missing" or "extra".
	Kind string
}

const maxDrifts = 1000

func (r *Report) drift(d Drift) {
	if r.Drifted++; len(r.Drifts) < maxDrifts {
		r.Drifts = append(r.Drifts, d)
	}
}

// Verify recomputes rows of the live version of a read model from the events
// and compares, all at one position and while the projection goes on. sample
// is about how many streams to look at; 0 looks at all, and at the counters.
func (e *Engine) Verify(ctx context.Context, name string, sample int) (Report, error) {
	m, err := e.model(name)
	if err != nil {
		return Report{}, err
	}
	r := Report{Projection: name}
	err = pgx.BeginTxFunc(ctx, e.pool, snapshot, func(tx pgx.Tx) error {
		var definition int
		err := tx.QueryRow(ctx, `SELECT version, definition, come.position FROM projections p `+comeTo+` WHERE name = $1 AND state = 'live'`, name).
			Scan(&r.Version, &definition, &r.Position)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errNoVersion
		case err != nil:
			return fmt.Errorf("projections: reading the registry: %w", err)
		case definition != m.Definition():
			return errDefinition
		}
		marks, err := readMarks(ctx, tx, name, r.Version, "")
		if err != nil {
			return err
		}
		if sample > 0 {
			// Slices hold streams at random, so some slices are a sample.
			for i, first := 0, rand.IntN(eventstore.Slices); i < eventstore.Slices && r.Streams < int64(sample); i++ { // #nosec G404 -- a sample
				slice := int16((first + i) % eventstore.Slices) // #nosec G115 -- below 1024
				if err := e.checkSlices(ctx, tx, m, r.Version, slice, slice, marks.at(slice), &r); err != nil {
					return err
				}
			}
			return nil
		}
		for _, k := range marks {
			if err := e.checkSlices(ctx, tx, m, r.Version, k.first, k.last, k.position, &r); err != nil {
				return err
			}
		}
		if err := checkOrphans(ctx, tx, m, r.Version, &r); err != nil {
			return err
		}
		return m.checkCounts(ctx, tx.Conn().PgConn(), r.Version, &r)
	})
	return r, err
}

// mark is how far a range of slices has come, marks how far the ranges of a
// version have, in order of slice.
type (
	mark struct {
		first, last int16
		epoch       int32
		position    eventstore.Position
		// lost says that the range had come further than the history that it
		// shares with the present one; position is then where they part.
		lost bool
	}
	marks []mark
)

// readMarks reads a version's ranges, and locks them if that is added.
func readMarks(ctx context.Context, tx pgx.Tx, name string, version int, lock string) (marks, error) {
	rows, err := tx.Query(ctx, `SELECT first_slice, last_slice, epoch, position FROM projection_ranges
		WHERE name = $1 AND version = $2 ORDER BY first_slice `+lock, name, version)
	if err != nil {
		return nil, fmt.Errorf("projections: reading ranges: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k mark, err error) {
		return k, row.Scan(&k.first, &k.last, &k.epoch, &k.position)
	})
	if err != nil {
		return nil, fmt.Errorf("projections: reading ranges: %w", err)
	}
	return list, nil
}

// at is how far the range of a slice has come.
func (ks marks) at(slice int16) eventstore.Position { low, _ := ks.over(slice, slice); return low }

// over tells how far those ranges have come that slices from first to last
// belong to: the last of them and the first.
func (ks marks) over(first, last int16) (low, high eventstore.Position) {
	met := false
	for _, k := range ks {
		if k.first <= last && first <= k.last {
			if !met || k.position < low {
				low = k.position
			}
			high, met = max(high, k.position), true
		}
	}
	return low, high
}

var snapshot = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// checkSlices compares the rows of some slices, as tx's snapshot has them,
// with the events up to a position.
func (e *Engine) checkSlices(ctx context.Context, tx pgx.Tx, m Model, version int, first, last int16, upTo eventstore.Position, r *Report) error {
	if upTo == 0 {
		return nil // a version that has just begun; 0 would be no bound
	}
	rows, err := tx.Query(ctx, `SELECT stream FROM projection_stopped WHERE name = $1 AND version = $2`, m.Name(), version)
	if err != nil {
		return fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	skip := make(map[string]bool)
	var stream string
	if _, err := pgx.ForEachRow(rows, []any{&stream}, func() error { skip[stream] = true; return nil }); err != nil {
		return fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	return e.store.ReadSlices(ctx, first, last, upTo, m.unsealed(), func(events []eventstore.Event) error {
		facts, err := e.prepare(ctx, m, events)
		if err != nil {
			return err
		}
		return m.check(ctx, tx.Conn().PgConn(), version, facts, skip, r)
	})
}

// checkOrphans looks for rows of streams that the log does not have.
func checkOrphans(ctx context.Context, tx pgx.Tx, m Model, version int, r *Report) error {
	id := m.Columns()[0].Name
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT DISTINCT t.%[1]s FROM %[2]s t
		WHERE NOT EXISTS (SELECT FROM streams s WHERE s.stream = t.%[1]s) ORDER BY 1 LIMIT %[3]d`, id, m.tables(version)[0], maxDrifts))
	if err != nil {
		return fmt.Errorf("projections: looking for rows without events: %w", err)
	}
	var stream string
	_, err = pgx.ForEachRow(rows, []any{&stream}, func() error {
		r.drift(Drift{Stream: stream, Kind: "extra"})
		return nil
	})
	if err != nil {
		return fmt.Errorf("projections: looking for rows without events: %w", err)
	}
	return nil
}

// check implements Model.
func (m *model[R]) check(ctx context.Context, conn *pgconn.PgConn, version int, facts []fact, skip map[string]bool, r *Report) error {
	expected := make(map[string][]R)
	var order []string
	var scratch []R
	for i := 0; i < len(facts); {
		stream := facts[i].ev.Stream
		var rows []R
		var err error
		j := i
		for ; j < len(facts) && facts[j].ev.Stream == stream; j++ {
			if err == nil {
				rows, scratch, err = m.step(rows, scratch, &facts[j])
			}
		}
		i = j
		switch {
		case !m.ours(stream):
		case skip[stream]:
			r.Stopped++
		default:
			if err != nil { // would have to be stopped, and is not
				r.drift(Drift{Stream: stream, Kind: "differs"})
			}
			expected[stream] = rows
			order = append(order, stream)
		}
	}
	if len(order) == 0 {
		return nil
	}
	actual := make(map[string][]R, len(order))
	err := m.load(ctx, conn, version, order, func(row *R) {
		id := *m.columns[0].text(row)
		actual[id] = append(actual[id], *row)
	})
	if err != nil {
		return err
	}
	for _, stream := range order {
		r.Streams++
		r.Rows += int64(len(expected[stream]))
		m.compare(stream, expected[stream], actual[stream], r)
	}
	return nil
}

// compare pairs the rows of a stream by key and names what differs.
func (m *model[R]) compare(stream string, expected, actual []R, r *Report) {
	left := make(map[string]*R, len(actual))
	for i := range actual {
		left[m.keyOf(&actual[i])] = &actual[i]
	}
	for i := range expected {
		key := m.keyOf(&expected[i])
		got := left[key]
		if got == nil {
			r.drift(Drift{Stream: stream, Kind: "missing"})
			continue
		}
		delete(left, key)
		for c := range m.columns {
			if !bytes.Equal(m.columns[c].encode(nil, &expected[i]), m.columns[c].encode(nil, got)) {
				r.drift(Drift{Stream: stream, Column: m.columns[c].name, Kind: "differs"})
			}
		}
	}
	for range left {
		r.drift(Drift{Stream: stream, Kind: "extra"})
	}
}

// keyOf is the encoded primary key.
func (m *model[R]) keyOf(row *R) string {
	var key []byte
	for _, i := range m.keyColumns {
		key = m.columns[i].encode(key, row)
	}
	return string(key)
}

// checkCounts implements Model.
func (m *model[R]) checkCounts(ctx context.Context, conn *pgconn.PgConn, version int, r *Report) error {
	if m.count == nil {
		return nil
	}
	sql := fmt.Sprintf(`SELECT count(*) FROM (SELECT org, state, (slice / %d)::smallint AS shard, count(*) AS n FROM %s GROUP BY 1, 2, 3) a
		FULL JOIN (SELECT * FROM %s WHERE n <> 0) b USING (org, state, shard) WHERE a.n IS DISTINCT FROM b.n`,
		slicesPerShard, m.table(version), m.countTable(version))
	rows := conn.ExecParams(ctx, sql, nil, nil, nil, []int16{1})
	var wrong int64
	for rows.NextRow() {
		wrong = readInt8(rows.Values()[0])
	}
	if _, err := rows.Close(); err != nil {
		return fmt.Errorf("projections: comparing counters: %w", err)
	}
	for range wrong {
		r.drift(Drift{Column: "counts", Kind: "differs"})
	}
	return nil
}

// Comparison is what the comparison of a new version with the live one found.
type Comparison struct {
	// Rows and LiveRows are how many each has.
	Rows, LiveRows int64
	// Compared says that the contents were compared: both versions were made
	// by the same definition and stood at the same position.
	Compared bool
	// Differing are the slices whose rows are not the same.
	Differing []int16
}

// sameRows implements Model.
func (m *model[R]) sameRows(ctx context.Context, conn *pgconn.PgConn, a, b int) (Comparison, error) {
	c := Comparison{Compared: true}
	sql := fmt.Sprintf(`WITH
		a AS (SELECT slice, count(*) AS n, bit_xor(hash_record_extended(t, 0)) AS h FROM %s t GROUP BY slice),
		b AS (SELECT slice, count(*) AS n, bit_xor(hash_record_extended(t, 0)) AS h FROM %s t GROUP BY slice)
		SELECT slice, coalesce(a.n, 0), coalesce(b.n, 0), a.n IS DISTINCT FROM b.n OR a.h IS DISTINCT FROM b.h
		FROM a FULL JOIN b USING (slice) ORDER BY slice`, m.table(a), m.table(b))
	rows := conn.ExecParams(ctx, sql, nil, nil, nil, []int16{1})
	for rows.NextRow() {
		v := rows.Values()
		c.LiveRows += readInt8(v[1])
		c.Rows += readInt8(v[2])
		if v[3][0] != 0 {
			c.Differing = append(c.Differing, readInt2(v[0]))
		}
	}
	if _, err := rows.Close(); err != nil {
		return Comparison{}, fmt.Errorf("projections: comparing versions: %w", err)
	}
	return c, nil
}
