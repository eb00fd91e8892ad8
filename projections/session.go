package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// session is one holding of a version's lease. It is used by one goroutine.
type session struct {
	e       *Engine
	m       Model
	version int
	owner   string
	token   int64
	cp      eventstore.Checkpoint
	// bulkTo and phase are what a candidate's row said when it was acquired.
	bulkTo eventstore.Position
	phase  string
}

// acquire takes the lease of a version and checks its checkpoint. errBusy when
// it is held; *eventstore.ForkError, *eventstore.AheadError.
func (e *Engine) acquire(ctx context.Context, m Model, version int, owner string) (*session, error) {
	s := &session{e: e, m: m, version: version, owner: owner}
	var state string
	err := e.pool.QueryRow(ctx, sqlAcquire, m.Name(), version, owner, e.cfg.Lease.Seconds()).
		Scan(&s.token, &s.cp.Epoch, &s.cp.Position, &state, &s.bulkTo, &s.phase)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errBusy
	case err != nil:
		return nil, fmt.Errorf("projections: taking a lease: %w", err)
	}
	cp, err := e.store.Resume(ctx, s.cp)
	if err != nil {
		s.tell(ctx, err)
		s.release(ctx)
		return nil, err
	}
	if cp.Epoch != s.cp.Epoch {
		tag, err := e.pool.Exec(ctx, `UPDATE projections SET epoch = $4 WHERE name = $1 AND version = $2 AND token = $3`,
			m.Name(), version, s.token, cp.Epoch)
		if err != nil || tag.RowsAffected() != 1 {
			return nil, errors.Join(errFenced, err)
		}
	}
	s.cp = cp
	return s, nil
}

// tell writes down why a version stands still.
func (s *session) tell(ctx context.Context, problem error) {
	_, err := s.e.pool.Exec(ctx, `UPDATE projections SET problem = $4 WHERE name = $1 AND version = $2 AND token = $3`,
		s.m.Name(), s.version, s.token, classOf(problem))
	if err != nil && ctx.Err() == nil {
		s.e.log.Warn("a problem could not be written down", "projection", s.m.Name(), "error", err)
	}
}

// release gives the lease up, so that nobody has to wait for it to run out.
func (s *session) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	// An error only means that the lease has to run out.
	_, _ = s.e.pool.Exec(ctx, `UPDATE projections SET lease_until = '-infinity' WHERE name = $1 AND version = $2 AND token = $3`,
		s.m.Name(), s.version, s.token)
}

// renew keeps the lease. errFenced when it is lost.
func (s *session) renew(ctx context.Context) error {
	tag, err := s.e.pool.Exec(ctx, sqlRenew, s.m.Name(), s.version, s.token, s.e.cfg.Lease.Seconds())
	switch {
	case err != nil:
		return fmt.Errorf("projections: renewing a lease: %w", err)
	case tag.RowsAffected() != 1:
		return errFenced
	}
	return nil
}

// batch is a stretch of the log, ready to be applied.
type batch struct {
	after, through eventstore.Position
	facts          []fact
}

// linger is how long a session whose model looks at few types waits before it
// moves its checkpoint over events that do not concern it, so that an import
// does not cost it a transaction a flush.
const linger = 20 * time.Millisecond

// read returns the next stretch of the log, up to a position (0: its end). The
// batch is nil when there is nothing.
func (s *session) read(ctx context.Context, after, upTo eventstore.Position) (*batch, error) {
	page, err := s.e.store.ReadPage(ctx, eventstore.Query{After: after, UpTo: upTo, Limit: s.e.cfg.Batch, Types: s.m.types()})
	if err != nil {
		return nil, err
	}
	if page.Through == after {
		return nil, nil
	}
	facts, err := s.e.prepare(ctx, s.m, page.Events)
	return &batch{after: after, through: page.Through, facts: facts}, err
}

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

// commit applies a batch: rows and checkpoint, or nothing. errFenced when
// somebody else has taken over.
func (s *session) commit(ctx context.Context, b *batch) error {
	err := s.tryCommit(ctx, b, false)
	if refusesData(err) {
		err = s.tryCommit(ctx, b, true)
	}
	if err != nil {
		return err
	}
	s.cp.Position = b.through
	return nil
}

// beginCached begins a transaction on what can be had again from the log: its
// commit does not wait for the disk. Rows are found by their keys: with some
// thousand keys at once PostgreSQL would rather read the whole table, which
// made the work grow with it.
const beginCached = "begin; set local synchronous_commit = off; set local enable_seqscan = off"

func (s *session) tryCommit(ctx context.Context, b *batch, isolate bool) error {
	name := s.m.Name()
	var failures []failure
	err := pgx.BeginTxFunc(ctx, s.e.pool, pgx.TxOptions{BeginQuery: beginCached}, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sqlAdvance, name, s.version, int64(b.after), int64(b.through), s.token, s.cp.Epoch, s.e.cfg.Lease.Seconds())
		switch {
		case err != nil:
			return fmt.Errorf("projections: moving a checkpoint: %w", err)
		case tag.RowsAffected() != 1:
			return errFenced
		case len(b.facts) == 0:
			return nil
		}
		skip, err := s.e.stoppedAmong(ctx, tx, name, s.version, b.facts)
		if err != nil {
			return err
		}
		failures, err = s.m.apply(ctx, tx.Conn().PgConn(), s.version, b.facts, skip, isolate)
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

// follow applies the log as it grows until ctx ends (nil) or the session does.
// While one batch is being written the next is being read.
func (s *session) follow(ctx context.Context, beat func()) error {
	reading, cancel := context.WithCancel(ctx)
	batches := make(chan *batch)
	ended := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() { ended <- s.readAhead(reading, s.cp.Position, batches) })
	defer func() {
		cancel()
		reader.Wait()
		s.release(ctx)
	}()
	tick := time.NewTicker(s.e.cfg.Lease / 4)
	defer tick.Stop()
	for {
		beat()
		if s.e.store.Epoch() != s.cp.Epoch {
			return errFenced
		}
		select {
		case b := <-batches:
			if err := s.commit(ctx, b); err != nil {
				return err
			}
			s.e.moved(s.m.Name())
		case <-tick.C:
			if err := s.renew(ctx); err != nil {
				return err
			}
			if err := s.e.retryDue(ctx, s.m, s.version); err != nil {
				return err
			}
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// readAhead sends the log's batches until ctx ends.
func (s *session) readAhead(ctx context.Context, after eventstore.Position, to chan<- *batch) error {
	for {
		if err := s.e.store.Wait(ctx, after); err != nil {
			return err
		}
		b, err := s.read(ctx, after, 0)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if len(b.facts) == 0 && s.m.types() != nil {
			// Look once more before moving over nothing.
			if err := sleep(ctx, linger); err != nil {
				return err
			}
			if b, err = s.read(ctx, after, 0); err != nil {
				return err
			}
		}
		select {
		case to <- b:
			after = b.through
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// catchUp applies the log up to a position.
func (s *session) catchUp(ctx context.Context, target eventstore.Position, done func(eventstore.Position)) error {
	for s.cp.Position < target {
		b, err := s.read(ctx, s.cp.Position, target)
		if err != nil {
			return err
		}
		if b == nil {
			return fmt.Errorf("projections: the log ends at %d, before %d", s.cp.Position, target)
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		if done != nil {
			done(s.cp.Position)
		}
	}
	return nil
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
