package eventstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says how a Store works. The zero value of a field takes the default.
type Config struct {
	// URL is the database's. It must have been brought up to date by
	// migrations.Up.
	URL string
	// Role is the database role to act as, so that even a powerful login
	// cannot change events; "" keeps the login's own.
	Role string
	// Keys wraps data keys and hashes claims.
	Keys *Keyring
	// Lanes is how many flushes may be under way at once: while one waits for
	// the disk, another stages. Default 2.
	Lanes int
	// Queue bounds the appends that wait for a flush; beyond it callers wait.
	// Default 4096.
	Queue int
	// FlushEvents bounds one flush's events. Default 2000. An append larger
	// than this is flushed alone.
	FlushEvents int
	// PoolSize bounds the connections for reading. Default 8.
	PoolSize int
	// KeyCache bounds the number of data keys held in memory. Default 20,000
	// (about 40 MB when full).
	KeyCache int
	// Poll is how often the log's end and the epoch are looked up when no
	// notification comes. Default one second.
	Poll time.Duration
	// Log receives what an operator should know. It never gets a payload.
	Log *slog.Logger
	// Rand is the source of event ids and data keys; nil is crypto/rand.
	Rand io.Reader
}

func (c *Config) setDefaults() {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Lanes, 2)
	def(&c.Queue, 4096)
	def(&c.FlushEvents, 2000)
	def(&c.PoolSize, 8)
	def(&c.KeyCache, 20_000)
	if c.Poll <= 0 {
		c.Poll = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
}

// Store is the log. It is safe for concurrent use.
type Store struct {
	cfg     Config
	pool    *pgxpool.Pool
	connCfg *pgx.ConnConfig // for the lanes' and the watcher's own connections
	logID   uuid.UUID
	standby bool

	committer *committer
	ids       *idSource
	keys      *keyCache
	watch     *watcher

	epochs atomic.Pointer[[]epoch] // ascending, never empty once New has returned

	stop   context.CancelFunc // ends the watcher and, at the very end, the lanes
	owned  sync.WaitGroup     // every goroutine of the store
	closed atomic.Bool
}

// New opens the log and starts its committer. Close ends it.
//
// A hot standby can be opened too: it is read like the primary, and appends
// fail with ErrUnavailable.
func New(ctx context.Context, cfg Config) (*Store, error) {
	cfg.setDefaults()
	if cfg.Keys == nil {
		return nil, errors.New("eventstore: no keys")
	}
	poolCfg, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("eventstore: the database URL is not usable: %w", err)
	}
	poolCfg.MaxConns = int32(cfg.PoolSize)
	params := poolCfg.ConnConfig.RuntimeParams
	if cfg.Role != "" {
		params["role"] = cfg.Role
	}
	if params["application_name"] == "" {
		params["application_name"] = "muster"
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolCfg)
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Store{cfg: cfg, pool: pool, connCfg: poolCfg.ConnConfig.Copy(), stop: stop, ids: newIDSource(cfg.Rand)}
	s.keys = newKeyCache(cfg.KeyCache)
	s.watch = newWatcher(s)
	if err := s.prepare(ctx); err != nil {
		stop()
		pool.Close()
		return nil, err
	}
	s.committer = newCommitter(s)
	s.owned.Add(1)
	go func() { defer s.owned.Done(); s.watch.run(running) }()
	if !s.standby {
		s.committer.start(running)
	}
	return s, nil
}

// prepare learns which log this is, and in which epoch, before anything runs.
func (s *Store) prepare(ctx context.Context) error {
	var syncCommit, fsync string
	err := s.pool.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('fsync'), id FROM log`).
		Scan(&s.standby, &syncCommit, &fsync, &s.logID)
	if err != nil {
		return fmt.Errorf("eventstore: reading the log's identity: %w", err)
	}
	if syncCommit == "off" || fsync == "off" {
		s.cfg.Log.Warn("the database does not wait for its disk: acknowledged events can be lost in a crash",
			"synchronous_commit", syncCommit, "fsync", fsync)
	}
	if s.standby {
		return s.loadEpochs(ctx)
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return s.identify(ctx, conn)
}

// connect opens a connection outside the pool.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, s.connCfg.Copy())
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	return conn, nil
}

// Close stops accepting appends, finishes those it accepted, and releases the
// connections. When ctx ends first, what is still unfinished is cut off: its
// callers get ErrUnavailable when nothing of theirs was appended, and
// context.Canceled when that is not known.
func (s *Store) Close(ctx context.Context) error {
	if s.closed.Swap(true) {
		return nil
	}
	err := s.committer.drain(ctx)
	s.stop()
	s.owned.Wait()
	s.pool.Close()
	return err
}

// Pool returns the pool of reading connections. They act under the store's
// role, so nothing done through them can change an event.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// LogID identifies this log; copies and restored backups share it.
func (s *Store) LogID() uuid.UUID { return s.logID }

// Keys returns the keyring that the store was opened with.
func (s *Store) Keys() *Keyring { return s.cfg.Keys }

// Standby reports whether the database is a hot standby.
func (s *Store) Standby() bool { return s.standby }
