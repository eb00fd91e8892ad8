package projections

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

//go:embed sql/switch.sql
var sqlSwitch string

// The phases of a rebuild, in order.
const (
	PhaseBulk    = "bulk"
	PhaseIndex   = "index"
	PhaseCatchUp = "catch up"
	PhaseCompare = "compare"
	PhaseSwitch  = "switch"
	PhaseDone    = "done"
)

// Step tells how far a rebuild is.
type Step struct {
	Projection string
	Version    int
	Phase      string
	// Events are those handled of Total, in the phases bulk and catch up.
	Events, Total int64
	// Elapsed is since this call began; a resumed rebuild has Events from
	// before.
	Elapsed time.Duration
	// Resumed are the Events that were done before this call.
	Resumed int64
}

// Progress is told of each step, by one goroutine at a time and not more than
// about ten times a second within a phase. It may be nil.
type Progress func(Step)

// Result is what became of a rebuild or a rollback.
type Result struct {
	Projection string
	// Version is live now; From was before.
	Version, From int
	Position      eventstore.Position
	// Events is how many the new version was made from.
	Events int64
	Comparison
	// Stopped is the number of streams that failed in the new version.
	Stopped int64
	// Held is how long the live version's writer had to wait for the switch.
	// Readers never wait.
	Held time.Duration
	// Elsewhere says that another process did the work and this one looked on.
	Elsewhere bool
}

// ErrUnequal says that a candidate is not what its own events add up to, so it
// was not made live. Drift of the live version is no such error: it is
// reported, and mended by the switch.
var ErrUnequal = domain.NewError(domain.KindDataLoss, "MUSTER-unequal", "The rebuilt version does not agree with the events; the live one stays")

// chunks is how many parts the first phase has, each a transaction.
const chunks = 64

const slicesPerChunk = eventstore.Slices / chunks

// Rebuild makes the next version of a read model beside the live one and
// switches readers over: bulk up to a fixed position, indexes, catching up in
// order, comparison, switch. A rebuild that was broken off, by whatever and in
// whatever process, goes on where it was, with at most one chunk a worker done
// again; one that another process is at is watched until it is done.
//
// Nothing but the read model's own tables is touched: consumers do not notice.
func (e *Engine) Rebuild(ctx context.Context, name string, progress Progress) (Result, error) {
	m, err := e.model(name)
	if err != nil {
		return Result{}, err
	}
	v, err := e.ensure(ctx, m)
	switch {
	case err != nil:
		return Result{}, err
	case v.definition > m.Definition():
		return Result{}, errDefinition
	}
	r := &rebuild{e: e, m: m, progress: progress, began: e.cfg.Clock(),
		owner: e.owner + "/rebuild-" + ulid.MustNew(ulid.Now(), rand.Reader).String()}
	version, err := e.candidate(ctx, m)
	if err != nil {
		return Result{}, err
	}
	for {
		s, err := e.build(ctx, m, version, r.owner)
		if err == nil {
			return r.run(ctx, s)
		}
		if lostHistory(err) { // the next one begins from the present one
			e.log.Warn("a rebuild begins anew", "projection", name, "version", version, "error", classOf(err))
			if err := e.begin(ctx, m, func(tx pgx.Tx) error { return e.drop(ctx, tx, m, version) }); err != nil {
				return Result{}, err
			}
			if version, err = e.candidate(ctx, m); err != nil {
				return Result{}, err
			}
			continue
		}
		if !errors.Is(err, errBusy) {
			return Result{}, err
		}
		// Somebody else is at it.
		st, err := e.versionStatus(ctx, name, version)
		switch {
		case err != nil:
			return Result{}, err
		case st.State == "live":
			r.version = version
			r.tell(PhaseDone, 0, 0, true)
			return Result{Projection: name, Version: version, Position: st.Position, Events: st.Events, Elsewhere: true}, nil
		case st.State != "building":
			return Result{}, errFenced
		}
		r.version = version
		r.tell(st.Phase, st.Events, int64(st.BulkTo), false)
		if err := sleep(ctx, every/4); err != nil {
			return Result{}, err
		}
	}
}

// lostHistory reports whether a checkpoint is of a history that the log does
// not have.
func lostHistory(err error) bool {
	var (
		fork  *eventstore.ForkError
		ahead *eventstore.AheadError
	)
	return errors.As(err, &fork) || errors.As(err, &ahead)
}

// candidate returns the version that is being built, or makes the next one.
func (e *Engine) candidate(ctx context.Context, m Model) (version int, err error) {
	head, err := e.store.Head(ctx)
	if err != nil {
		return 0, err
	}
	err = e.begin(ctx, m, func(tx pgx.Tx) error {
		var definition int
		err := tx.QueryRow(ctx, `SELECT version, definition FROM projections WHERE name = $1 AND state = 'building'`, m.Name()).Scan(&version, &definition)
		switch {
		case err == nil && definition == m.Definition():
			return nil
		case err == nil && definition > m.Definition():
			return errDefinition
		case err == nil: // an older program's; its worker, if there is one, gets fenced
			if err := e.drop(ctx, tx, m, version); err != nil {
				return err
			}
		case !errors.Is(err, pgx.ErrNoRows):
			return fmt.Errorf("projections: reading the registry: %w", err)
		}
		// A number is never used twice: tables of a dropped version may still
		// be in some reader's cache.
		err = tx.QueryRow(ctx, `INSERT INTO projections (name, version, definition, state, phase, bulk_to)
			SELECT $1, max(version) + 1, $2, 'building', $3, $4 FROM projections WHERE name = $1 RETURNING version`,
			m.Name(), m.Definition(), PhaseBulk, int64(head.Position)).Scan(&version)
		if err != nil {
			return fmt.Errorf("projections: registering a version: %w", err)
		}
		if err := divide(ctx, tx, m, version, head.Epoch); err != nil {
			return err
		}
		return e.define(ctx, tx, m.create(version))
	})
	return version, err
}

// rebuild is one call of Rebuild or Rollback.
type rebuild struct {
	e        *Engine
	m        Model
	owner    string
	progress Progress
	began    time.Time
	version  int

	mu      sync.Mutex // guards what follows, and calls of progress
	told    time.Time
	phase   string
	resumed int64
}

// tell reports progress; a change of phase always, others at most ten times a
// second unless now.
func (r *rebuild) tell(phase string, events, total int64, now bool) {
	if r.progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.e.cfg.Clock()
	if !now && phase == r.phase && t.Sub(r.told) < 100*time.Millisecond {
		return
	}
	r.told, r.phase = t, phase
	r.progress(Step{Projection: r.m.Name(), Version: r.version, Phase: phase, Events: events, Total: total,
		Elapsed: t.Sub(r.began), Resumed: r.resumed})
}

// run does what is left of the phases, while a goroutine keeps the lease.
func (r *rebuild) run(ctx context.Context, s *session) (result Result, err error) {
	r.version = s.version
	ctx, cancel := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() {
		for sleep(ctx, r.e.cfg.Lease/4) == nil {
			if err := s.keep(ctx); errors.Is(err, errFenced) {
				cancel(err)
			}
		}
	})
	defer func() {
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, errFenced) {
			err = cause
		}
		cancel(nil)
		keeper.Wait()
		s.yield(ctx)
	}()
	if s.phase == PhaseBulk {
		if err := r.bulk(ctx, s); err != nil {
			return Result{}, err
		}
	}
	if s.phase == PhaseIndex {
		if err := r.index(ctx, s); err != nil {
			return Result{}, err
		}
	}
	return r.promote(ctx, s, true)
}

// enter moves a candidate into a phase, fenced.
func (s *session) enter(ctx context.Context, phase string) error {
	tag, err := s.e.pool.Exec(ctx, `UPDATE projections SET phase = $4, updated_at = now()
		WHERE name = $1 AND version = $2 AND token = $3 AND state = 'building'`, s.m.Name(), s.version, s.token, phase)
	switch {
	case err != nil:
		return fmt.Errorf("projections: entering a phase: %w", err)
	case tag.RowsAffected() != 1:
		return errFenced
	}
	s.phase = phase
	return nil
}

// filled sets all checkpoints of a candidate to where its first phase ends, and
// goes on to the next one.
func (s *session) filled(ctx context.Context) error {
	tag, err := s.e.pool.Exec(ctx, `WITH candidate AS (
			UPDATE projections SET phase = $4, updated_at = now()
			WHERE name = $1 AND version = $2 AND token = $3 AND state = 'building' RETURNING bulk_to)
		UPDATE projection_ranges SET position = c.bulk_to, updated_at = now() FROM candidate c WHERE name = $1 AND version = $2`,
		s.m.Name(), s.version, s.token, PhaseIndex)
	switch {
	case err != nil:
		return fmt.Errorf("projections: entering a phase: %w", err)
	case tag.RowsAffected() != int64(len(s.spans)):
		return errFenced
	}
	for i := range s.spans {
		s.spans[i].position = s.bulkTo
	}
	s.phase = PhaseIndex
	return nil
}

// bulk fills the candidate up to its fixed position, chunk by chunk.
func (r *rebuild) bulk(ctx context.Context, s *session) error {
	rows, err := r.e.pool.Query(ctx, `SELECT chunk, events FROM projection_chunks WHERE name = $1 AND version = $2`, s.m.Name(), s.version)
	if err != nil {
		return fmt.Errorf("projections: reading chunks: %w", err)
	}
	var (
		done   [chunks]bool
		chunk  int16
		events int64
		sum    atomic.Int64
	)
	if _, err := pgx.ForEachRow(rows, []any{&chunk, &events}, func() error {
		done[chunk] = true
		sum.Add(events)
		return nil
	}); err != nil {
		return fmt.Errorf("projections: reading chunks: %w", err)
	}
	r.resumed = sum.Load()
	tell := func(n int) { r.tell(PhaseBulk, sum.Add(int64(n)), int64(s.bulkTo), false) }
	tell(0)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.e.cfg.Workers)
	for i := range chunks {
		if done[i] {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return r.chunk(ctx, s, int16(i), tell) // #nosec G115 -- below 64
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.filled(context.WithoutCancel(ctx))
}

// flushSize is how many bytes of rows are gathered for one COPY.
const flushSize = 4 << 20

// chunk fills in the rows of one chunk's slices and marks it done.
func (r *rebuild) chunk(ctx context.Context, s *session, chunk int16, tell func(int)) error {
	return pgx.BeginFunc(ctx, r.e.pool, func(tx pgx.Tx) error {
		conn := tx.Conn().PgConn()
		filling := s.m.bulk(s.version)
		var events int64
		first := chunk * slicesPerChunk
		err := r.e.store.ReadSlices(ctx, first, first+slicesPerChunk-1, s.bulkTo, s.m.unsealed(), func(run []eventstore.Event) error {
			facts, err := r.e.prepare(ctx, s.m, run)
			if err != nil {
				return err
			}
			filling.add(facts)
			events += int64(len(run))
			tell(len(run))
			if filling.size() < flushSize {
				return nil
			}
			return filling.flush(ctx, conn)
		})
		if err != nil {
			return err
		}
		n, failures, err := filling.finish(ctx, conn)
		if err != nil {
			return err
		}
		if err := stop(ctx, tx, s.m.Name(), s.version, failures); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO projection_chunks (name, version, chunk, events, rows) VALUES ($1, $2, $3, $4, $5)`,
			s.m.Name(), s.version, chunk, events, n)
		if err != nil {
			return fmt.Errorf("projections: marking a chunk: %w", err)
		}
		// Last, so that the row's lock is held for the commit only.
		tag, err := tx.Exec(ctx, `SELECT FROM projections WHERE name = $1 AND version = $2 AND token = $3 FOR SHARE`, s.m.Name(), s.version, s.token)
		switch {
		case err != nil:
			return fmt.Errorf("projections: checking the lease: %w", err)
		case tag.RowsAffected() != 1:
			return errFenced
		}
		return nil
	})
}

// index builds what the bulk phase was spared.
func (r *rebuild) index(ctx context.Context, s *session) error {
	statements := s.m.index(s.version, r.e.trigram(ctx))
	total := int64(len(statements))
	r.tell(PhaseIndex, 0, total, true)
	var built atomic.Int64
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(r.e.cfg.Workers)
	for _, sql := range statements {
		group.Go(func() error {
			err := pgx.BeginFunc(within, r.e.pool, func(tx pgx.Tx) error {
				return r.e.define(within, tx, []string{"SET LOCAL maintenance_work_mem = '256MB'", "SET LOCAL max_parallel_maintenance_workers = 0", sql})
			})
			r.tell(PhaseIndex, built.Add(1), total, false)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, r.e.pool, func(tx pgx.Tx) error {
		return r.e.define(ctx, tx, []string{"ANALYZE " + s.m.tables(s.version)[0]})
	})
	if err != nil {
		return err
	}
	return s.enter(ctx, PhaseCatchUp)
}

// promote brings a candidate level with the live version and makes it live.
func (r *rebuild) promote(ctx context.Context, s *session, compare bool) (Result, error) {
	result := Result{Projection: s.m.Name(), Version: s.version}
	if err := r.approach(ctx, s); err != nil {
		return result, err
	}
	if compare {
		var err error
		if result.Comparison, err = r.compare(ctx, s); err != nil {
			return result, err
		}
		if err := r.approach(ctx, s); err != nil {
			return result, err
		}
	}
	r.tell(PhaseSwitch, 0, 0, true)
	var pinned time.Time
	err := r.e.begin(ctx, s.m, func(tx pgx.Tx) error {
		pinned = r.e.cfg.Clock()
		live, at, err := r.pin(ctx, tx, s)
		if err != nil {
			return err
		}
		result.From = live.version
		// Whoever works on a version that is retired, or on the candidate, has
		// no token any more.
		_, err = tx.Exec(ctx, `UPDATE projections SET state = 'retired', switched_at = now() WHERE name = $1 AND version = $2`, s.m.Name(), live.version)
		if err != nil {
			return fmt.Errorf("projections: retiring a version: %w", err)
		}
		tag, err := tx.Exec(ctx, sqlSwitch, s.m.Name(), s.version, s.token, live.version, at.lost())
		switch {
		case err != nil:
			return fmt.Errorf("projections: switching: %w", err)
		case tag.RowsAffected() != 1:
			return errFenced
		}
		_, err = tx.Exec(ctx, `UPDATE projection_ranges SET owner = '', token = token + 1, lease_until = '-infinity'
			WHERE name = $1 AND version IN ($2, $3)`, s.m.Name(), live.version, s.version)
		if err != nil {
			return fmt.Errorf("projections: switching: %w", err)
		}
		return tx.QueryRow(ctx, `SELECT
			(SELECT coalesce(sum(events), 0)::int8 FROM projection_chunks WHERE name = $1 AND version = $2),
			(SELECT count(*) FROM projection_stopped WHERE name = $1 AND version = $2)`, s.m.Name(), s.version).
			Scan(&result.Events, &result.Stopped)
	})
	if err != nil {
		return result, err
	}
	result.Held = r.e.cfg.Clock().Sub(pinned)
	result.Position = s.position()
	result.Events += max(0, int64(result.Position-s.bulkTo))
	r.e.moved(s.m.Name())
	r.e.log.Info("a projection has a new version", "projection", s.m.Name(), "version", s.version, "from", result.From,
		"position", result.Position, "events", result.Events, "stopped", result.Stopped, "held", result.Held)
	r.tell(PhaseDone, result.Events, result.Events, true)
	if err := r.e.dropRetired(ctx, s.m); err != nil {
		r.e.log.Warn("an old version could not be dropped yet", "projection", s.m.Name(), "error", classOf(err))
	}
	return result, nil
}

// targets are, for each of the candidate's ranges, how far it has to come to be
// level with the live version: with the foremost of the live ranges that have
// slices of it, which is just the same range unless the two are divided
// differently.
func (s *session) targets(live marks) []eventstore.Position {
	to := make([]eventstore.Position, len(s.spans))
	for i := range s.spans {
		_, to[i] = live.over(s.spans[i].first, s.spans[i].last)
	}
	return to
}

// present finds out which ranges of a live version hold rows of a history that
// was lost in a failover. Such a range can go no further, and nobody has to come
// up with it: what counts is how far it agrees with the present history.
func (e *Engine) present(ctx context.Context, ks marks) error {
	for i := range ks {
		k := &ks[i]
		if k.epoch == e.store.Epoch() {
			continue
		}
		cp, err := e.store.Rewind(ctx, eventstore.Checkpoint{Epoch: k.epoch, Position: k.position})
		if err != nil {
			return err
		}
		k.lost, k.position = cp.Position < k.position, cp.Position
	}
	return nil
}

// lost are the first slices of those ranges that hold rows of a lost history.
func (ks marks) lost() []int16 {
	firsts := []int16{}
	for _, k := range ks {
		if k.lost {
			firsts = append(firsts, k.first)
		}
	}
	return firsts
}

// level reports whether each of the candidate's ranges is exactly where those
// of the live version are.
func (s *session) level(live marks) bool {
	if len(live.lost()) > 0 {
		return false
	}
	for i := range s.spans {
		p := &s.spans[i]
		if low, high := live.over(p.first, p.last); low != p.position || high != p.position {
			return false
		}
	}
	return true
}

// approach catches up with the live version until little is left.
func (r *rebuild) approach(ctx context.Context, s *session) error {
	for {
		live, err := r.e.liveVersion(ctx, s.m)
		if err != nil {
			return err
		}
		var ahead marks
		err = pgx.BeginTxFunc(ctx, r.e.pool, snapshot, func(tx pgx.Tx) error {
			ahead, err = readMarks(ctx, tx, s.m.Name(), live.version, "")
			return err
		})
		if err != nil {
			return err
		}
		if err := r.e.present(ctx, ahead); err != nil {
			return err
		}
		targets := s.targets(ahead)
		far := false
		for i := range s.spans {
			far = far || targets[i] > s.spans[i].position+eventstore.Position(r.e.cfg.Batch/16)
		}
		if !far {
			return nil
		}
		err = s.catchUp(ctx, targets, func(p eventstore.Position) {
			r.tell(PhaseCatchUp, int64(p), int64(slices.Max(targets)), false)
		})
		if err != nil {
			return err
		}
	}
}

// pin keeps the live version where it is until tx ends, and brings each of the
// candidate's ranges to the same position, or leaves it ahead. The locks are
// taken in the order that everybody takes them in: the version's row, then its
// ranges by slice.
func (r *rebuild) pin(ctx context.Context, tx pgx.Tx, s *session) (live liveRow, at marks, err error) {
	err = tx.QueryRow(ctx, `SELECT version, definition FROM projections WHERE name = $1 AND state = 'live' FOR UPDATE`, s.m.Name()).
		Scan(&live.version, &live.definition)
	if err != nil {
		return live, nil, fmt.Errorf("projections: keeping the live version: %w", err)
	}
	if at, err = readMarks(ctx, tx, s.m.Name(), live.version, "FOR UPDATE"); err != nil {
		return live, nil, err
	}
	if err := r.e.present(ctx, at); err != nil {
		return live, nil, err
	}
	return live, at, s.catchUp(ctx, s.targets(at), nil)
}

// compare compares the candidate with the live version, each range of both at
// one position in one snapshot, while both go on. Slices that differ are recomputed: if the
// candidate does not agree with the events, ErrUnequal.
func (r *rebuild) compare(ctx context.Context, s *session) (c Comparison, err error) {
	r.tell(PhaseCompare, 0, 0, true)
	err = pgx.BeginTxFunc(ctx, r.e.pool, snapshot, func(tx pgx.Tx) error {
		live, same, err := r.level(ctx, tx, s)
		if err != nil || !same {
			return err
		}
		conn := tx.Conn().PgConn()
		if c, err = s.m.sameRows(ctx, conn, live, s.version); err != nil {
			return err
		}
		report := Report{Projection: s.m.Name(), Version: s.version, Position: s.position()}
		for _, slice := range c.Differing {
			if err := r.e.checkSlices(ctx, tx, s.m, s.version, slice, slice, s.spans[s.of[slice]].position, &report); err != nil {
				return err
			}
		}
		if err := s.m.checkCounts(ctx, conn, s.version, &report); err != nil {
			return err
		}
		if report.Drifted > 0 {
			return ErrUnequal.Because(fmt.Errorf("%d differences, the first in column %q", report.Drifted, report.Drifts[0].Column))
		}
		if len(c.Differing) > 0 {
			r.e.log.Warn("the live version had drifted from the events", "projection", s.m.Name(), "version", live, "slices", len(c.Differing))
		}
		return nil
	})
	return c, err
}

// level makes tx's snapshot one in which each range of candidate and live
// version stands at the same position. same is false when that is not to be
// had: the live one is behind, or of another definition.
func (r *rebuild) level(ctx context.Context, tx pgx.Tx, s *session) (version int, same bool, err error) {
	err = pgx.BeginFunc(ctx, r.e.pool, func(keep pgx.Tx) error {
		live, at, err := r.pin(ctx, keep, s)
		if err != nil {
			return err
		}
		version = live.version
		if live.definition != s.m.Definition() || !s.level(at) {
			return nil
		}
		// The snapshot is taken by its transaction's first statement.
		seen, err := readMarks(ctx, tx, s.m.Name(), s.version, "")
		if err != nil {
			return err
		}
		lively, err := readMarks(ctx, tx, s.m.Name(), version, "")
		if err != nil {
			return err
		}
		same = slices.Equal(lively, at)
		for i := range s.spans {
			same = same && seen[i].position == s.spans[i].position
		}
		return nil
	})
	return version, same, err
}

// ErrNoRollback says that there is no version to go back to.
var ErrNoRollback = domain.NewError(domain.KindFailedPrecondition, "MUSTER-norollback", "There is no earlier version of this projection to go back to, or a rebuild is under way")

// Rollback makes the version before the live one live again: it catches up
// from where it stood, then the switch is as after a rebuild. ErrNoRollback
// when there is none of the present definition, or its retention is over;
// *eventstore.ForkError when it holds rows of a history that was lost.
func (e *Engine) Rollback(ctx context.Context, name string, progress Progress) (Result, error) {
	m, err := e.model(name)
	if err != nil {
		return Result{}, err
	}
	var version int
	err = e.begin(ctx, m, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `UPDATE projections SET state = 'building', phase = $3 WHERE name = $1 AND version = (
				SELECT version FROM projections WHERE name = $1 AND definition = $2 AND state = 'retired' ORDER BY switched_at DESC LIMIT 1)
			AND NOT EXISTS (SELECT FROM projections WHERE name = $1 AND state = 'building') RETURNING version`,
			name, m.Definition(), PhaseCatchUp).Scan(&version)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoRollback
		}
		return err
	})
	if err != nil {
		return Result{}, err
	}
	r := &rebuild{e: e, m: m, progress: progress, began: e.cfg.Clock(), version: version,
		owner: e.owner + "/rollback-" + ulid.MustNew(ulid.Now(), rand.Reader).String()}
	s, err := e.build(ctx, m, version, r.owner)
	if lostHistory(err) { // it stays what it was
		_, restored := e.pool.Exec(ctx, `UPDATE projections SET state = 'retired', phase = '' WHERE name = $1 AND version = $2 AND state = 'building'`, name, version)
		return Result{}, errors.Join(err, restored)
	}
	if err != nil {
		return Result{}, err
	}
	defer s.yield(ctx)
	return r.promote(ctx, s, false)
}

// drop removes a version's tables and its row.
func (e *Engine) drop(ctx context.Context, tx pgx.Tx, m Model, version int) error {
	// Behind a long reader, better later than with all others in the queue.
	statements := []string{"SET LOCAL lock_timeout = '2s'"}
	for _, t := range m.tables(version) {
		statements = append(statements, "DROP TABLE IF EXISTS "+t)
	}
	if err := e.define(ctx, tx, statements); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM projections WHERE name = $1 AND version = $2`, m.Name(), version); err != nil {
		return fmt.Errorf("projections: forgetting a version: %w", err)
	}
	return nil
}

// dropRetired drops the versions that no rollback can want: all but the one
// that was live last, and that one too once its retention is over.
func (e *Engine) dropRetired(ctx context.Context, m Model) error {
	rows, err := e.pool.Query(ctx, `SELECT version FROM (SELECT version, switched_at, row_number() OVER (ORDER BY switched_at DESC, version DESC) AS age
		FROM projections WHERE name = $1 AND state = 'retired') r WHERE age > 1 OR switched_at < now() - make_interval(secs => $2)`,
		m.Name(), e.cfg.Retention.Seconds())
	if err != nil {
		return fmt.Errorf("projections: reading the registry: %w", err)
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return fmt.Errorf("projections: reading the registry: %w", err)
	}
	for _, version := range old {
		err := e.begin(ctx, m, func(tx pgx.Tx) error {
			var still bool
			err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM projections WHERE name = $1 AND version = $2 AND state = 'retired')`, m.Name(), version).Scan(&still)
			if err != nil || !still {
				return err
			}
			return e.drop(ctx, tx, m, version)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
