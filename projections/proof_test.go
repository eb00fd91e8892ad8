package projections

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// imports is how many imports the proofs make: 2,000, or what
// MUSTER_PROOF_IMPORTS says; the promise is tried with 100,000.
func imports(t *testing.T) int {
	if text := os.Getenv("MUSTER_PROOF_IMPORTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("MUSTER_PROOF_IMPORTS=%s", text)
		}
		return n
	}
	return 2000
}

// TestNoAnswerIsStale imports people through one instance and reads each at
// once through another, and some on a hot standby: by id, and by login name
// with the write's position. The two instances on the primary share the
// projecting; half way one is stopped, and the other does it all.
func TestNoAnswerIsStale(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewServer(t, map[string]string{"fsync": "off", "wal_writer_delay": "10ms"})
	copied := primary.Standby(t)
	w := &world{url: primary.URL(), store: openStore(t, primary.URL()), pool: openPool(t, primary.URL())}
	w.Engine = w.engine(t, users)
	other := w.engine(t, users)
	other.cfg.Instance, other.pool = "other", openPool(t, primary.URL())
	stop := run(t, w.Engine)
	w.settle(t, "users") // it is built, by the first
	run(t, other)
	eventually(t, "the two share it", func() bool { return w.holds["users"].Load() == 4 && other.holds["users"].Load() == 4 })
	var (
		store  *eventstore.Store
		reader *Engine
	)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var there bool
		err := openPool(t, copied.URL()).QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM projections WHERE state = 'live')`).Scan(&there)
		if err == nil && there {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the standby does not follow: %v", err)
		}
	}
	store = openStoreWith(t, copied.URL(), w.store.Keys())
	reader = New(store, openPool(t, copied.URL()), []Model{users}, Config{Logger: testLog(t), WaitLimit: time.Minute})
	run(t, reader)

	total := imports(t)
	var next, stale atomic.Int64
	var group sync.WaitGroup
	look := func(n int, name string, e *Engine, s *eventstore.Store, r eventstore.Result) {
		fail := func(how string, got any, err error) {
			if stale.Add(1) < 10 {
				t.Errorf("user %d %s, %s: %+v, %v", n, name, how, got, err)
			}
		}
		if s != nil { // as a read with the position does
			if err := s.Wait(t.Context(), r.Position-1); err != nil {
				fail("waiting", nil, err)
				return
			}
		}
		if u, err := e.UserByID(t.Context(), InOrg("org1"), userID(n)); err != nil || u.Sequence < r.Last {
			fail("by id", u.Sequence, err)
		}
		if err := e.WaitFor(t.Context(), "users", r.Position); err != nil {
			fail("waiting for the rows", nil, err)
			return
		}
		if u, at, err := e.UserByLoginName(t.Context(), InOrg("org1"), fmt.Sprintf("USER%d", n)); err != nil || u.Sequence < r.Last || at.Position < r.Position {
			fail("by login name", at, err)
		}
	}
	halfway := sync.OnceFunc(func() { group.Go(stop) })
	for range 48 {
		group.Go(func() {
			for {
				n := int(next.Add(1))
				if n > total {
					return
				}
				if n > total/2 {
					halfway()
				}
				r, err := w.try(userID(n), "org1", person(n)...)
				if err != nil {
					t.Errorf("user %d: %v", n, err)
					return
				}
				look(n, "on the other instance", other, nil, r)
				if n%20 == 0 {
					if r, err = w.try(userID(n), "org1", domain.UserLocked{}); err != nil {
						t.Errorf("user %d: %v", n, err)
						return
					}
					look(n, "on the standby", reader, store, r)
				}
			}
		})
	}
	group.Wait()
	if n := stale.Load(); n > 0 {
		t.Errorf("%d of %d reads were stale", n, total)
	}
	w.sound(t, "users")
}
