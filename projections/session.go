package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// errFenced says that the lease, the checkpoint, the epoch or the version's
// state is not what this session believes: somebody else works on it now.
var errFenced = errors.New("projections: the lease has changed hands")

// errBusy says that another instance holds the lease.
var errBusy = errors.New("projections: another instance holds the lease")

// errAstray says that a batch begins beyond a checkpoint: applied there it
// would leave events out.
var errAstray = errors.New("projections: a batch does not join a checkpoint")

// span is a range of slices whose lease a session holds.
type span struct {
	first, last int16
	token       int64
	epoch       int32
	position    eventstore.Position // up to which its rows are
}

// session works on a version: on those ranges of the live one that it holds, or
// on the whole of a candidate. It is used by one goroutine.
type session struct {
	e       *Engine
	m       Model
	version int
	owner   string
	spans   []span // those held, in order of slice
	// of is, by slice, the index of its span, or -1. It follows from spans.
	of [eventstore.Slices]int8
	// The rest is what a candidate's row said when it was acquired.
	token  int64
	bulkTo eventstore.Position
	phase  string
}

// session returns a session that holds nothing yet.
func (e *Engine) session(m Model, version int, owner string) *session {
	s := &session{e: e, m: m, version: version, owner: owner}
	s.settle()
	return s
}

// settle brings what follows from the spans up to date.
func (s *session) settle() {
	slices.SortFunc(s.spans, func(a, b span) int { return int(a.first) - int(b.first) })
	for i := range s.of {
		s.of[i] = -1
	}
	for i := range s.spans {
		for slice := s.spans[i].first; slice <= s.spans[i].last; slice++ {
			s.of[slice] = int8(i) // #nosec G115 -- at most maxRanges
		}
	}
}

// take takes those of some ranges of the live version that are free, and checks
// their checkpoints. *eventstore.ForkError, *eventstore.AheadError.
func (s *session) take(ctx context.Context, firsts []int16) (taken int, err error) {
	rows, err := s.e.pool.Query(ctx, sqlAcquire, s.m.Name(), s.version, firsts, s.owner, s.e.cfg.Lease.Seconds())
	if err != nil {
		return 0, fmt.Errorf("projections: taking leases: %w", err)
	}
	got, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p span, err error) {
		return p, row.Scan(&p.first, &p.last, &p.token, &p.epoch, &p.position)
	})
	if err != nil {
		return 0, fmt.Errorf("projections: taking leases: %w", err)
	}
	for _, p := range got { // one that was held already has another token now
		s.spans = slices.DeleteFunc(s.spans, func(q span) bool { return q.first == p.first })
		s.spans = append(s.spans, p)
	}
	s.settle()
	return len(got), s.resume(ctx)
}

// build takes the lease of a candidate, all of it, and checks its checkpoints.
// errBusy when it is held; *eventstore.ForkError, *eventstore.AheadError.
func (e *Engine) build(ctx context.Context, m Model, version int, owner string) (*session, error) {
	s := e.session(m, version, owner)
	rows, err := e.pool.Query(ctx, sqlBuild, m.Name(), version, owner, e.cfg.Lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("projections: taking a lease: %w", err)
	}
	s.spans, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p span, err error) {
		return p, row.Scan(&s.token, &s.bulkTo, &s.phase, &p.first, &p.last, &p.token, &p.epoch, &p.position)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("projections: taking a lease: %w", err)
	case len(s.spans) == 0:
		return nil, errBusy
	}
	s.settle()
	if err := s.resume(ctx); err != nil {
		s.yield(ctx)
		return nil, err
	}
	return s, nil
}

// resume brings the checkpoints into the present epoch. When one cannot be,
// that is written down beside it.
func (s *session) resume(ctx context.Context) error {
	checked := make(map[eventstore.Checkpoint]eventstore.Checkpoint, 1)
	for i := range s.spans {
		p := &s.spans[i]
		old := eventstore.Checkpoint{Epoch: p.epoch, Position: p.position}
		cp, known := checked[old]
		if !known {
			var err error
			if cp, err = s.e.store.Resume(ctx, old); err != nil {
				s.tell(ctx, p, err)
				return err
			}
			checked[old] = cp
		}
		if cp.Epoch != p.epoch {
			tag, err := s.e.pool.Exec(ctx, `UPDATE projection_ranges SET epoch = $5 WHERE name = $1 AND version = $2 AND first_slice = $3 AND token = $4`,
				s.m.Name(), s.version, p.first, p.token, cp.Epoch)
			if err != nil || tag.RowsAffected() != 1 {
				return errors.Join(errFenced, err)
			}
			p.epoch = cp.Epoch
		}
	}
	return nil
}

// tell writes down why a range stands still.
func (s *session) tell(ctx context.Context, p *span, problem error) {
	_, err := s.e.pool.Exec(ctx, `UPDATE projection_ranges SET problem = $5 WHERE name = $1 AND version = $2 AND first_slice = $3 AND token = $4`,
		s.m.Name(), s.version, p.first, p.token, classOf(problem))
	if err != nil && ctx.Err() == nil {
		s.e.log.Warn("a problem could not be written down", "projection", s.m.Name(), "error", err)
	}
}

// leases are the held ranges as the statements want them.
func (s *session) leases() (firsts []int16, tokens []int64) {
	for i := range s.spans {
		firsts, tokens = append(firsts, s.spans[i].first), append(tokens, s.spans[i].token)
	}
	return firsts, tokens
}

// release gives up those leases that keep does not want, so that nobody has to
// wait for them to run out. No transaction of the session may be under way.
func (s *session) release(ctx context.Context, keep func(first int16) bool) {
	gone := &session{e: s.e}
	for _, p := range s.spans {
		if !keep(p.first) {
			gone.spans = append(gone.spans, p)
		}
	}
	if len(gone.spans) == 0 {
		return
	}
	s.spans = slices.DeleteFunc(s.spans, func(p span) bool { return !keep(p.first) })
	s.settle()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	firsts, tokens := gone.leases()
	// An error only means that the leases have to run out.
	_, _ = s.e.pool.Exec(ctx, sqlRelease, s.m.Name(), s.version, firsts, tokens)
}

func none(int16) bool { return false }

// yield gives a candidate's lease up.
func (s *session) yield(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_, _ = s.e.pool.Exec(ctx, `UPDATE projections SET lease_until = '-infinity' WHERE name = $1 AND version = $2 AND token = $3`,
		s.m.Name(), s.version, s.token)
}

// keep keeps a candidate's lease. errFenced when it is lost.
func (s *session) keep(ctx context.Context) error {
	tag, err := s.e.pool.Exec(ctx, `UPDATE projections SET lease_until = now() + make_interval(secs => $4)
		WHERE name = $1 AND version = $2 AND token = $3 AND state <> 'retired'`, s.m.Name(), s.version, s.token, s.e.cfg.Lease.Seconds())
	switch {
	case err != nil:
		return fmt.Errorf("projections: renewing a lease: %w", err)
	case tag.RowsAffected() != 1:
		return errFenced
	}
	return nil
}

// position is how far all that the session holds has come.
func (s *session) position() eventstore.Position {
	at := s.spans[0].position
	for i := range s.spans {
		at = min(at, s.spans[i].position)
	}
	return at
}

// batch is a stretch of the log, ready to be applied. It has all facts of the
// slices that the session held when it was read, and may have others.
type batch struct {
	after, through eventstore.Position
	facts          []fact
}

// read returns the next stretch of the log, up to a position (0: its end), of
// the slices from the session's first one to its last. The batch is nil when
// there is nothing.
func (s *session) read(ctx context.Context, after, upTo eventstore.Position) (*batch, error) {
	return s.e.read(ctx, s.m, s.slices(), after, upTo)
}

// slices are the first and the last slice held.
func (s *session) slices() [2]int16 {
	return [2]int16{s.spans[0].first, s.spans[len(s.spans)-1].last}
}

func (e *Engine) read(ctx context.Context, m Model, within [2]int16, after, upTo eventstore.Position) (*batch, error) {
	q := eventstore.Query{After: after, UpTo: upTo, Limit: e.cfg.Batch, NotTypes: m.ignores()}
	if within != [2]int16{0, eventstore.Slices - 1} { // all of them need no filter, and are read faster without
		q.FirstSlice, q.LastSlice = within[0], within[1]
	}
	page, err := e.store.ReadPage(ctx, q)
	if err != nil {
		return nil, err
	}
	if page.Through == after {
		return nil, nil
	}
	facts, err := e.prepare(ctx, m, page.Events)
	return &batch{after: after, through: page.Through, facts: facts}, err
}

// linger is how long a session whose model looks at few types waits before it
// moves its checkpoint over events that do not concern it, so that an import
// does not cost it a transaction a flush.
const linger = 20 * time.Millisecond

// prepare opens and decodes what a model wants of some events. What fails for
// one event alone is kept with it; an error means that none could be had.
func (e *Engine) prepare(ctx context.Context, m Model, events []eventstore.Event) ([]fact, error) {
	for i := range events {
		if _, sealed := m.concerns(events[i].Type); !sealed {
			events[i].Sealed = nil
		}
	}
	broken, err := e.open(ctx, events)
	if err != nil {
		return nil, err
	}
	facts := make([]fact, 0, len(events))
	for i := range events {
		ev := &events[i]
		if wanted, _ := m.concerns(ev.Type); !wanted {
			continue
		}
		f := fact{ev: ev, err: broken[i]}
		if f.err == nil {
			f.e, f.err = domain.Decode(ev.Type, ev.Schema, ev.Data, ev.Personal)
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// open unseals events. When that fails it looks for the events that are to
// blame; if more than one stream is, and none could be opened, the keys are.
func (e *Engine) open(ctx context.Context, events []eventstore.Event) (map[int]error, error) {
	all := e.store.Open(ctx, events)
	if all == nil {
		return nil, nil
	}
	if ctx.Err() != nil || fromDatabase(all) {
		return nil, all
	}
	broken := make(map[int]error)
	streams := make(map[string]struct{})
	opened := false
	for i := range events {
		if events[i].Sealed == nil {
			continue
		}
		err := e.store.Open(ctx, events[i:i+1])
		switch {
		case err == nil:
			opened = true
		case ctx.Err() != nil || fromDatabase(err):
			return nil, err
		default:
			broken[i] = errSealed
			streams[events[i].Stream] = struct{}{}
		}
	}
	if !opened && len(streams) > 1 {
		return nil, all
	}
	return broken, nil
}

var errSealed = errors.New("the sealed part cannot be opened")

// fromDatabase reports whether an error came from the database or the way to it.
func fromDatabase(err error) bool {
	var (
		pg      *pgconn.PgError
		connect *pgconn.ConnectError
	)
	return errors.As(err, &pg) || errors.As(err, &connect) || pgconn.SafeToRetry(err) || pgconn.Timeout(err)
}

// move is how far a batch takes a span.
type move struct {
	span     int
	from, to eventstore.Position
}

// moves tells how far a batch takes each span, not beyond its limit if there
// are limits, and which of its facts that leaves: the others are not the
// session's, or have been applied, or are beyond the limit.
func (s *session) moves(b *batch, limits []eventstore.Position) (moves []move, facts []fact, err error) {
	var from, to [maxRanges]eventstore.Position
	whole := len(s.spans) > 0
	for i := range s.spans {
		p := &s.spans[i]
		from[i], to[i] = p.position, b.through
		if limits != nil {
			to[i] = min(to[i], limits[i])
		}
		if to[i] > from[i] {
			if from[i] < b.after {
				return nil, nil, errAstray
			}
			moves = append(moves, move{i, from[i], to[i]})
		}
		whole = whole && from[i] == b.after && to[i] == b.through &&
			(i == 0 && p.first == 0 || i > 0 && p.first == s.spans[i-1].last+1) && (i < len(s.spans)-1 || p.last == eventstore.Slices-1)
	}
	if whole {
		return moves, b.facts, nil
	}
	for i := range b.facts {
		ev := b.facts[i].ev
		if at := s.of[ev.Slice]; at >= 0 && ev.Position > from[at] && ev.Position <= to[at] {
			facts = append(facts, b.facts[i])
		}
	}
	return moves, facts, nil
}

// commit applies what of a batch is the session's: rows and checkpoints, or
// nothing. With limits no span goes beyond its own. errFenced when somebody
// else has taken over.
func (s *session) commit(ctx context.Context, b *batch, limits []eventstore.Position) error {
	moves, facts, err := s.moves(b, limits)
	if err != nil || len(moves) == 0 {
		return err
	}
	err = s.tryCommit(ctx, moves, facts, false)
	if refusesData(err) {
		err = s.tryCommit(ctx, moves, facts, true)
	}
	if err != nil {
		return err
	}
	for _, v := range moves {
		s.spans[v.span].position = v.to
	}
	return nil
}

// beginCached begins a transaction on what can be had again from the log: its
// commit does not wait for the disk. Rows are found by their keys: with some
// thousand keys at once PostgreSQL would rather read the whole table, which
// made the work grow with it.
const beginCached = "begin; set local synchronous_commit = off; set local enable_seqscan = off"

func (s *session) tryCommit(ctx context.Context, moves []move, facts []fact, isolate bool) error {
	name := s.m.Name()
	firsts, tokens := make([]int16, len(moves)), make([]int64, len(moves))
	from, to := make([]int64, len(moves)), make([]int64, len(moves))
	for i, v := range moves {
		firsts[i], tokens[i] = s.spans[v.span].first, s.spans[v.span].token
		from[i], to[i] = int64(v.from), int64(v.to)
	}
	var failures []failure
	err := pgx.BeginTxFunc(ctx, s.e.pool, pgx.TxOptions{BeginQuery: beginCached}, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sqlAdvance, name, s.version, firsts, tokens, from, to, s.spans[moves[0].span].epoch, s.e.cfg.Lease.Seconds())
		switch {
		case err != nil:
			return fmt.Errorf("projections: moving checkpoints: %w", err)
		case tag.RowsAffected() != int64(len(moves)):
			return errFenced
		case len(facts) == 0:
			return nil
		}
		skip, err := s.e.stoppedAmong(ctx, tx, name, s.version, facts)
		if err != nil {
			return err
		}
		failures, err = s.m.apply(ctx, tx.Conn().PgConn(), s.version, facts, skip, isolate)
		if err != nil {
			return err
		}
		return stop(ctx, tx, name, s.version, failures)
	})
	if err == nil {
		for _, f := range failures {
			s.e.log.Error("an event could not be applied: its stream's rows stand still",
				"projection", name, "stream", f.stream, "sequence", f.sequence, "position", f.position, "reason", f.class)
		}
	}
	return err
}

// catchUp applies the log up to a position for each span; those that are
// further stay where they are.
func (s *session) catchUp(ctx context.Context, targets []eventstore.Position, done func(eventstore.Position)) error {
	for {
		var after, target eventstore.Position
		behind := false
		for i := range s.spans {
			if p := s.spans[i].position; p < targets[i] {
				if !behind || p < after {
					after = p
				}
				target, behind = max(target, targets[i]), true
			}
		}
		if !behind {
			return nil
		}
		b, err := s.read(ctx, after, target)
		if err != nil {
			return err
		}
		if b == nil {
			return fmt.Errorf("projections: the log ends at %d, before %d", after, target)
		}
		if err := s.commit(ctx, b, targets); err != nil {
			return err
		}
		if done != nil {
			done(s.position())
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
