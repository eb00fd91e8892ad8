package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Schema is the database schema that the read models' own tables are in.
const Schema = "read_models"

// Model is a read model. Only this package makes them: see Models.
type Model interface {
	// Name is the read model's and its tables' name: version 3 of "users" is
	// in read_models.users_v3.
	Name() string
	// Definition counts the changes of what the rows look like or follow from.
	// A live version of another definition is neither written nor read, and a
	// running engine rebuilds it.
	Definition() int
	// Columns tells the columns of the read model's table.
	Columns() []ColumnInfo

	// concerns reports whether the rows depend on the events of a type, and
	// whether on their sealed part.
	concerns(typ string) (events, sealed bool)
	// unsealed are the types for which it wants that.
	unsealed() []string
	// ignores are the types that the rows do not depend on; nil when they
	// depend on all. A type that this program does not know is not among them:
	// nobody knows what rows may follow from it.
	ignores() []string
	// create and index are the statements that make a version's tables: bare,
	// and what is better built once they are filled.
	create(version int) []string
	index(version int, trigram bool) []string
	// ranges is in how many ranges of slices its work is divided.
	ranges() int
	// tables are the tables of a version.
	tables(version int) []string
	// apply changes the rows of a version as the facts want it, except those
	// of the streams to skip. It tells which streams failed; their rows are as
	// before the failing event. With isolate, rows that the database refuses
	// fail their stream, not the transaction.
	apply(ctx context.Context, conn *pgconn.PgConn, version int, facts []fact, skip map[string]bool, isolate bool) ([]failure, error)
	// replace sets the rows of one stream to what the facts, all of the
	// stream's, add up to. When one fails nothing is changed.
	replace(ctx context.Context, conn *pgconn.PgConn, version int, stream string, facts []fact) (*failure, error)
	// bulk begins the filling of an empty version.
	bulk(version int) bulk
	// check compares rows with what the facts, all of some streams' and in
	// order of stream, add up to.
	check(ctx context.Context, conn *pgconn.PgConn, version int, facts []fact, skip map[string]bool, r *Report) error
	// checkCounts compares the counters of a version with its rows.
	checkCounts(ctx context.Context, conn *pgconn.PgConn, version int, r *Report) error
	// sameRows compares two versions of the same definition.
	sameRows(ctx context.Context, conn *pgconn.PgConn, a, b int) (Comparison, error)
}

// ColumnInfo describes a column of a read model.
type ColumnInfo struct {
	Name string
	// Personal says that the column holds personal data, which must be gone
	// once its subject is erased.
	Personal bool
}

// Models returns all read models.
func Models() []Model { return []Model{users, idpLinks, organisations, importJobs} }

// fact is an event, opened as far as the model wants and decoded.
type fact struct {
	ev *eventstore.Event
	e  domain.Event
	// err says why it could not be opened or decoded.
	err error
}

// failure says which event stopped a stream.
type failure struct {
	stream             string
	sequence, position int64
	// class describes the error without a value from an event.
	class string
}

// index is a secondary index.
type index struct {
	suffix string
	// on is what follows ON table.
	on string
	// trigram says that it needs the extension pg_trgm.
	trigram bool
}

// definition is what a read model's file says.
type definition[R any] struct {
	name   string
	number int
	// only are those of the event types known to this program that the rows
	// depend on; nil for all. An event of a type unknown to it, or a schema,
	// stops the rows of its stream in any case.
	only []string
	// opens are the types whose sealed part the rows depend on. What is not
	// needed stays sealed.
	opens []string
	// ours tells the streams that have rows here.
	ours func(stream string) bool
	// columns begin with the stream's id; one is "slice".
	columns []column[R]
	// key is the primary key. With the stream's id alone there is one row a
	// stream.
	key     string
	indexes []index
	// split is in how many ranges of slices the work may be divided: a divisor
	// of 64, so that no chunk of a rebuild and no part of a counter is in two.
	// More than one demands that no row depends on two streams.
	split int
	// fold returns a stream's rows after its next event. It may change rows in
	// place.
	fold func(rows []R, ev *eventstore.Event, e domain.Event) ([]R, error)
	// count, when set, has the rows counted by what it returns.
	count func(*R) (org string, state int16, slice int16)
}

// model is a definition with the SQL that follows from it.
type model[R any] struct {
	definition[R]
	ignored []string            // all types but only, if there are those
	idle    map[string]struct{} // of ignored
	unseal  map[string]struct{} // of opens
	single  bool
	names   string // all columns, for lists
	// keyColumns are the indexes of the primary key's columns.
	keyColumns []int
}

func define[R any](d definition[R]) *model[R] {
	m := &model[R]{definition: d, unseal: set(d.opens), single: d.key == d.columns[0].name}
	if d.only != nil {
		only := set(d.only)
		for _, typ := range domain.EventTypes() {
			if _, ok := only[typ]; !ok {
				m.ignored = append(m.ignored, typ)
			}
		}
		slices.Sort(m.ignored)
		m.idle = set(m.ignored)
	}
	list := make([]string, len(d.columns))
	keys := strings.Split(d.key, ", ")
	for i := range d.columns {
		list[i] = d.columns[i].name
		if slices.Contains(keys, list[i]) {
			m.keyColumns = append(m.keyColumns, i)
		}
	}
	m.names = strings.Join(list, ", ")
	return m
}

func set(list []string) map[string]struct{} {
	s := make(map[string]struct{}, len(list))
	for _, v := range list {
		s[v] = struct{}{}
	}
	return s
}

func (m *model[R]) Name() string      { return m.name }
func (m *model[R]) Definition() int   { return m.number }
func (m *model[R]) ignores() []string { return m.ignored }
func (m *model[R]) ranges() int       { return m.split }

func (m *model[R]) Columns() []ColumnInfo {
	info := make([]ColumnInfo, len(m.columns))
	for i := range m.columns {
		info[i] = ColumnInfo{Name: m.columns[i].name, Personal: m.columns[i].personal}
	}
	return info
}

func (m *model[R]) concerns(typ string) (events, sealed bool) {
	_, idle := m.idle[typ]
	events = !idle
	_, sealed = m.unseal[typ]
	return events, events && sealed
}

func (m *model[R]) unsealed() []string {
	types := slices.Sorted(maps.Keys(m.unseal))
	if types == nil {
		return []string{} // none, and not all
	}
	return types
}

func (m *model[R]) table(version int) string {
	return fmt.Sprintf("%s.%s_v%d", Schema, m.name, version)
}

func (m *model[R]) countTable(version int) string { return m.table(version) + "_counts" }

func (m *model[R]) tables(version int) []string {
	if m.count == nil {
		return []string{m.table(version)}
	}
	return []string{m.table(version), m.countTable(version)}
}

func (m *model[R]) create(version int) []string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", m.table(version))
	for i := range m.columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s NOT NULL", m.columns[i].name, kinds[m.columns[i].kind].ddl)
	}
	b.WriteString(") WITH (fillfactor = 90)")
	ddl := []string{b.String()}
	if m.count != nil {
		// Counters are split by slice, so that chunks of a rebuild do not wait
		// for each other.
		ddl = append(ddl, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s (org text COLLATE "C" NOT NULL, state smallint NOT NULL,
			shard smallint NOT NULL, n bigint NOT NULL, PRIMARY KEY (org, state, shard)) WITH (fillfactor = 50)`, m.countTable(version)))
	}
	return ddl
}

func (m *model[R]) index(version int, trigram bool) []string {
	// A primary key is an index and a NOT NULL, and CREATE INDEX can say IF
	// NOT EXISTS, which a step that may be repeated after a crash needs.
	ddl := []string{fmt.Sprintf("CREATE UNIQUE INDEX IF NOT EXISTS %s_v%d_key ON %s (%s)", m.name, version, m.table(version), m.key)}
	for _, x := range m.indexes {
		if x.trigram && !trigram {
			continue
		}
		ddl = append(ddl, fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s_v%d_%s ON %s %s", m.name, version, x.suffix, m.table(version), x.on))
	}
	return ddl
}

// state is what a run of facts makes of one stream.
type state[R any] struct {
	stream       string
	before, rows []R
	last         *eventstore.Event
	failed       bool
}

// step folds one fact into rows. A panic of the fold is an error like others.
// On error the rows come back as they were.
func (m *model[R]) step(rows, scratch []R, f *fact) (after, spare []R, err error) {
	if f.err != nil {
		return rows, scratch, f.err
	}
	scratch = append(scratch[:0], rows...)
	defer func() {
		if recover() != nil { // what was thrown may hold a value
			err = errPanic
		}
		if err != nil {
			rows = append(rows[:0], scratch...)
			after = rows
		}
		spare = scratch
	}()
	after, err = m.fold(rows, f.ev, f.e)
	return after, scratch, err
}

var errPanic = errors.New("panic while folding")

// apply implements Model.
func (m *model[R]) apply(ctx context.Context, conn *pgconn.PgConn, version int, facts []fact, skip map[string]bool, isolate bool) ([]failure, error) {
	states := make([]*state[R], 0, len(facts)/3+1)
	byStream := make(map[string]*state[R], len(facts)/3+1)
	var load []string
	for i := range facts {
		ev := facts[i].ev
		if byStream[ev.Stream] != nil || skip[ev.Stream] || !m.ours(ev.Stream) {
			continue
		}
		st := &state[R]{stream: ev.Stream}
		byStream[ev.Stream] = st
		states = append(states, st)
		if ev.Sequence > 1 { // a stream that begins here has no rows yet
			load = append(load, ev.Stream)
		}
	}
	if len(load) > 0 {
		err := m.load(ctx, conn, version, load, func(r *R) {
			st := byStream[*m.columns[0].text(r)]
			st.before = append(st.before, *r)
		})
		if err != nil {
			return nil, err
		}
	}
	var (
		failures []failure
		scratch  []R
		st       *state[R]
	)
	for i := range facts {
		f := &facts[i]
		if st == nil || st.stream != f.ev.Stream {
			if st = byStream[f.ev.Stream]; st == nil {
				continue
			}
		}
		if st.failed {
			continue
		}
		if st.last == nil {
			st.rows = append(make([]R, 0, max(1, len(st.before))), st.before...)
		}
		st.last = f.ev
		var err error
		if st.rows, scratch, err = m.step(st.rows, scratch, f); err != nil {
			st.failed = true
			failures = append(failures, failed(f.ev, err))
		}
	}
	if !isolate {
		if err := m.write(ctx, conn, version, states); err != nil {
			return nil, err
		}
	} else {
		refused, err := isolated(ctx, conn, states, func(part []*state[R]) error { return m.write(ctx, conn, version, part) })
		if err != nil {
			return nil, err
		}
		for _, r := range refused {
			st := states[r.index]
			failures = append(failures, failed(st.last, r.err))
			st.rows = st.before
		}
	}
	return failures, m.tally(ctx, conn, version, states)
}

// replace implements Model.
func (m *model[R]) replace(ctx context.Context, conn *pgconn.PgConn, version int, stream string, facts []fact) (*failure, error) {
	if !m.ours(stream) {
		return nil, nil
	}
	st := &state[R]{stream: stream}
	var scratch []R
	for i := range facts {
		var err error
		if st.rows, scratch, err = m.step(st.rows, scratch, &facts[i]); err != nil {
			f := failed(facts[i].ev, err)
			return &f, nil
		}
		st.last = facts[i].ev
	}
	if err := m.load(ctx, conn, version, []string{stream}, func(r *R) { st.before = append(st.before, *r) }); err != nil {
		return nil, err
	}
	states := []*state[R]{st}
	refused, err := isolated(ctx, conn, states, func(part []*state[R]) error { return m.write(ctx, conn, version, part) })
	if err != nil {
		return nil, err
	}
	if len(refused) > 0 {
		f := failed(st.last, refused[0].err)
		return &f, nil
	}
	return nil, m.tally(ctx, conn, version, states)
}

func failed(ev *eventstore.Event, err error) failure {
	return failure{stream: ev.Stream, sequence: ev.Sequence, position: int64(ev.Position), class: classOf(err)}
}

// classOf describes an error without any value of an event: the database's
// messages may quote one, so only its code is kept.
func classOf(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return "the database refused the row: SQLSTATE " + pg.Code
	}
	return err.Error()
}

// refusesData reports whether the database objected to a value, and not to
// the statement or to its own state: data exceptions, broken constraints and
// exceeded limits.
func refusesData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && len(pg.Code) == 5 &&
		(pg.Code[:2] == "22" || pg.Code[:2] == "23" || pg.Code[:2] == "54")
}

type refusal struct {
	index int
	err   error
}

// isolated does work on all items, and when the database refuses a value looks
// for the items that hold it: half by half, so one bad item among n costs
// about log n attempts. It tells which items were refused.
func isolated[T any](ctx context.Context, conn *pgconn.PgConn, items []T, work func([]T) error) ([]refusal, error) {
	var refused []refusal
	var try func(from, to int) error
	try = func(from, to int) error {
		if from == to {
			return nil
		}
		if err := exec(ctx, conn, "SAVEPOINT part"); err != nil {
			return err
		}
		err := work(items[from:to])
		if err == nil {
			return exec(ctx, conn, "RELEASE SAVEPOINT part")
		}
		if !refusesData(err) {
			return err
		}
		if rollback := exec(ctx, conn, "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"); rollback != nil {
			return rollback
		}
		if to-from == 1 {
			refused = append(refused, refusal{from, err})
			return nil
		}
		middle := (from + to) / 2
		if err := try(from, middle); err != nil {
			return err
		}
		return try(middle, to)
	}
	err := try(0, len(items))
	return refused, err
}

// load calls each with the rows of some streams.
func (m *model[R]) load(ctx context.Context, conn *pgconn.PgConn, version int, streams []string, each func(*R)) error {
	a := newArray(pgtype.TextOID, 32*len(streams))
	for _, s := range streams {
		a.text(s)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s = ANY ($1::text[])", m.names, m.table(version), m.columns[0].name)
	rows := conn.ExecParams(ctx, sql, [][]byte{a.bytes()}, []uint32{pgtype.TextArrayOID}, []int16{1}, []int16{1})
	for rows.NextRow() {
		var r R
		m.decode(rows.Values(), &r)
		each(&r)
	}
	if _, err := rows.Close(); err != nil {
		return fmt.Errorf("projections: reading rows: %w", err)
	}
	return nil
}

func (m *model[R]) decode(values [][]byte, r *R) {
	for i := range m.columns {
		m.columns[i].decode(values[i], r)
	}
}

// write brings the rows of the states from before to after.
func (m *model[R]) write(ctx context.Context, conn *pgconn.PgConn, version int, states []*state[R]) error {
	var (
		insert, update []*R
		remove         []string
	)
	for _, st := range states {
		switch {
		case len(st.before) == 0:
			for i := range st.rows {
				insert = append(insert, &st.rows[i])
			}
		case m.single && len(st.rows) == 1:
			update = append(update, &st.rows[0])
		default:
			remove = append(remove, st.stream)
			for i := range st.rows {
				insert = append(insert, &st.rows[i])
			}
		}
	}
	if len(remove) > 0 {
		a := newArray(pgtype.TextOID, 32*len(remove))
		for _, s := range remove {
			a.text(s)
		}
		sql := fmt.Sprintf("DELETE FROM %s WHERE %s = ANY ($1::text[])", m.table(version), m.columns[0].name)
		if err := execParams(ctx, conn, sql, []uint32{pgtype.TextArrayOID}, a.bytes()); err != nil {
			return err
		}
	}
	if len(update) > 0 {
		if err := m.update(ctx, conn, version, update); err != nil {
			return err
		}
	}
	if len(insert) == 0 {
		return nil
	}
	buf := append(make([]byte, 0, len(insert)*512), copyHeader...)
	for _, r := range insert {
		buf = m.appendRow(buf, r)
	}
	return m.copyIn(ctx, conn, version, append(buf, copyTrailer...))
}

func (m *model[R]) appendRow(buf []byte, r *R) []byte {
	buf = append(buf, byte(len(m.columns)>>8), byte(len(m.columns)))
	for i := range m.columns {
		buf = m.columns[i].encode(buf, r)
	}
	return buf
}

func (m *model[R]) copyIn(ctx context.Context, conn *pgconn.PgConn, version int, stream []byte) error {
	sql := fmt.Sprintf("COPY %s (%s) FROM STDIN BINARY", m.table(version), m.names)
	if _, err := conn.CopyFrom(ctx, bytes.NewReader(stream), sql); err != nil {
		return fmt.Errorf("projections: copying rows: %w", err)
	}
	return nil
}

func (m *model[R]) update(ctx context.Context, conn *pgconn.PgConn, version int, rows []*R) error {
	var set, from strings.Builder
	values := make([][]byte, len(m.columns))
	oids := make([]uint32, len(m.columns))
	for i := range m.columns {
		c := &m.columns[i]
		a := newArray(kinds[c.kind].oid, 24*len(rows))
		for _, r := range rows {
			a.buf = c.encode(a.buf, r)
		}
		a.n = uint32(len(rows)) // #nosec G115 -- some thousand
		values[i] = a.bytes()
		oids[i] = arrayOID(c.kind)
		if i > 0 {
			from.WriteString(", ")
			if i > 1 {
				set.WriteString(", ")
			}
			fmt.Fprintf(&set, "%s = u.%s", c.name, c.name)
		}
		fmt.Fprintf(&from, "$%d", i+1)
	}
	id := m.columns[0].name
	sql := fmt.Sprintf("UPDATE %s t SET %s FROM unnest(%s) AS u (%s) WHERE t.%s = u.%s",
		m.table(version), set.String(), from.String(), m.names, id, id)
	return execParams(ctx, conn, sql, oids, values...)
}

func arrayOID(k kind) uint32 {
	switch k {
	case kindText:
		return pgtype.TextArrayOID
	case kindInt2:
		return pgtype.Int2ArrayOID
	case kindInt8:
		return pgtype.Int8ArrayOID
	case kindBool:
		return pgtype.BoolArrayOID
	default:
		return pgtype.TimestamptzArrayOID
	}
}

// slicesPerShard is how many slices share a part of each counter.
const slicesPerShard = 16

type counter struct {
	org          string
	state, shard int16
}

// tally brings the counters along with the rows.
func (m *model[R]) tally(ctx context.Context, conn *pgconn.PgConn, version int, states []*state[R]) error {
	if m.count == nil {
		return nil
	}
	deltas := make(map[counter]int64)
	for _, st := range states {
		for i := range st.before {
			deltas[m.counterOf(&st.before[i])]--
		}
		for i := range st.rows {
			deltas[m.counterOf(&st.rows[i])]++
		}
	}
	return m.addCounts(ctx, conn, version, deltas)
}

func (m *model[R]) counterOf(r *R) counter {
	org, state, slice := m.count(r)
	return counter{org, state, slice / slicesPerShard}
}

func (m *model[R]) addCounts(ctx context.Context, conn *pgconn.PgConn, version int, deltas map[counter]int64) error {
	list := make([]counter, 0, len(deltas))
	for c, n := range deltas {
		if n != 0 {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil
	}
	sort.Slice(list, func(i, j int) bool { // one order of locking for all
		a, b := list[i], list[j]
		if a.org != b.org {
			return a.org < b.org
		}
		if a.state != b.state {
			return a.state < b.state
		}
		return a.shard < b.shard
	})
	orgs, states := newArray(pgtype.TextOID, 24*len(list)), newArray(pgtype.Int2OID, 6*len(list))
	parts, ns := newArray(pgtype.Int2OID, 6*len(list)), newArray(pgtype.Int8OID, 12*len(list))
	for _, c := range list {
		orgs.text(c.org)
		states.int2(c.state)
		parts.int2(c.shard)
		ns.int8(deltas[c])
	}
	sql := fmt.Sprintf(`INSERT INTO %s AS c (org, state, shard, n) SELECT * FROM unnest($1, $2, $3, $4)
		ON CONFLICT (org, state, shard) DO UPDATE SET n = c.n + excluded.n`, m.countTable(version))
	return execParams(ctx, conn, sql,
		[]uint32{pgtype.TextArrayOID, pgtype.Int2ArrayOID, pgtype.Int2ArrayOID, pgtype.Int8ArrayOID},
		orgs.bytes(), states.bytes(), parts.bytes(), ns.bytes())
}

// bulk fills an empty version, whole streams at a time.
type bulk interface {
	// add folds whole streams and keeps their rows until flush.
	add(facts []fact)
	// size is the number of bytes kept.
	size() int
	// flush writes what is kept.
	flush(ctx context.Context, conn *pgconn.PgConn) error
	// finish writes the counters, after the last flush, and tells the number
	// of rows written and which streams failed.
	finish(ctx context.Context, conn *pgconn.PgConn) (rows int64, failures []failure, err error)
}

// filling implements bulk.
type filling[R any] struct {
	m        *model[R]
	version  int
	buf      []byte // encoded rows
	marks    []spot // where each stream's rows are in buf
	frame    []byte // what goes over the wire in one COPY
	counts   map[counter]int64
	written  int64
	failures []failure
}

type spot struct {
	last     *eventstore.Event // where the stream's last event is; no payload
	from, to int
	rows     int
	counts   []counter
}

func (m *model[R]) bulk(version int) bulk {
	return &filling[R]{m: m, version: version, counts: make(map[counter]int64)}
}

func (f *filling[R]) size() int { return len(f.buf) }

func (f *filling[R]) add(facts []fact) {
	var rows, scratch []R
	for i := 0; i < len(facts); {
		stream := facts[i].ev.Stream
		end := i + 1
		for end < len(facts) && facts[end].ev.Stream == stream {
			end++
		}
		if f.m.ours(stream) {
			rows = rows[:0]
			for j := i; j < end; j++ {
				var err error
				if rows, scratch, err = f.m.step(rows, scratch, &facts[j]); err != nil {
					f.failures = append(f.failures, failed(facts[j].ev, err))
					break
				}
			}
			f.keep(facts[end-1].ev, rows)
		}
		i = end
	}
}

func (f *filling[R]) keep(last *eventstore.Event, rows []R) {
	if len(rows) == 0 {
		return
	}
	// The event's payloads are not needed any more; its place is.
	k := spot{last: &eventstore.Event{Stream: last.Stream, Sequence: last.Sequence, Position: last.Position}, from: len(f.buf), rows: len(rows)}
	for i := range rows {
		f.buf = f.m.appendRow(f.buf, &rows[i])
		if f.m.count != nil {
			k.counts = append(k.counts, f.m.counterOf(&rows[i]))
		}
	}
	k.to = len(f.buf)
	f.marks = append(f.marks, k)
}

func (f *filling[R]) flush(ctx context.Context, conn *pgconn.PgConn) error {
	refused, err := isolated(ctx, conn, f.marks, func(part []spot) error {
		if len(part) == 0 {
			return nil
		}
		f.frame = append(f.frame[:0], copyHeader...)
		f.frame = append(append(f.frame, f.buf[part[0].from:part[len(part)-1].to]...), copyTrailer...)
		return f.m.copyIn(ctx, conn, f.version, f.frame)
	})
	if err != nil {
		return err
	}
	for _, r := range refused {
		f.failures = append(f.failures, failed(f.marks[r.index].last, r.err))
		f.marks[r.index].rows, f.marks[r.index].counts = 0, nil
	}
	for i := range f.marks {
		f.written += int64(f.marks[i].rows)
		for _, c := range f.marks[i].counts {
			f.counts[c]++
		}
	}
	f.buf, f.marks = f.buf[:0], f.marks[:0]
	return nil
}

func (f *filling[R]) finish(ctx context.Context, conn *pgconn.PgConn) (int64, []failure, error) {
	if err := f.flush(ctx, conn); err != nil {
		return 0, nil, err
	}
	return f.written, f.failures, f.m.addCounts(ctx, conn, f.version, f.counts)
}

// exec runs statements without parameters.
func exec(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("projections: %w", err)
	}
	return nil
}

// execParams runs a statement with parameters in binary form.
func execParams(ctx context.Context, conn *pgconn.PgConn, sql string, oids []uint32, values ...[]byte) error {
	formats := make([]int16, len(values))
	for i := range formats {
		formats[i] = 1
	}
	if _, err := conn.ExecParams(ctx, sql, values, oids, formats, nil).Close(); err != nil {
		return fmt.Errorf("projections: writing rows: %w", err)
	}
	return nil
}
