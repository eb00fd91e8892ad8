package projections

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
)

var (
	//go:embed sql/advance.sql
	sqlAdvance string
	//go:embed sql/acquire.sql
	sqlAcquire string
	//go:embed sql/build.sql
	sqlBuild string
	//go:embed sql/renew.sql
	sqlRenew string
	//go:embed sql/stop.sql
	sqlStop string
	//go:embed sql/status.sql
	sqlStatus string
)

// Config says how an Engine works. The zero value of a field takes the default.
type Config struct {
	// Instance names this process in leases, for operators.
	Instance string
	Logger   *slog.Logger
	// Clock tells the time of heartbeats. Leases and lag are measured by the
	// database's clock alone.
	Clock func() time.Time
	// Lease is how long an owner may be silent before another instance takes
	// over. Default 3 s: with an attempt every second, a dead owner is replaced
	// within 5 s.
	Lease time.Duration
	// Batch bounds the events applied in one transaction. Default 4000.
	Batch int
	// Workers is how many chunks of a rebuild are under way at once. Default 2.
	Workers int
	// WaitLimit bounds WaitFor. Default 5 s.
	WaitLimit time.Duration
	// Retention is how long the version before the live one is kept for a
	// rollback. Default 24 h.
	Retention time.Duration
	// Trigram gives versions built from now on indexes for searches in the
	// middle of a text, where pg_trgm is installed. They cost about as much as
	// all other indexes together, so they are off by default.
	Trigram bool
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Lease <= 0 {
		c.Lease = 3 * time.Second
	}
	if c.Batch <= 0 {
		c.Batch = 4000
	}
	if c.Workers <= 0 {
		c.Workers = 2
	}
	if c.WaitLimit <= 0 {
		c.WaitLimit = 5 * time.Second
	}
	if c.Retention <= 0 {
		c.Retention = 24 * time.Hour
	}
}

// Engine keeps read models up to date, rebuilds them and reads them. It is
// safe for concurrent use. On a standby it reads and waits only.
type Engine struct {
	store  *eventstore.Store
	pool   *pgxpool.Pool
	models []Model
	cfg    Config
	log    *slog.Logger
	owner  string // in leases; unique to this engine

	beats map[string]*atomic.Int64 // by model: when its worker last moved, Unix ns; 0 when Run does not
	holds map[string]*atomic.Int64 // by model: how many ranges of the live version it holds

	mu       sync.Mutex               // guards what follows
	live     map[string]int           // by model: the version that was live when last seen
	movement map[string]chan struct{} // by model: closed at its next commit here
}

// New makes an engine for some read models. The pool is for reading and for
// writing read models; it may be the store's.
func New(store *eventstore.Store, pool *pgxpool.Pool, models []Model, cfg Config) *Engine {
	cfg.setDefaults()
	e := &Engine{
		store: store, pool: pool, models: models, cfg: cfg, log: cfg.Logger,
		owner: cfg.Instance + "/" + ulid.MustNew(ulid.Now(), rand.Reader).String(),
		beats: make(map[string]*atomic.Int64), holds: make(map[string]*atomic.Int64), live: make(map[string]int), movement: make(map[string]chan struct{}),
	}
	for _, m := range models {
		e.beats[m.Name()], e.holds[m.Name()] = new(atomic.Int64), new(atomic.Int64)
		e.movement[m.Name()] = make(chan struct{})
	}
	return e
}

func (e *Engine) model(name string) (Model, error) {
	for _, m := range e.models {
		if m.Name() == name {
			return m, nil
		}
	}
	return nil, domain.NewError(domain.KindNotFound, "MUSTER-noprojection", "There is no projection of that name")
}

// Run keeps the read models up to date until ctx ends, which returns nil, or
// until something is wrong that time does not mend, such as a missing table or
// privilege. All goroutines have ended when it returns.
func (e *Engine) Run(ctx context.Context) error {
	if e.store.Standby() {
		<-ctx.Done()
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, m := range e.models {
		group.Go(func() {
			if err := e.work(ctx, m); err != nil {
				cancel(err)
			}
		})
	}
	group.Go(func() { e.care(ctx) })
	group.Wait()
	for _, b := range e.beats {
		b.Store(0)
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// every is how often an instance that cannot work looks whether it can.
const every = time.Second

// work follows the log for one model, as far as it is this instance's share.
// Its error is one that time does not mend.
func (e *Engine) work(ctx context.Context, m Model) error {
	defer e.leave(ctx, m)
	beat := func() { e.beats[m.Name()].Store(e.cfg.Clock().UnixNano()) }
	const shortest = 100 * time.Millisecond
	backoff := shortest
	for ctx.Err() == nil {
		beat()
		began := time.Now()
		instances, err := e.hold(ctx, m, beat)
		if time.Since(began) > 10*every {
			backoff = shortest // it went well for a while
		}
		var wait time.Duration
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || errors.Is(err, errFenced):
			backoff = shortest
			wait = backoff // the next version, or the same one with other owners
		case errors.Is(err, errBusy):
			wait = every
		case beyondRepair(err):
			return fmt.Errorf("projections: %s: %w", m.Name(), err)
		default:
			longest := every
			if instances > 1 {
				longest = 5 * every
			}
			if backoff > shortest { // not for once only: the others take over
				e.leave(ctx, m)
			}
			e.log.Error("a projection is interrupted", "projection", m.Name(), "error", classOf(err), "again_in", backoff)
			wait, backoff = backoff, min(2*backoff, longest)
		}
		// Jitter keeps instances from asking in step.
		_ = sleep(ctx, wait/2+mathrand.N(wait)) // #nosec G404 -- not a secret
	}
	return nil
}

// beyondRepair reports whether an error is of the kind that only an operator
// can mend: a missing table, column or privilege.
func beyondRepair(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "42703" || pg.Code == "42501" || pg.Code == "3F000")
}

// hold follows the log with this instance's share of the live version of a
// model. It tells how many instances share it.
func (e *Engine) hold(ctx context.Context, m Model, beat func()) (instances int, err error) {
	v, err := e.ensure(ctx, m)
	if err != nil {
		return 0, err
	}
	if v.definition != m.Definition() {
		return 0, errBusy // the caretaker rebuilds it; until then another program's instances keep it
	}
	return e.session(m, v.version, e.owner).follow(ctx, beat)
}

// liveRow is what the registry says of a live version.
type liveRow struct {
	version, definition int
	// position is what all its ranges have come to.
	position eventstore.Position
	updated  time.Time
}

// comeTo joins to a version p how far it has come, which is as far as the last
// of its ranges, and when it last moved. A range that is past the point where
// its history was lost in a failover has come to that point: what it was
// beyond is not what the log has there now.
const comeTo = `CROSS JOIN LATERAL (SELECT max(updated_at) AS updated_at,
		min(least(position, (SELECT min(e.first_position) - 1 FROM epochs e WHERE e.epoch > r.epoch))) AS position
	FROM projection_ranges r WHERE r.name = p.name AND r.version = p.version) come`

// errNoVersion says that no version of a read model is live yet.
var errNoVersion = domain.NewError(domain.KindUnavailable, "MUSTER-building", "The read model is being built")

func (e *Engine) liveVersion(ctx context.Context, m Model) (v liveRow, err error) {
	err = e.pool.QueryRow(ctx, `SELECT version, definition, come.position, come.updated_at FROM projections p `+comeTo+` WHERE name = $1 AND state = 'live'`, m.Name()).
		Scan(&v.version, &v.definition, &v.position, &v.updated)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return v, errNoVersion
	case err != nil:
		return v, fmt.Errorf("projections: reading the registry: %w", err)
	}
	return v, nil
}

// ensure returns the live version and makes the first one when there is none.
func (e *Engine) ensure(ctx context.Context, m Model) (liveRow, error) {
	v, err := e.liveVersion(ctx, m)
	if !errors.Is(err, errNoVersion) {
		return v, err
	}
	err = e.begin(ctx, m, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM projections WHERE name = $1`, m.Name()).Scan(&n); err != nil || n > 0 {
			return err
		}
		if err := e.define(ctx, tx, append(m.create(1), m.index(1, e.trigram(ctx))...)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO projections (name, version, definition, state) VALUES ($1, 1, $2, 'live')`, m.Name(), m.Definition())
		if err != nil {
			return fmt.Errorf("projections: registering a version: %w", err)
		}
		return divide(ctx, tx, m, 1, e.store.Epoch())
	})
	if err != nil {
		return liveRow{}, err
	}
	return e.liveVersion(ctx, m)
}

// maxRanges is how many ranges a model may have.
const maxRanges = 64

// divide makes the ranges of a new version.
func divide(ctx context.Context, tx pgx.Tx, m Model, version int, epoch int32) error {
	_, err := tx.Exec(ctx, `INSERT INTO projection_ranges (name, version, first_slice, last_slice, epoch, position)
		SELECT $1, $2, s, s + $3 - 1, $4, 0 FROM generate_series(0, $5 - 1, $3::int4) s`,
		m.Name(), version, eventstore.Slices/m.ranges(), epoch, eventstore.Slices)
	if err != nil {
		return fmt.Errorf("projections: dividing a version: %w", err)
	}
	return nil
}

// begin runs a transaction that changes which versions of a model there are:
// one at a time over all instances.
func (e *Engine) begin(ctx context.Context, m Model, do func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.projections.' || $1, 0))`, m.Name()); err != nil {
			return fmt.Errorf("projections: %w", err)
		}
		return do(tx)
	})
}

// define runs DDL as the service's role, which then owns what is made, whoever
// is connected.
func (e *Engine) define(ctx context.Context, tx pgx.Tx, statements []string) error {
	if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+migrations.ServiceRole); err != nil {
		return fmt.Errorf("projections: acting as the service: %w", err)
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("projections: making tables: %w", err)
		}
	}
	return nil
}

func (e *Engine) trigram(ctx context.Context) bool {
	if !e.cfg.Trigram {
		return false
	}
	var there bool
	err := e.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')`).Scan(&there)
	return err == nil && there
}

// care looks after what no session does: rebuilds that lost their worker or
// that a new definition asks for, and versions past their retention.
func (e *Engine) care(ctx context.Context) {
	for ctx.Err() == nil {
		for _, m := range e.models {
			if err := e.careFor(ctx, m); err != nil && ctx.Err() == nil {
				e.log.Error("looking after a projection failed", "projection", m.Name(), "error", classOf(err))
			}
		}
		_ = sleep(ctx, 2*every)
	}
}

func (e *Engine) careFor(ctx context.Context, m Model) error {
	var abandoned bool
	err := e.pool.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM projections WHERE name = $1 AND state = 'building' AND definition = $2 AND lease_until < now() - interval '3 seconds')
		OR EXISTS (SELECT FROM projections WHERE name = $1 AND state = 'live' AND definition < $2)`, m.Name(), m.Definition()).Scan(&abandoned)
	if err != nil {
		return fmt.Errorf("projections: reading the registry: %w", err)
	}
	if abandoned {
		if _, err := e.Rebuild(ctx, m.Name(), nil); err != nil && !errors.Is(err, errBusy) {
			return err
		}
	}
	if _, err := e.pool.Exec(ctx, `DELETE FROM projection_members WHERE name = $1 AND seen_until < now() - interval '1 minute'`, m.Name()); err != nil {
		return fmt.Errorf("projections: forgetting the dead: %w", err)
	}
	return e.dropRetired(ctx, m)
}

// moved wakes who waits for a model's checkpoint in this process.
func (e *Engine) moved(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.movement[name])
	e.movement[name] = make(chan struct{})
}

func (e *Engine) nextMove(name string) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.movement[name]
}
