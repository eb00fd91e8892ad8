package projections

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// openStore opens the log in a database, acting as the service.
func openStore(t testing.TB, url string) *eventstore.Store {
	t.Helper()
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return openStoreWith(t, url, keys)
}

func openStoreWith(t testing.TB, url string, keys *eventstore.Keyring) *eventstore.Store {
	t.Helper()
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys, PoolSize: 8, Poll: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := store.Close(ctx); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return store
}

// openPool is the engine's pool, acting as the service.
func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 12
	cfg.ConnConfig.RuntimeParams["role"] = migrations.ServiceRole
	pool, err := openPoolWith(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openPoolWith(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	return pgxpool.NewWithConfig(ctx, cfg)
}

// testLog sends an engine's log to the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// world is a database with a log, and an engine that does not run.
type world struct {
	url   string
	store *eventstore.Store
	pool  *pgxpool.Pool
	*Engine
	seq atomic.Int64
}

func newWorld(t testing.TB, models ...Model) *world {
	t.Helper()
	if models == nil {
		models = Models()
	}
	url := pgtest.New(t)
	w := &world{url: url, store: openStore(t, url), pool: openPool(t, url)}
	w.Engine = w.engine(t, models...)
	return w
}

// engine is another instance on the world's database.
func (w *world) engine(t testing.TB, models ...Model) *Engine {
	return New(w.store, w.pool, models, Config{Instance: t.Name(), Logger: testLog(t), Batch: 200, WaitLimit: time.Minute})
}

// cut breaks the database connections that a condition on pg_stat_activity
// selects, and returns how many. It takes a superuser, which the service is not.
func (w *world) cut(t testing.TB, condition string) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		t.Errorf("connecting: %v", err)
		return 0
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND `+condition).Scan(&n)
	if err != nil {
		t.Errorf("cutting connections: %v", err)
	}
	return n
}

// run runs an engine until the test ends or stop is called.
func run(t testing.TB, e *Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the engine ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

var epochTime = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func encode(events ...domain.Event) []eventstore.NewEvent {
	out := make([]eventstore.NewEvent, len(events))
	for i, e := range events {
		out[i] = eventstore.NewEvent{Type: e.Type(), Schema: e.Schema()}
		out[i].Data, out[i].Personal = domain.Encode(e)
	}
	return out
}

// do appends events to a stream, whatever it has.
func (w *world) do(t testing.TB, stream, org string, events ...domain.Event) eventstore.Result {
	t.Helper()
	r, err := w.try(stream, org, events...)
	if err != nil {
		t.Fatalf("appending: %v", err)
	}
	return r
}

func (w *world) try(stream, org string, events ...domain.Event) (eventstore.Result, error) {
	n := w.seq.Add(1)
	return w.store.Append(context.Background(), eventstore.Append{Stream: stream, Org: org, Actor: "tester", Expected: eventstore.Any,
		At: epochTime.Add(time.Duration(n) * time.Second), Events: encode(events...)})
}

// person is what an import of the n-th person appends.
func person(n int) []domain.Event {
	name := fmt.Sprintf("user%d", n)
	return []domain.Event{
		domain.HumanAdded{UserName: name, Email: name + "@Example.test", Phone: fmt.Sprintf("+4171%07d", n),
			Profile: domain.Profile{FirstName: "Ada" + name, LastName: "Lind", DisplayName: "Ada" + name + " Lind", PreferredLanguage: "sv", Gender: domain.GenderFemale}},
		domain.EmailVerified{},
		domain.PasswordSet{Hash: "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm", Format: "bcrypt"},
		domain.MetadataSet{Entries: []domain.Metadata{{Key: "source", Value: []byte("test")}}},
	}
}

func userID(n int) string { return fmt.Sprintf("01JQ%022d", n) }

// settle waits until an engine somewhere has applied all of the log.
func (w *world) settle(t testing.TB, names ...string) eventstore.Position {
	t.Helper()
	head, err := w.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		// A pooled connection that a test has cut fails once, and is replaced.
		err := w.WaitFor(t.Context(), name, head.Position)
		for tries := 0; err != nil && domain.AsError(err).Kind == domain.KindInternal && tries < 20; tries++ {
			err = w.WaitFor(t.Context(), name, head.Position)
		}
		if err != nil {
			t.Fatalf("waiting: %v", err)
		}
	}
	return head.Position
}

// sound fails the test unless a read model agrees with the events.
func (w *world) sound(t testing.TB, name string) Report {
	t.Helper()
	r, err := w.Verify(t.Context(), name, 0)
	if err != nil {
		t.Fatalf("verifying %s: %v", name, err)
	}
	if r.Drifted != 0 || r.Stopped != 0 {
		t.Fatalf("%s: %d differences, %d stopped, such as %+v", name, r.Drifted, r.Stopped, r.Drifts[:min(3, len(r.Drifts))])
	}
	return r
}

// acquire takes all ranges of a live version that are free. errBusy when none
// is.
func (w *world) acquire(ctx context.Context, m Model, version int, owner string) (*session, error) {
	s := w.session(m, version, owner)
	all, err := s.partition(ctx)
	if err != nil {
		return nil, err
	}
	n, err := s.take(ctx, all)
	if err == nil && n == 0 {
		err = errBusy
	}
	return s, err
}
