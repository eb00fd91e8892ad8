package signin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
)

// oldSystem is a system that checks passwords.
type oldSystem struct {
	*httptest.Server
	asked  atomic.Int64
	status atomic.Int64 // answered instead, when set
	last   atomic.Value // what was asked, map[string]string
	header atomic.Value
}

func newOldSystem(t *testing.T, password string) *oldSystem {
	o := &oldSystem{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		var q map[string]string
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		o.last.Store(q)
		o.header.Store(r.Header.Get("Authorization"))
		switch {
		case o.status.Load() == http.StatusFound:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case o.status.Load() != 0:
			w.WriteHeader(int(o.status.Load()))
		case q["password"] != password:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

// delegate imports somebody whose password only the old system knows.
func (r *rig) delegate(name string, change func(*domain.ImportHuman)) string {
	id, _ := r.person(func(c *domain.ImportHuman) {
		c.UserName, c.OldSystem, c.ExternalID = name, true, "old-"+name
		if change != nil {
			change(c)
		}
	})
	// A single import has no job.
	u := r.user(id)
	d := domain.Decision{Stream: id, Org: u.Org, Expected: u.Sequence, Events: []domain.Event{domain.PasswordDelegated{Job: "job", ChangeRequired: u.ChangeRequired}}}
	if _, err := r.store.Append(context.Background(), appendOf(d)); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func asking(o *oldSystem, change func(*signin.OldSystemsConfig)) func(*signin.Config) {
	return func(c *signin.Config) {
		cfg := signin.OldSystemsConfig{
			Verifier: func(_ context.Context, job string) (signin.Verifier, error) {
				if job != "job" {
					return signin.Verifier{}, nil
				}
				return signin.Verifier{URL: o.URL + "/check", Authorization: "Bearer old"}, nil
			},
			AllowPrivate: true,
		}
		if change != nil {
			change(&cfg)
		}
		c.OldSystems, c.Lockout = signin.NewOldSystems(cfg), 3
	}
}

func TestOldSystemIsAskedOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := newOldSystem(t, "pw") // no policy would let that pass
	r := newRig(t, asking(o, nil))
	id := r.delegate("minnie", func(c *domain.ImportHuman) { c.ChangeRequired = true })
	before := r.user(id)
	if before.State != domain.StateActive || before.HasPassword {
		t.Fatalf("%+v", before)
	}
	for _, guess := range []string{"", "wrong", "pw\x00"} {
		_, err := r.CreateSession(ctx, page, withPassword("minnie", guess))
		wantError(t, err, domain.ErrPasswordWrong)
		if guess == "wrong" {
			if _, _, err := change(r, id, (*domain.User).Lock); err != nil { // forgets the failures when undone
				t.Fatal(err)
			}
			if _, err := r.CreateSession(ctx, page, withPassword("minnie", "pw")); !errors.Is(err, domain.ErrUserNotActive) {
				t.Errorf("a locked user: %v", err)
			}
			if _, _, err := change(r, id, (*domain.User).Unlock); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := o.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once: for the guess that could be a password, while the user is active", n)
	}
	a, err := r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	if err != nil || a.Session.Next() != signin.StepChange {
		t.Fatalf("%s, %v", a.Session.Next(), err)
	}
	if q := o.last.Load().(map[string]string); q["loginName"] != "minnie" || q["userId"] != id || q["externalId"] != "old-minnie" || o.header.Load() != "Bearer old" {
		t.Errorf("asked %v with %q", q, o.header.Load())
	}
	u := r.user(id)
	if !u.HasPassword || u.OldSystem != "" || u.PasswordFormat != domain.HouseFormat {
		t.Errorf("%+v", u)
	}
	if got := r.types(id, u.Sequence-2); !slices.Equal(got, []string{domain.TypePasswordChecked, domain.TypePasswordSet}) {
		t.Errorf("events %v", got)
	}
	o.status.Store(500)
	asked := o.asked.Load()
	if _, err := r.CreateSession(ctx, page, withPassword("minnie", "pw")); err != nil || o.asked.Load() != asked {
		t.Errorf("the second login: %v, asked %d times more", err, o.asked.Load()-asked)
	}
}

// Of many logins at once, one takes the password over.
func TestOldSystemAtOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := newOldSystem(t, "pw")
	r := newRig(t, asking(o, nil))
	id := r.delegate("minnie", nil)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := r.CreateSession(ctx, page, withPassword("minnie", "pw")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	set := 0
	for _, e := range r.types(id, 0) {
		if e == domain.TypePasswordSet {
			set++
		}
	}
	if set != 1 {
		t.Errorf("the password was set %d times", set)
	}
}

func TestOldSystemLockout(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := newOldSystem(t, "pw")
	r := newRig(t, asking(o, nil))
	r.delegate("minnie", nil)
	for range 5 {
		if _, err := r.CreateSession(ctx, page, withPassword("minnie", "wrong")); err == nil {
			t.Error("a guess got in")
		}
	}
	if n := o.asked.Load(); n != 3 {
		t.Errorf("the old system was guessed at %d times, want 3", n)
	}
}

func TestOldSystemThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := newOldSystem(t, "pw")
	c := &clock{at: time.Now()}
	r := newRig(t, func(cfg *signin.Config) {
		cfg.Now = c.now
		asking(o, func(cfg *signin.OldSystemsConfig) { cfg.Now, cfg.Failures, cfg.Pause = c.now, 3, time.Minute })(cfg)
	})
	id := r.delegate("minnie", nil)
	before := r.user(id).Sequence
	for _, status := range []int64{500, 302, 429} {
		o.status.Store(status)
		_, err := r.CreateSession(ctx, page, withPassword("minnie", "pw"))
		wantError(t, err, signin.ErrOldSystem)
	}
	o.status.Store(0)
	_, err := r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	wantError(t, err, signin.ErrOldSystem)
	if n := o.asked.Load(); n != 3 {
		t.Errorf("asked %d times, want 3: then a pause", n)
	}
	if got := r.types(id, before); len(got) != 0 {
		t.Errorf("no answer was counted: %v", got)
	}
	c.add(61 * time.Second)
	o.status.Store(503)
	_, err = r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	wantError(t, err, signin.ErrOldSystem)
	o.status.Store(0)
	_, err = r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	wantError(t, err, signin.ErrOldSystem)
	if n := o.asked.Load(); n != 4 {
		t.Errorf("asked %d times, want 4: one to find out whether it is back", n)
	}
	c.add(61 * time.Second)
	if _, err := r.CreateSession(ctx, page, withPassword("minnie", "pw")); err != nil {
		t.Errorf("it is back: %v", err)
	}
}

// Who hangs up while the old system is asked says nothing about it.
func TestOldSystemAndWhoHangsUp(t *testing.T) {
	t.Parallel()
	impatient, hangUp := context.WithCancel(context.Background())
	var once sync.Once
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() {
			_, _ = io.Copy(io.Discard, r.Body)
			hangUp()
			<-r.Context().Done()
		})
	}))
	defer slow.Close()
	r := newRig(t, asking(&oldSystem{Server: slow}, func(c *signin.OldSystemsConfig) { c.Failures = 1 }))
	r.delegate("minnie", nil)
	if _, err := r.CreateSession(impatient, page, withPassword("minnie", "pw")); err == nil {
		t.Error("no answer is a right one")
	}
	if _, err := r.CreateSession(context.Background(), page, withPassword("minnie", "pw")); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// No name leads into a network that is not public.
func TestOldSystemAddresses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	o := newOldSystem(t, "pw")
	r := newRig(t, asking(o, func(c *signin.OldSystemsConfig) { c.AllowPrivate = false }))
	r.delegate("minnie", nil)
	_, err := r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	wantError(t, err, signin.ErrOldSystem)
	if o.asked.Load() != 0 {
		t.Error("a loopback address was called")
	}
	r = newRig(t, asking(o, func(c *signin.OldSystemsConfig) {
		c.Verifier = func(context.Context, string) (signin.Verifier, error) { return signin.Verifier{}, nil }
	}))
	r.delegate("minnie", nil)
	_, err = r.CreateSession(ctx, page, withPassword("minnie", "pw"))
	wantError(t, err, signin.ErrOldSystem)
}
