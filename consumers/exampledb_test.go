package consumers_test

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// exampleTB is what pgtest needs of a test, for examples, which are given none.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (e *exampleTB) Helper()                      {}
func (e *exampleTB) Name() string                 { return "Example" }
func (e *exampleTB) Cleanup(f func())             { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Fatal(args ...any)            { log.Fatal(args...) }
func (e *exampleTB) Fatalf(f string, args ...any) { log.Fatalf(f, args...) }
func (e *exampleTB) Errorf(f string, args ...any) { log.Printf(f, args...) }
func (e *exampleTB) Logf(string, ...any)          {}

// exampleStore opens a log for an example.
func exampleStore() (store *eventstore.Store, done func()) {
	tb := &exampleTB{}
	url := pgtest.New(tb)
	dir, err := os.MkdirTemp("", "muster-example")
	if err != nil {
		log.Fatal(err)
	}
	keys, err := eventstore.CreateKeyring(filepath.Join(dir, "keys.json"))
	if err != nil {
		log.Fatal(err)
	}
	store, err = eventstore.New(context.Background(), eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		log.Fatal(err)
	}
	return store, func() {
		store.Close(context.Background())
		for _, f := range tb.cleanups {
			f()
		}
		os.RemoveAll(dir)
	}
}
