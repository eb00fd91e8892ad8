package eventstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// A flush is one transaction in two round trips, or in one when it is expected
// to go through as it is (see flush.hopeful); what is sent up to one Sync is a
// transaction by itself, without BEGIN and COMMIT.
//
// The first takes the locks, always in this order: stream heads, ascending,
// then claims, ascending. With its answers each request is judged by itself.
// The second writes what survived and, last of all, binds positions:
//
//	release claims → streams → events → idempotency keys → the log's lock → batch row → commit
//
// The log's lock is taken in a statement of its own, before the one that reads
// the last batch, and is held until the commit is on disk. Therefore whoever
// sees a batch sees all batches below it: bases are handed out in the order of
// the commits, and no commit can be under way below one that is visible. That
// holds whatever other transactions do, since no reader waits for any of them.
//
// No flush can wait for another in a circle: the classes of locks are taken in
// a fixed order and each class in ascending order, and claims are released
// after all claims are taken, when nothing but the log's lock is still to come.

// lane is one committing connection. It belongs to its goroutine.
type lane struct {
	store *Store
	conn  *pgx.Conn // nil when it has to be opened (again)
	stmts [numStatements]*pgconn.StatementDescription

	nextBatch, lastBatch int64 // the block of batch ids at hand
	wary                 int   // flushes to go before hoping again
}

// waryFor is for how many flushes a lane judges first, after one that hoped in
// vain: a stretch of conflicts, as of an import that is done again, costs one
// repetition in so many.
const waryFor = 50

const (
	stBegin = iota
	stNextBatches
	stInsertClaims
	stLockStreams
	stTakeClaims
	stFindClaims
	stFindRepeats
	stReassignClaims
	stReleaseClaims
	stInsertStreams
	stAdvanceStreams
	stInsertEvents
	stInsertRepeats
	stNotifyErased
	stLockLog
	stBindBatch
	stCommit
	numStatements
)

var statements = [numStatements]*string{
	stBegin:          ptr("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
	stNextBatches:    ptr("SELECT nextval('batch_ids')"),
	stInsertClaims:   &sqlInsertClaims,
	stLockStreams:    &sqlLockStreams,
	stTakeClaims:     &sqlTakeClaims,
	stFindClaims:     &sqlFindClaims,
	stFindRepeats:    &sqlFindRepeats,
	stReassignClaims: &sqlReassignClaims,
	stReleaseClaims:  &sqlReleaseClaims,
	stInsertStreams:  &sqlInsertStreams,
	stAdvanceStreams: &sqlAdvanceStreams,
	stInsertEvents:   &sqlInsertEvents,
	stInsertRepeats:  &sqlInsertRepeats,
	stNotifyErased:   ptr("SELECT pg_notify('" + channelErased + "', stream) FROM unnest($1::text[]) AS t (stream)"),
	stLockLog:        &sqlLockLog,
	stBindBatch:      &sqlBindBatch,
	stCommit:         ptr("COMMIT"),
}

func ptr(s string) *string { return &s }

// run commits until the committer has closed and its queue is empty, or until
// ctx ends.
func (l *lane) run(ctx context.Context, c *committer) {
	defer l.disconnect()
	for {
		batch := c.next()
		if batch == nil {
			return
		}
		l.commit(ctx, batch)
	}
}

// commit sees batch through: when it returns, every pending in it has its
// answer.
func (l *lane) commit(ctx context.Context, batch []*pending) {
	f := &flush{lane: l, hopeful: l.wary == 0}
	l.wary = max(0, l.wary-1)
	backoff := minBackoff
	for conflicts := 0; ; {
		batch = live(batch)
		if len(batch) == 0 {
			return
		}
		f.committing = false
		err := l.ready(ctx)
		if err == nil {
			f.reset(batch)
			err = f.run(ctx)
		}
		if err == nil {
			f.answer()
			return
		}
		lost := f.committing && (l.conn == nil || l.conn.IsClosed())
		if ctx.Err() != nil {
			if lost {
				fail(batch, errCutOff)
			} else {
				fail(batch, fmt.Errorf("%w: closing", ErrUnavailable))
			}
			return
		}

		if lost {
			// The commit was sent and its answer is lost. The truth is in the
			// database; until it is known nobody gets an answer.
			base, landed, err := l.findOut(ctx, f.batch)
			if err != nil {
				fail(batch, errCutOff)
				return
			}
			if landed {
				f.base = base
				f.answer()
				return
			}
			continue
		}

		var pg *pgconn.PgError
		switch {
		case l.conn == nil || l.conn.IsClosed():
			l.store.cfg.Log.Warn("a committing connection is lost", "error", err)
			backoff = pause(ctx, backoff)
		case !errors.As(err, &pg):
			l.disconnect()
			backoff = pause(ctx, backoff)
		case f.careful && conflicts > 20:
			fail(batch, fmt.Errorf("%w: %w", ErrUnavailable, err))
			return
		case f.hopeful && pg.Code == "23505":
			f.hopeful = false
			l.wary = waryFor
			l.rollback(ctx)
		case strings.HasPrefix(pg.Code, "40"), pg.Code == "23505":
			// Deadlock with something foreign, or a stream or an idempotency
			// key that came into being meanwhile: judge again, looking up
			// every stream.
			f.careful = true
			conflicts++
			l.rollback(ctx)
		case strings.HasPrefix(pg.Code, "22"), strings.HasPrefix(pg.Code, "23"), strings.HasPrefix(pg.Code, "54"):
			// A value that the database refuses, which check did not foresee.
			// It must not take its neighbours with it.
			l.rollback(ctx)
			if len(batch) > 1 {
				l.commit(ctx, batch[:len(batch)/2])
				l.commit(ctx, batch[len(batch)/2:])
				return
			}
			fail(batch, fmt.Errorf("%w: refused by the database: %w", ErrInvalidAppend, err))
			return
		case pg.Code == "25006", strings.HasPrefix(pg.Code, "57"):
			// Read-only (a demoted primary) or shutting down: another
			// connection may find a better server.
			l.disconnect()
			backoff = pause(ctx, backoff)
		default:
			l.store.cfg.Log.Error("a flush failed", "code", pg.Code, "error", pg.Message)
			l.disconnect()
			fail(batch, fmt.Errorf("%w: %w", ErrUnavailable, err))
			return
		}
	}
}

// errCutOff says that the store was closed before the outcome of a commit was
// known. It is not ErrUnavailable, which promises that nothing was appended.
var errCutOff = fmt.Errorf("eventstore: the store was closed during the commit: %w", context.Canceled)

// live drops the appends whose callers have gone.
func live(batch []*pending) []*pending {
	return slices.DeleteFunc(batch, func(p *pending) bool {
		err := p.ctx.Err()
		if err != nil {
			p.done <- Outcome{Err: fmt.Errorf("%w: not begun: %w", ErrUnavailable, err)}
		}
		return err != nil
	})
}

func fail(batch []*pending, err error) {
	for _, p := range batch {
		p.done <- Outcome{Err: err}
	}
}

// ready makes sure that the lane has a connection with its statements prepared.
func (l *lane) ready(ctx context.Context) error {
	if l.conn != nil && !l.conn.IsClosed() {
		return l.number(ctx)
	}
	l.conn = nil
	connCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := l.store.connect(connCtx)
	if err != nil {
		return err
	}
	// A process that is stopped in mid-flush must not hold locks for ever. The
	// rest is for transactions that no BEGIN begins.
	if _, err = conn.Exec(connCtx, "SET idle_in_transaction_session_timeout = '10s'; "+
		"SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off"); err == nil {
		err = l.store.identify(connCtx, conn)
	}
	for i, sql := range statements {
		if err != nil {
			break
		}
		l.stmts[i], err = conn.PgConn().Prepare(connCtx, fmt.Sprintf("muster_%d", i), *sql, nil)
	}
	if err != nil {
		conn.Close(connCtx)
		return err
	}
	l.conn = conn
	return l.number(ctx)
}

// number makes sure that the lane has a batch id for the next flush.
func (l *lane) number(ctx context.Context) error {
	if l.nextBatch < l.lastBatch {
		return nil
	}
	res := l.conn.PgConn().ExecStatement(ctx, l.stmts[stNextBatches], nil, nil, binary1).Read()
	if res.Err != nil {
		return fmt.Errorf("eventstore: taking batch ids: %w", res.Err)
	}
	l.nextBatch = readInt8(res.Rows[0][0])
	l.lastBatch = l.nextBatch + batchIDs
	return nil
}

// batchIDs is the increment of the sequence of batch ids.
const batchIDs = 1000

// rollback ends the transaction, if there is one.
func (l *lane) rollback(ctx context.Context) {
	if l.conn.PgConn().TxStatus() == 'I' {
		return
	}
	if _, err := l.conn.Exec(ctx, "ROLLBACK"); err != nil {
		l.disconnect()
	}
}

func (l *lane) disconnect() {
	if l.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		l.conn.Close(ctx)
		l.conn = nil
	}
}

// findOut learns whether a batch landed. It takes the log's lock, so a
// committer that is still at work has either bound the batch before, which is
// then visible, or will find it abandoned when it gets to bind it. An error
// means that ctx has ended.
func (l *lane) findOut(ctx context.Context, batch int64) (base int64, landed bool, err error) {
	for backoff := minBackoff; ctx.Err() == nil; backoff = pause(ctx, backoff) {
		if err = l.ready(ctx); err != nil {
			continue
		}
		err = pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sqlLockLog); err != nil {
				return err
			}
			err := tx.QueryRow(ctx, `SELECT base FROM batches WHERE id = $1`, batch).Scan(&base)
			if !errors.Is(err, pgx.ErrNoRows) {
				landed = err == nil
				return err
			}
			_, err = tx.Exec(ctx, `INSERT INTO abandoned_batches (id) VALUES ($1) ON CONFLICT DO NOTHING`, batch)
			return err
		})
		if err == nil {
			l.store.cfg.Log.Warn("a connection broke during a commit", "batch", batch, "landed", landed)
			return base, landed, nil
		}
		l.store.cfg.Log.Warn("finding out whether a batch landed", "batch", batch, "error", err)
		l.disconnect()
	}
	return 0, false, ctx.Err()
}

// flush is the state of one transaction. It is used again when the transaction
// has to be repeated.
type flush struct {
	lane *lane
	// hopeful flushes go in one round trip: nothing is looked up, and the
	// requests are judged as if no claim were taken and no stream there. When
	// that is not so, a unique violation undoes all of it, and the flush is
	// done again with its eyes open.
	hopeful    bool
	careful    bool // look up every stream, also those that should be new
	committing bool // the last round trip has been sent

	batch    int64
	requests []request
	heads    map[string]*head
	order    []*head // the values of heads, by stream
	claims   map[claimHash]*claim
	repeats  map[claimHash]*repeat
	events   int
	base     int64
}

// request is one append within a flush, and its verdict.
type request struct {
	*pending
	err    error
	result Result
	first  int // index of its first event in the batch; -1 when it has none
	same   int // index of the request in this flush that it repeats; -1 for none
}

// head is a stream's state as the flush goes along.
type head struct {
	stream   string
	looked   bool // read and locked in the database
	exists   bool // there, before this flush
	sequence int64
	erased   bool
	touched  bool
	erase    bool
	creator  *pending // whose fresh key the stream begins with
}

// claim is a claim's state as the flush goes along.
type claim struct {
	hash     claimHash
	wanter   string // the stream that the row was inserted for
	inserted bool   // by this transaction
	row      string // the stream in the claim's row, before the flush's requests; "" when not looked up
	owner    string // "" while nobody has it
	given    bool   // given up by the request that had it
}

type repeat struct {
	request claimHash
	result  Result
	at      int // index of the request in this flush that appends it; -1: committed before
}

func (f *flush) reset(batch []*pending) {
	f.committing, f.base, f.events = false, 0, 0
	f.batch = f.lane.nextBatch
	f.lane.nextBatch++
	f.requests = make([]request, len(batch))
	f.heads = make(map[string]*head, len(batch))
	f.order = f.order[:0]
	f.claims, f.repeats = nil, nil
	for i, p := range batch {
		f.requests[i] = request{pending: p, first: -1, same: -1}
		h := f.heads[p.a.Stream]
		if h == nil {
			h = &head{stream: p.a.Stream}
			f.heads[p.a.Stream] = h
			f.order = append(f.order, h)
		}
		h.looked = h.looked || f.careful || p.a.Expected != NoStream
		if h.looked || p.release != nil {
			f.hopeful = false
		}
		for _, hash := range p.take {
			if f.claims == nil {
				f.claims = make(map[claimHash]*claim, len(batch))
			}
			if f.claims[hash] == nil {
				f.claims[hash] = &claim{hash: hash, wanter: p.a.Stream}
			}
		}
		if p.a.Idempotency != nil && f.repeats == nil {
			f.repeats = make(map[claimHash]*repeat)
		}
	}
	slices.SortFunc(f.order, func(a, b *head) int { return strings.Compare(a.stream, b.stream) })
}

// run does the transaction. When it fails, the transaction is still open,
// unless the connection is closed.
func (f *flush) run(ctx context.Context) error {
	p := f.lane.conn.PgConn().StartPipeline(ctx)
	var err error
	if f.hopeful {
		for _, c := range f.claims {
			c.inserted = true // as it will turn out
		}
	} else {
		err = f.stage(p)
	}
	if err == nil {
		f.judge()
		switch {
		case f.events > 0:
			err = f.write(p)
		case !f.hopeful: // a hopeful one has begun no transaction yet
			err = f.leave(p)
		}
	}
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	return err
}

// binary are the result formats of every statement.
var binary1 = []int16{1}

func (f *flush) send(p *pgconn.Pipeline, stmt int, params ...[]byte) {
	var formats []int16
	if len(params) > 0 {
		formats = binary1
	}
	p.SendQueryStatement(f.lane.stmts[stmt], params, formats, binary1)
}

// rows reads the answer to one statement.
func rows(p *pgconn.Pipeline, each func(v [][]byte)) error {
	res, err := p.GetResults()
	if err != nil {
		return err
	}
	rr, ok := res.(*pgconn.ResultReader)
	if !ok {
		return fmt.Errorf("eventstore: unexpected answer %T in a pipeline", res)
	}
	for rr.NextRow() {
		if each != nil {
			each(rr.Values())
		}
	}
	_, err = rr.Close()
	return err
}

func synced(p *pgconn.Pipeline) error {
	res, err := p.GetResults()
	if err != nil {
		return err
	}
	if _, ok := res.(*pgconn.PipelineSync); !ok {
		return fmt.Errorf("eventstore: unexpected answer %T at the end of a pipeline", res)
	}
	return nil
}

// stage is the first round trip: locks, and what is needed to judge.
func (f *flush) stage(p *pgconn.Pipeline) error {
	var (
		lookUp  []string
		take    []ownedClaim
		owners  []claimHash
		repeats []claimHash
		// What one request gives up a later one may take.
		releasing = slices.ContainsFunc(f.requests, func(r request) bool { return r.release != nil })
	)
	for _, h := range f.order {
		if h.looked {
			lookUp = append(lookUp, h.stream)
		}
	}
	for _, c := range f.claims {
		take = append(take, ownedClaim{c.hash, c.wanter})
	}
	for i := range f.requests {
		r := &f.requests[i]
		if r.a.Idempotency != nil {
			repeats = append(repeats, r.key)
		}
		if releasing || f.heads[r.a.Stream].looked {
			owners = append(owners, r.take...) // it may own them already
		}
	}

	f.send(p, stBegin)
	if lookUp != nil {
		f.send(p, stLockStreams, textArray(lookUp))
	}
	if take != nil {
		hashes, streams := claimArrays(take)
		f.send(p, stTakeClaims, hashes, streams)
	}
	if owners != nil {
		f.send(p, stFindClaims, hashArray(owners))
	}
	// After the locks: whoever waited for a flush with the same key sees it here.
	if repeats != nil {
		f.send(p, stFindRepeats, hashArray(repeats))
	}
	if err := p.Sync(); err != nil {
		return err
	}

	if err := rows(p, nil); err != nil { // BEGIN
		return err
	}
	if lookUp != nil {
		if err := rows(p, func(v [][]byte) {
			h := f.heads[string(v[0])]
			h.exists, h.sequence, h.erased = true, readInt8(v[1]), v[2][0] == 1
		}); err != nil {
			return err
		}
	}
	if take != nil {
		if err := rows(p, func(v [][]byte) {
			c := f.claims[claimHash(v[0])]
			c.inserted, c.row = true, c.wanter
		}); err != nil {
			return err
		}
	}
	if owners != nil {
		if err := rows(p, func(v [][]byte) {
			if c := f.claims[claimHash(v[0])]; !c.inserted {
				c.row = string(v[1])
				c.owner = c.row
			}
		}); err != nil {
			return err
		}
	}
	if repeats != nil {
		epochs := *f.lane.store.epochs.Load()
		if err := rows(p, func(v [][]byte) {
			pos := Position(readInt8(v[5]))
			f.repeats[claimHash(v[0])] = &repeat{request: claimHash(v[1]), at: -1, result: Result{
				Stream: string(v[2]), First: readInt8(v[3]), Last: readInt8(v[4]),
				Position: pos, Epoch: epochOf(epochs, pos), At: fromMicroseconds(readInt8(v[6])), Repeated: true,
			}}
		}); err != nil {
			return err
		}
	}
	return synced(p)
}

// judge decides each request in turn, as if it were alone and the ones before
// it had been committed.
func (f *flush) judge() {
	for i := range f.requests {
		r := &f.requests[i]
		if r.err = f.judgeOne(r); r.err != nil || r.first < 0 {
			continue
		}
		h := f.heads[r.a.Stream]
		if !h.exists && h.creator == nil {
			h.creator = r.pending
		}
		r.result = Result{Stream: r.a.Stream, First: h.sequence + 1, Last: h.sequence + int64(len(r.a.Events)), At: r.at}
		h.sequence, h.touched = r.result.Last, true
		if r.a.Erase {
			h.erase, h.erased = true, true
		}
		for _, hash := range r.release {
			if c := f.claims[hash]; c != nil && c.owner == r.a.Stream {
				c.owner, c.given = "", true
			}
		}
		for _, hash := range r.take {
			f.claims[hash].owner = r.a.Stream
		}
		if r.a.Idempotency != nil {
			f.repeats[r.key] = &repeat{request: r.request, at: i}
		}
		f.events += len(r.a.Events)
	}
}

// judgeOne returns why the request fails, if it does. For one that appends it
// sets first; for one that repeats another it sets the result or same.
func (f *flush) judgeOne(r *request) error {
	if r.a.Idempotency != nil {
		if earlier := f.repeats[r.key]; earlier != nil {
			if earlier.request != r.request {
				return ErrIdempotencyMismatch
			}
			if earlier.at >= 0 {
				r.same = earlier.at
			} else {
				r.result = earlier.result
			}
			return nil
		}
	}
	h := f.heads[r.a.Stream]
	there := h.exists || h.creator != nil
	if r.a.Expected != Any && int64(r.a.Expected) != h.sequence {
		return &SequenceError{Stream: r.a.Stream, Expected: r.a.Expected, Actual: h.sequence}
	}
	// What was sealed must have been sealed with the key that the stream has.
	if (r.fresh != nil) == there {
		return errStale
	}
	for _, sealed := range r.sealed {
		if sealed != nil && (h.erased || len(sealed) == 0) {
			return ErrErased
		}
	}
	for k, hash := range r.take {
		c := f.claims[hash]
		free := (c.inserted || c.given) && c.owner == ""
		if !free && c.owner != r.a.Stream {
			return &ConflictError{Claim: r.a.Take[k]}
		}
	}
	r.first = f.events
	return nil
}

// leave ends a transaction in which no request has survived.
func (f *flush) leave(p *pgconn.Pipeline) error {
	p.SendQueryParams("ROLLBACK", nil, nil, nil, nil)
	if err := p.Sync(); err != nil {
		return err
	}
	if err := rows(p, nil); err != nil {
		return err
	}
	return synced(p)
}

// write is the second round trip: the facts, the positions, the commit.
func (f *flush) write(p *pgconn.Pipeline) error {
	sent := 0
	send := func(stmt int, params ...[]byte) {
		f.send(p, stmt, params...)
		sent++
	}
	if f.hopeful {
		f.sendHopefulClaims(send)
	} else {
		f.sendClaims(send)
	}
	f.sendStreams(send)
	f.sendEvents(send)
	f.sendRepeats(send)
	send(stLockLog)
	beforeBind := sent
	send(stBindBatch, int4Param(int32(f.events)), int8Param(f.batch))
	if !f.hopeful {
		send(stCommit)
	}
	f.committing = true
	if err := p.Sync(); err != nil {
		return err
	}
	for i := range sent {
		err := rows(p, func(v [][]byte) {
			if i == beforeBind {
				f.base = readInt8(v[0])
			}
		})
		if err != nil {
			return err
		}
	}
	return synced(p)
}

// sendHopefulClaims takes the claims of the requests that go through.
func (f *flush) sendHopefulClaims(send func(int, ...[]byte)) {
	var list []ownedClaim
	for _, c := range f.claims {
		if c.owner != "" {
			list = append(list, ownedClaim{c.hash, c.owner})
		}
	}
	if list != nil {
		hashes, streams := claimArrays(list)
		send(stInsertClaims, hashes, streams)
	}
}

// ownedClaim is a claim and the stream that gets it or gives it up.
type ownedClaim struct {
	hash   claimHash
	stream string
}

// claimArrays returns the two columns of claims, in ascending order.
func claimArrays(list []ownedClaim) (hashes, streams []byte) {
	slices.SortFunc(list, func(a, b ownedClaim) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	h, s := newArray(pgtype.ByteaOID, 36*len(list)), newArray(pgtype.TextOID, 32*len(list))
	for i := range list {
		h.blob(list[i].hash[:])
		s.text(list[i].stream)
	}
	return h.bytes(), s.bytes()
}

// sendClaims settles the claims: those that this flush took for a request that
// failed, or that a request gave up, pass to who has them in the end or go.
func (f *flush) sendClaims(send func(int, ...[]byte)) {
	var passed, gone []ownedClaim
	for _, c := range f.claims {
		switch {
		case c.row == "" || c.owner == c.row:
		case c.owner == "":
			gone = append(gone, ownedClaim{c.hash, c.row})
		default:
			passed = append(passed, ownedClaim{c.hash, c.owner})
		}
	}
	for i := range f.requests {
		r := &f.requests[i]
		if r.first < 0 {
			continue
		}
		for _, hash := range r.release {
			if f.claims[hash] == nil {
				gone = append(gone, ownedClaim{hash, r.a.Stream})
			}
		}
	}
	if passed != nil {
		hashes, streams := claimArrays(passed)
		send(stReassignClaims, hashes, streams)
	}
	if gone != nil {
		hashes, streams := claimArrays(gone)
		send(stReleaseClaims, hashes, streams)
	}
}

func (f *flush) sendStreams(send func(int, ...[]byte)) {
	var added, moved []*head
	var erased []string
	for _, h := range f.order {
		switch {
		case !h.touched:
			continue
		case h.exists:
			moved = append(moved, h)
		default:
			added = append(added, h)
		}
		if h.erase {
			erased = append(erased, h.stream)
		}
	}
	if added != nil {
		n := len(added)
		stream, slice, org := newArray(pgtype.TextOID, 32*n), newArray(pgtype.Int2OID, 6*n), newArray(pgtype.TextOID, 32*n)
		seq, kek, key := newArray(pgtype.Int8OID, 12*n), newArray(pgtype.TextOID, 8*n), newArray(pgtype.ByteaOID, 68*n)
		for _, h := range added {
			stream.text(h.stream)
			slice.int2(h.creator.slice)
			org.text(h.creator.a.Org)
			seq.int8(h.sequence)
			if h.erase {
				kek.null()
				key.null()
			} else {
				kek.text(h.creator.kek)
				key.blob(h.creator.wrapped)
			}
		}
		send(stInsertStreams, stream.bytes(), slice.bytes(), org.bytes(), seq.bytes(), kek.bytes(), key.bytes())
	}
	if moved != nil {
		n := len(moved)
		stream, seq, erase := newArray(pgtype.TextOID, 32*n), newArray(pgtype.Int8OID, 12*n), newArray(pgtype.BoolOID, 5*n)
		for _, h := range moved {
			stream.text(h.stream)
			seq.int8(h.sequence)
			erase.bool(h.erase)
		}
		send(stAdvanceStreams, stream.bytes(), seq.bytes(), erase.bytes())
	}
	if erased != nil {
		send(stNotifyErased, textArray(erased))
	}
}

func (f *flush) sendEvents(send func(int, ...[]byte)) {
	n := f.events
	var payload, sealedSize int
	for i := range f.requests {
		if r := &f.requests[i]; r.first >= 0 {
			for k := range r.a.Events {
				payload += 4 + len(r.a.Events[k].Data)
				sealedSize += 4 + len(r.sealed[k])
			}
		}
	}
	idx, slice, stream := newArray(pgtype.Int4OID, 8*n), newArray(pgtype.Int2OID, 6*n), newArray(pgtype.TextOID, 30*n)
	seq, id, typ := newArray(pgtype.Int8OID, 12*n), newArray(pgtype.UUIDOID, 20*n), newArray(pgtype.TextOID, 20*n)
	schema, org, actor := newArray(pgtype.Int2OID, 6*n), newArray(pgtype.TextOID, 30*n), newArray(pgtype.TextOID, 30*n)
	at, data, sealed := newArray(pgtype.TimestamptzOID, 12*n), newArray(pgtype.ByteaOID, payload), newArray(pgtype.ByteaOID, sealedSize)
	for i := range f.requests {
		r := &f.requests[i]
		if r.first < 0 {
			continue
		}
		for k := range r.a.Events {
			e := &r.a.Events[k]
			idx.int4(int32(r.first + k))
			slice.int2(r.slice)
			stream.text(r.a.Stream)
			seq.int8(r.result.First + int64(k))
			id.blob(r.ids[k][:])
			typ.text(e.Type)
			schema.int2(e.Schema)
			org.text(r.a.Org)
			actor.text(r.a.Actor)
			at.time(r.at)
			data.blob(e.Data)
			sealed.blob(r.sealed[k])
		}
	}
	send(stInsertEvents, int8Param(f.batch), idx.bytes(), slice.bytes(), stream.bytes(), seq.bytes(), id.bytes(),
		typ.bytes(), schema.bytes(), org.bytes(), actor.bytes(), at.bytes(), data.bytes(), sealed.bytes())
}

func (f *flush) sendRepeats(send func(int, ...[]byte)) {
	var fresh []*request
	for _, r := range f.repeats {
		if r.at >= 0 {
			fresh = append(fresh, &f.requests[r.at])
		}
	}
	if fresh == nil {
		return
	}
	slices.SortFunc(fresh, func(a, b *request) int { return bytes.Compare(a.key[:], b.key[:]) })
	n := len(fresh)
	key, req, stream := newArray(pgtype.ByteaOID, 36*n), newArray(pgtype.ByteaOID, 36*n), newArray(pgtype.TextOID, 32*n)
	first, last, idx, at := newArray(pgtype.Int8OID, 12*n), newArray(pgtype.Int8OID, 12*n), newArray(pgtype.Int4OID, 8*n), newArray(pgtype.TimestamptzOID, 12*n)
	for _, r := range fresh {
		key.blob(r.key[:])
		req.blob(r.request[:])
		stream.text(r.a.Stream)
		first.int8(r.result.First)
		last.int8(r.result.Last)
		idx.int4(int32(r.first + len(r.a.Events) - 1))
		at.time(r.at)
	}
	send(stInsertRepeats, int8Param(f.batch), key.bytes(), req.bytes(), stream.bytes(), first.bytes(), last.bytes(), idx.bytes(), at.bytes())
}

// answer tells each caller its outcome; the batch is committed, or nothing of
// it was to be.
func (f *flush) answer() {
	s := f.lane.store
	epoch := s.Epoch()
	if f.events > 0 {
		for _, h := range f.order {
			switch {
			case h.erase:
				s.keys.forget(h.stream)
			case h.creator != nil:
				s.keys.put(h.stream, h.creator.fresh)
			}
		}
		s.watch.committed(Position(f.base + int64(f.events) - 1))
	}
	for i := range f.requests {
		r := &f.requests[i]
		if r.first >= 0 {
			r.result.Position = Position(f.base + int64(r.first+len(r.a.Events)-1))
			r.result.Epoch = epoch
		}
	}
	for i := range f.requests {
		r := &f.requests[i]
		if r.same >= 0 {
			r.result = f.requests[r.same].result
			r.result.Repeated = true
		}
		r.done <- Outcome{Result: r.result, Err: r.err}
	}
}
