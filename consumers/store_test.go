package consumers_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// openStore gives the test a log of its own.
func openStore(t testing.TB) *eventstore.Store {
	t.Helper()
	s, _ := openStoreURL(t)
	return s
}

func openStoreURL(t testing.TB) (*eventstore.Store, string) {
	t.Helper()
	url := pgtest.New(t)
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

var (
	locked   domain.Event = domain.UserLocked{}
	unlocked domain.Event = domain.UserUnlocked{}
)

func lag(t testing.TB, admin *consumers.Admin, name string) int64 {
	t.Helper()
	list, err := admin.List(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return list[0].Lag
}
