package eventstore_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// keyring makes a fresh one for a test.
func keyring(t testing.TB) *eventstore.Keyring {
	t.Helper()
	k, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open opens a store; change may adapt its configuration.
func open(t testing.TB, url string, keys *eventstore.Keyring, change func(*eventstore.Config)) *eventstore.Store {
	t.Helper()
	cfg := eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys, Poll: 100 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	s, err := eventstore.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fresh opens a store on a database of its own.
func fresh(t testing.TB) *eventstore.Store {
	t.Helper()
	return open(t, pgtest.New(t), keyring(t), nil)
}

// owner connects as the tables' owner.
func owner(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

var at = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var serial atomic.Int64

// user is the append of a new user of three events and one claim.
func user() eventstore.Append {
	n := serial.Add(1)
	return eventstore.Append{
		Stream: fmt.Sprintf("user-%d", n),
		Org:    "org", Actor: "tester", At: at,
		Events: []eventstore.NewEvent{
			{Type: "HumanAdded", Schema: 1, Data: []byte("open"), Personal: fmt.Appendf(nil, "secret %d", n)},
			{Type: "EmailVerified", Schema: 1},
			{Type: "PasswordSet", Schema: 1, Personal: []byte("hash")},
		},
		Take: []eventstore.Claim{name(fmt.Sprintf("name-%d", n))},
	}
}

func name(value string) eventstore.Claim {
	return eventstore.Claim{Kind: "login_name", Value: value}
}

// more is an append of one more event to a stream.
func more(stream string, expected eventstore.Expected) eventstore.Append {
	return eventstore.Append{
		Stream: stream, Org: "org", Actor: "tester", At: at, Expected: expected,
		Events: []eventstore.NewEvent{{Type: "ProfileChanged", Schema: 1, Personal: []byte("more")}},
	}
}

func must(t testing.TB, s *eventstore.Store, a eventstore.Append) eventstore.Result {
	t.Helper()
	r, err := s.Append(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sound verifies the whole log, with claims as user and Take lay them down.
func sound(t testing.TB, s *eventstore.Store, claims func(string, []eventstore.Event) ([]eventstore.Claim, error)) eventstore.VerifySummary {
	t.Helper()
	sum, err := s.Verify(context.Background(), eventstore.VerifyOptions{Claims: claims}, func(f eventstore.Finding) { t.Error(f) })
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// connExec and poolExec run a statement for its error only.
type connExec struct{ conn *pgx.Conn }

func (e connExec) Exec(ctx context.Context, sql string) error {
	_, err := e.conn.Exec(ctx, sql)
	return err
}

type poolExec struct{ store *eventstore.Store }

func (e poolExec) Exec(ctx context.Context, sql string) error {
	_, err := e.store.Pool().Exec(ctx, sql)
	return err
}

// eventually waits for a condition that another instance brings about.
func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}
