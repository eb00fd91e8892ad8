// Package servicetest runs the service, or parts of it, for tests: on a real
// port over a real database of their own.
package servicetest

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
	"github.com/muster-id/muster/projections"
)

// AdminToken is the administrator's token of the tests' services.
const AdminToken = "the-administrator's-token"

// Store opens a log of its own, with fresh keys, as the service's role.
func Store(t testing.TB) *eventstore.Store {
	t.Helper()
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.New(context.Background(), eventstore.Config{URL: pgtest.New(t), Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close(context.Background()) })
	return store
}

// Projections runs all read models until the test ends. They are built when it
// returns.
func Projections(t testing.TB, store *eventstore.Store) *projections.Engine {
	t.Helper()
	engine := projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: slog.New(slog.DiscardHandler)})
	running, stop := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := engine.Run(running); err != nil && running.Err() == nil {
			t.Errorf("projections: %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-ran })
	if err := engine.WaitFor(context.Background(), "users", 0); err != nil {
		t.Fatal(err)
	}
	return engine
}

// Listen opens a free port of the loopback interface.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Serve serves until shutdown is called, or the test ends. Shutdown closes
// stopping, finishes what was accepted, and fails the test when that takes long.
func Serve(t testing.TB, l net.Listener, deps handlers.Deps, stopping chan<- struct{}) (shutdown func()) {
	t.Helper()
	server := handlers.NewHTTPServer("", handlers.New(deps), deps.Log)
	server.RegisterOnShutdown(func() { close(stopping) })
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(l) }()
	shutdown = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
			server.Close()
		}
		<-served
	})
	t.Cleanup(shutdown)
	return shutdown
}
