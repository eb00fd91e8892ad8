package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

func positions(events []eventstore.Event) []eventstore.Position {
	var ps []eventstore.Position
	for _, e := range events {
		ps = append(ps, e.Position)
	}
	return ps
}

func TestReadPages(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	var as []eventstore.Append
	for i := range 40 {
		a := user()
		if i%4 == 0 {
			a.Org = "other"
		}
		as = append(as, a)
	}
	for _, chunk := range [][]eventstore.Append{as[:1], as[1:20], as[20:]} {
		for _, o := range s.AppendMany(t.Context(), chunk) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
	}
	all, err := s.Read(t.Context(), eventstore.Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range all {
		if e.Position != eventstore.Position(i+1) {
			t.Fatalf("position %d at place %d", e.Position, i)
		}
	}
	if len(all) != 120 {
		t.Fatalf("%d events", len(all))
	}
	keep := func(f func(eventstore.Event) bool) []eventstore.Event {
		return slices.DeleteFunc(slices.Clone(all), func(e eventstore.Event) bool { return !f(e) })
	}
	for name, c := range map[string]struct {
		q    eventstore.Query
		want []eventstore.Event
	}{
		"everything":         {eventstore.Query{}, all},
		"after":              {eventstore.Query{After: 7}, all[7:]},
		"up to":              {eventstore.Query{UpTo: 11}, all[:11]},
		"a window":           {eventstore.Query{After: 5, UpTo: 6}, all[5:6]},
		"beyond the end":     {eventstore.Query{After: 500}, nil},
		"a type":             {eventstore.Query{Types: []string{"PasswordSet"}}, keep(func(e eventstore.Event) bool { return e.Type == "PasswordSet" })},
		"an organisation":    {eventstore.Query{Org: "other"}, keep(func(e eventstore.Event) bool { return e.Org == "other" })},
		"slices":             {eventstore.Query{FirstSlice: 100, LastSlice: 600}, keep(func(e eventstore.Event) bool { return e.Slice >= 100 && e.Slice <= 600 })},
		"all types but one":  {eventstore.Query{NotTypes: []string{"PasswordSet", "Nonsense"}}, keep(func(e eventstore.Event) bool { return e.Type != "PasswordSet" })},
		"a type of an org":   {eventstore.Query{Org: "other", Types: []string{"HumanAdded", "PasswordSet"}, After: 2}, keep(func(e eventstore.Event) bool { return e.Org == "other" && e.Type != "EmailVerified" && e.Position > 2 })},
		"nothing that there": {eventstore.Query{Types: []string{"Nonsense"}}, nil},
	} {
		// Page by page, whatever the page's size, the same events come.
		for _, limit := range []int{1, 7, 1000} {
			var got []eventstore.Event
			q := c.q
			q.Limit = limit
			for {
				page, err := s.ReadPage(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Events) > limit {
					t.Fatalf("%s: a page of %d for a limit of %d", name, len(page.Events), limit)
				}
				got = append(got, page.Events...)
				if page.Through <= q.After {
					break
				}
				q.After = page.Through
			}
			if diff := cmp.Diff(positions(c.want), positions(got)); diff != "" {
				t.Errorf("%s, limit %d: %s", name, limit, diff)
			}
		}
	}

	var sliced []eventstore.Event
	err = s.ReadSlices(t.Context(), 0, eventstore.Slices-1, 100, nil, func(run []eventstore.Event) error {
		sliced = append(sliced, run...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := keep(func(e eventstore.Event) bool { return e.Position <= 100 })
	slices.SortFunc(want, func(a, b eventstore.Event) int {
		return cmpOr(int(a.Slice)-int(b.Slice), cmpString(a.Stream, b.Stream), int(a.Sequence-b.Sequence))
	})
	if diff := cmp.Diff(want, sliced); diff != "" {
		t.Error(diff)
	}

	// Sealed parts come with the types that are asked for.
	for i := range want {
		if want[i].Type != "PasswordSet" {
			want[i].Sealed = nil
		}
	}
	sliced = nil
	err = s.ReadSlices(t.Context(), 0, eventstore.Slices-1, 100, []string{"PasswordSet"}, func(run []eventstore.Event) error {
		sliced = append(sliced, run...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sliced); diff != "" {
		t.Error(diff)
	}
}

func cmpOr(values ...int) int {
	for _, v := range values {
		if v != 0 {
			return v
		}
	}
	return 0
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// TestReadSlicesInRuns looks that runs end between streams, however long.
func TestReadSlicesInRuns(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	long := user()
	must(t, s, long)
	for i := range 9 {
		a := more(long.Stream, eventstore.Expected(3+1000*i))
		a.Events = slices.Repeat(a.Events, 1000)
		must(t, s, a)
	}
	must(t, s, user())
	seen := map[string]bool{}
	n := 0
	err := s.ReadSlices(t.Context(), 0, eventstore.Slices-1, 0, nil, func(run []eventstore.Event) error {
		for i, e := range run {
			if i == 0 || run[i-1].Stream != e.Stream {
				if seen[e.Stream] {
					t.Errorf("stream %s is torn apart", e.Stream)
				}
				seen[e.Stream] = true
			}
			n++
		}
		return nil
	})
	if err != nil || n != 9006 || len(seen) != 2 {
		t.Errorf("%d events of %d streams, %v", n, len(seen), err)
	}
	stop := errors.New("stop")
	if err := s.ReadSlices(t.Context(), 0, 1023, 0, nil, func([]eventstore.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the callback became %v", err)
	}
}

// TestFollowing reads from several stores while others append: every reader
// sees every position, in order, woken without waiting for the poll.
func TestFollowing(t *testing.T) {
	t.Parallel()
	url, keys := pgtest.New(t), keyring(t)
	slow := func(c *eventstore.Config) { c.Poll = time.Hour } // only notifications wake
	stores := []*eventstore.Store{open(t, url, keys, slow), open(t, url, keys, slow)}
	const users = 300
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			after := eventstore.Position(0)
			for after < 2*users*3 {
				if err := s.Wait(context.Background(), after); err != nil {
					t.Error(err)
					return
				}
				events, err := s.Read(context.Background(), eventstore.Query{After: after, Limit: 50})
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if e.Position != after+1 {
						t.Errorf("reader %d: position %d after %d", i, e.Position, after)
						return
					}
					after = e.Position
				}
			}
		})
	}
	for _, s := range stores {
		wg.Go(func() {
			for range users {
				if _, err := s.Append(context.Background(), user()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFailover promotes a standby that lacks the last events. The new primary
// begins a new epoch at the fork, in which positions are used again; whoever
// had handled the lost ones is told.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewServer(t, nil)
	keys := keyring(t)
	s := open(t, primary.URL(), keys, nil)
	for range 3 {
		must(t, s, user())
	}
	standby := primary.Standby(t)
	reader := open(t, standby.URL(), keys, nil)
	if !reader.Standby() || reader.Epoch() != 1 {
		t.Fatalf("standby %v, epoch %d", reader.Standby(), reader.Epoch())
	}
	if err := reader.Wait(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	events, err := reader.Read(t.Context(), eventstore.Query{})
	if err != nil || len(events) != 9 {
		t.Fatalf("%d events on the standby, %v", len(events), err)
	}
	if err := reader.Open(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Append(t.Context(), user()); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("a standby takes appends: %v", err)
	}
	// What the standby never gets: it is cut off by stopping its source first.
	standby.Stop(t)
	lost := must(t, s, user())
	if lost.Position != 12 {
		t.Fatal(lost)
	}
	primary.Kill(t)
	standby.Start(t)
	standby.Promote(t)

	promoted := open(t, standby.URL(), keys, nil)
	if promoted.Epoch() != 2 {
		t.Fatalf("epoch %d after the promotion", promoted.Epoch())
	}
	anew := must(t, promoted, user())
	if anew.Position != 12 || anew.Epoch != 2 {
		t.Fatalf("%+v", anew)
	}
	resume := func(c eventstore.Checkpoint) (eventstore.Checkpoint, error) { return promoted.Resume(t.Context(), c) }
	for _, c := range []struct {
		in, out eventstore.Checkpoint
	}{
		{eventstore.Checkpoint{}, eventstore.Checkpoint{Epoch: 2}},
		{eventstore.Checkpoint{Epoch: 1, Position: 9}, eventstore.Checkpoint{Epoch: 2, Position: 9}},
		{eventstore.Checkpoint{Epoch: 2, Position: 12}, eventstore.Checkpoint{Epoch: 2, Position: 12}},
	} {
		if got, err := resume(c.in); err != nil || got != c.out {
			t.Errorf("%+v became %+v, %v", c.in, got, err)
		}
	}
	var fork *eventstore.ForkError
	if _, err := resume(eventstore.Checkpoint{Epoch: 1, Position: 12}); !errors.As(err, &fork) || fork.Fork != 10 || fork.Current != 2 {
		t.Errorf("a checkpoint past the fork: %v", err)
	}
	if back, err := promoted.Rewind(t.Context(), eventstore.Checkpoint{Epoch: 1, Position: 12}); err != nil || back != (eventstore.Checkpoint{Epoch: 2, Position: 9}) {
		t.Errorf("rewound to %+v, %v", back, err)
	}
	var ahead *eventstore.AheadError
	for _, c := range []eventstore.Checkpoint{{Epoch: 2, Position: 13}, {Epoch: 3, Position: 1}} {
		if _, err := resume(c); !errors.As(err, &ahead) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	epochs := map[int32]int{}
	events, err = promoted.Read(t.Context(), eventstore.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		epochs[e.Epoch]++
	}
	if diff := cmp.Diff(map[int32]int{1: 9, 2: 3}, epochs); diff != "" {
		t.Error(diff)
	}
	sound(t, promoted, nil)
}

// TestFailoverWhileRunning moves a store, behind one address, from a primary
// that dies to a standby that was promoted and lacks the last events. The store
// finds the new primary by itself, appends in a new epoch, and its readers do
// not wait for positions that are gone.
func TestFailoverWhileRunning(t *testing.T) {
	t.Parallel()
	primary := pgtest.NewServer(t, nil)
	keys := keyring(t)
	relay := newRelay(t, primary.TCPURL())
	s := open(t, relay.url, keys, nil)
	must(t, s, user())
	standby := primary.Standby(t)
	reader := open(t, standby.URL(), keys, nil)
	if err := reader.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	standby.Stop(t)
	lost := must(t, s, user())
	handled := eventstore.Checkpoint{Epoch: lost.Epoch, Position: lost.Position}
	primary.Kill(t)
	standby.Start(t)
	standby.Promote(t)
	relay.to(t, standby.TCPURL())

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.Append(ctx, user())
	if err != nil || r.Epoch != 2 || r.Position != 6 || r.First != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	var fork *eventstore.ForkError
	if _, err := s.Resume(ctx, handled); !errors.As(err, &fork) || fork.Fork != 4 || fork.Checkpoint != handled {
		t.Errorf("a consumer that handled what is gone: %v", err)
	}
	if n, err := s.Sequence(ctx, lost.Stream); err != nil || n != 0 {
		t.Errorf("the lost stream has sequence %d, %v", n, err)
	}
	eventually(t, func() bool {
		head, err := s.Head(ctx)
		return err == nil && head == (eventstore.Checkpoint{Epoch: 2, Position: 6})
	})
	sound(t, s, nil)
}

// relay passes connections on to a server that can be exchanged.
type relay struct {
	url string

	mu     sync.Mutex // guards target
	target string
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	r := &relay{}
	r.to(t, target)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	r.url = u.String()
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			target := r.target
			r.mu.Unlock()
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			for _, c := range [][2]net.Conn{{client, server}, {server, client}} {
				wg.Go(func() {
					io.Copy(c[0], c[1])
					c[0].Close()
					c[1].Close()
				})
			}
		}
	})
	return r
}

func (r *relay) to(t *testing.T, target string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = u.Host
}

// TestRestartKeepsTheEpoch crashes the server under a store: the store finds
// back by itself, and a crash is no new history.
func TestRestartKeepsTheEpoch(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil)
	keys := keyring(t)
	s := open(t, server.URL(), keys, nil)
	must(t, s, user())
	server.Kill(t)
	server.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := s.Append(ctx, user())
	if err != nil || r.Epoch != 1 || r.Position != 6 {
		t.Errorf("after a crash: %+v, %v", r, err)
	}
	if s.Epoch() != 1 {
		t.Errorf("epoch %d after a mere crash", s.Epoch())
	}
	sound(t, s, nil)
}

func ExampleSliceOf() {
	fmt.Println(eventstore.SliceOf("01JDMQ9T7W3M8ZK2V5XN4RBCHA") < eventstore.Slices)
	// Output: true
}
