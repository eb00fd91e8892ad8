package signin_test

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

const origin = "https://id.example.org"

// rig is a database with instances of the service on it.
type rig struct {
	t    testing.TB
	url  string
	keys *eventstore.Keyring
	*signin.Service
	store *eventstore.Store
	one   *importer.Importer
}

func newRig(t testing.TB, change func(*signin.Config)) *rig {
	t.Helper()
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, url: pgtest.New(t), keys: keys}
	r.Service, r.store = r.instance(change)
	r.one = &importer.Importer{Store: r.store, Passwords: password.NewPool(2, rand.Reader), Policy: domain.DefaultPolicy(), Now: time.Now, Rand: rand.Reader}
	return r
}

// instance starts one more instance of the service on the same database.
func (r *rig) instance(change func(*signin.Config)) (*signin.Service, *eventstore.Store) {
	r.t.Helper()
	ctx := context.Background()
	store, err := eventstore.New(ctx, eventstore.Config{URL: r.url, Role: migrations.ServiceRole, Keys: r.keys})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := signin.Config{Store: store, Policy: domain.DefaultPolicy(), Passwords: password.NewPool(2, rand.Reader), Lockout: 10}
	if change != nil {
		change(&cfg)
	}
	s, err := signin.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			r.t.Errorf("what was begun behind answers did not end: %v", err)
		}
		store.Close(ctx)
	})
	return s, store
}

// person imports somebody; change may adjust the command.
func (r *rig) person(change func(*domain.ImportHuman)) (id string, passkey domain.Code) {
	r.t.Helper()
	cmd := domain.ImportHuman{
		UserName: "minnie", Profile: domain.Profile{FirstName: "Minnie", LastName: "Mouse"},
		Email: domain.Email{Address: "minnie@example.org", Verified: true},
	}
	change(&cmd)
	out, err := r.one.Import(context.Background(), importer.Caller{ID: "test", Org: "org-1"}, cmd, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if out.Passkey != nil {
		passkey = *out.Passkey
	}
	return out.Result.Stream, passkey
}

// user folds a user's events.
func (r *rig) user(id string) *domain.User {
	r.t.Helper()
	events, err := r.store.ReadStream(context.Background(), id, 0)
	if err == nil {
		err = r.store.Open(context.Background(), events)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	u := domain.NewUser(id, "org-1")
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			r.t.Fatal(err)
		}
		u.Apply(fact)
	}
	return u
}

// types are the types of a user's events after a sequence.
func (r *rig) types(id string, after int64) (types []string) {
	r.t.Helper()
	events, err := r.store.ReadStream(context.Background(), id, after)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func appendOf(d domain.Decision) eventstore.Append { return access.NewAppend(d, "test", time.Now()) }
