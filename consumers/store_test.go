package consumers_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
)

// openStore gives the test a log of its own.
func openStore(t testing.TB) *eventstore.Store {
	t.Helper()
	s, _ := openStoreURL(t)
	return s
}

var dbs atomic.Int64

func freshDatabase(t testing.TB) string {
	ctx := context.Background()
	admin := "postgres://postgres@/postgres?host=/tmp/pgcons&port=54395"
	c, err := pgx.Connect(ctx, admin)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	name := fmt.Sprintf("c_%d_%d", time.Now().UnixNano(), dbs.Add(1))
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	url := "postgres://postgres@/" + name + "?host=/tmp/pgcons&port=54395"
	if err := migrations.Up(ctx, url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, _ := pgx.Connect(ctx, admin)
		c.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		c.Close(ctx)
	})
	return url
}

func openStoreURL(t testing.TB) (*eventstore.Store, string) {
	t.Helper()
	url := freshDatabase(t)
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		store.Close(ctx)
	})
	return store, url
}

// newUsers appends n users with so many profile changes each, user by user,
// and returns their ids.
func newUsers(t testing.TB, store *eventstore.Store, n, changes int) []string {
	t.Helper()
	ids := make([]string, n)
	as := make([]eventstore.Append, n)
	for i := range n {
		ids[i] = ulid.Make().String()
		as[i] = eventstore.Append{Stream: ids[i], Org: "org1", Actor: "test", Expected: eventstore.NoStream, At: time.Now(),
			Events: encode(append([]domain.Event{domain.HumanAdded{
				UserName: "user" + ids[i], Email: fmt.Sprintf("user%d@example.test", i),
				Profile: domain.Profile{FirstName: "Ada", LastName: "Lind", DisplayName: "Ada Lind", PreferredLanguage: "und"},
			}}, repeat(domain.Event(domain.UserLocked{}), changes)...)...)}
	}
	appendAll(t, store, as...)
	return ids
}

func repeat[T any](v T, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func encode(events ...domain.Event) []eventstore.NewEvent {
	out := make([]eventstore.NewEvent, len(events))
	for i, e := range events {
		data, personal := domain.Encode(e)
		out[i] = eventstore.NewEvent{Type: e.Type(), Schema: e.Schema(), Data: data, Personal: personal}
	}
	return out
}

func appendAll(t testing.TB, store *eventstore.Store, as ...eventstore.Append) {
	t.Helper()
	for len(as) > 0 {
		n := min(len(as), 500)
		for _, o := range store.AppendMany(t.Context(), as[:n]) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		as = as[n:]
	}
}

var unlocked domain.Event = domain.UserUnlocked{}

func lag(t testing.TB, admin *consumers.Admin, name string) int64 {
	t.Helper()
	list, err := admin.List(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Lag
}
