package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

func TestAppendAndReadBack(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a := user()
	r := must(t, s, a)
	want := eventstore.Result{Stream: a.Stream, First: 1, Last: 3, Position: 3, Epoch: 1, At: at}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Fatal(diff)
	}
	r = must(t, s, more(a.Stream, 3))
	if r.First != 4 || r.Last != 4 || r.Position != 4 {
		t.Fatalf("%+v", r)
	}
	events, err := s.Read(t.Context(), eventstore.Query{})
	if err != nil {
		t.Fatal(err)
	}
	same, err := s.ReadStream(t.Context(), a.Stream, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events, same); diff != "" {
		t.Errorf("by position and by stream differ: %s", diff)
	}
	if err := s.Open(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, e := range events {
		if e.Position != eventstore.Position(i+1) || e.Sequence != int64(i+1) || e.Stream != a.Stream || e.Org != "org" ||
			e.Actor != "tester" || !e.At.Equal(at) || e.Slice != eventstore.SliceOf(a.Stream) || e.Epoch != 1 {
			t.Errorf("%+v", e)
		}
		if strings.Contains(string(e.Sealed), "secret") {
			t.Error("a sealed payload is in clear")
		}
		got = append(got, fmt.Sprintf("%s/%s/%s", e.Type, e.Data, e.Personal))
	}
	if diff := cmp.Diff([]string{"HumanAdded/open/" + string(a.Events[0].Personal), "EmailVerified//", "PasswordSet//hash", "ProfileChanged//more"}, got); diff != "" {
		t.Error(diff)
	}
	if events[1].Sealed != nil || events[1].Data != nil {
		t.Error("an event without payload has one")
	}
}

// TestVerdicts gives one flush many requests of which some must fail, and looks
// that each gets its own verdict and no other is touched.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	taken := user()
	must(t, s, taken)

	good1, good2 := user(), user()
	conflict := user()
	conflict.Take = append(conflict.Take, taken.Take[0]) // its own name is free and must stay so
	twin1, twin2 := user(), user()
	twin2.Take = twin1.Take
	passed1, passed2 := user(), user() // the first fails, so the second gets the name they share
	passed1.Take = []eventstore.Claim{name("shared"), taken.Take[0]}
	passed2.Take = []eventstore.Claim{name("shared")}
	again := user()
	again.Stream = taken.Stream
	wrong := more(taken.Stream, 7)
	empty, null := user(), user()
	empty.Events = nil
	null.Org = "a\x00b"
	next1, next2 := more(taken.Stream, 3), more(taken.Stream, 4) // two steps of one stream in one flush
	anyNew := more(fmt.Sprintf("any-%d", serial.Add(1)), eventstore.Any)

	out := s.AppendMany(t.Context(), []eventstore.Append{
		good1, conflict, twin1, twin2, passed1, passed2, again, wrong, empty, null, next1, next2, anyNew, good2})
	var conflictErr *eventstore.ConflictError
	var sequenceErr *eventstore.SequenceError
	check := func(i int, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("request %d: %+v", i, out[i])
		}
	}
	for _, i := range []int{0, 2, 5, 10, 12, 13} {
		check(i, out[i].Err == nil && out[i].Result.Position > 0)
	}
	check(1, errors.As(out[1].Err, &conflictErr) && conflictErr.Claim == taken.Take[0])
	check(3, errors.As(out[3].Err, &conflictErr) && conflictErr.Claim == twin1.Take[0])
	check(4, errors.As(out[4].Err, &conflictErr))
	check(6, errors.As(out[6].Err, &sequenceErr) && sequenceErr.Actual >= 3)
	check(7, errors.As(out[7].Err, &sequenceErr) && sequenceErr.Expected == 7)
	check(8, errors.Is(out[8].Err, eventstore.ErrInvalidAppend))
	check(9, errors.Is(out[9].Err, eventstore.ErrInvalidAppend))
	// The two steps may have met different lanes; together they are orderly.
	if out[11].Err != nil && !errors.As(out[11].Err, &sequenceErr) {
		t.Errorf("request 11: %+v", out[11])
	}
	for c, owner := range map[eventstore.Claim]string{
		conflict.Take[0]: "", name("shared"): passed2.Stream, twin1.Take[0]: twin1.Stream, taken.Take[0]: taken.Stream, again.Take[0]: "",
	} {
		if got, err := s.Owner(t.Context(), c); err != nil || got != owner {
			t.Errorf("claim %v belongs to %q (%v), want %q", c, got, err, owner)
		}
	}
	sound(t, s, nil)
}

// TestConflictsOneByOne does what TestVerdicts does without company: a lone
// request hopes, fails, and is judged.
func TestConflictsOneByOne(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	first := user()
	must(t, s, first)
	for range 3 {
		second := user()
		second.Take = append(second.Take, first.Take...)
		_, err := s.Append(t.Context(), second)
		var conflict *eventstore.ConflictError
		if !errors.As(err, &conflict) {
			t.Fatal(err)
		}
		if got, _ := s.Owner(t.Context(), second.Take[0]); got != "" {
			t.Fatal("a failed request has left a claim behind")
		}
		if n, _ := s.Sequence(t.Context(), second.Stream); n != 0 {
			t.Fatal("a failed request has left a stream behind")
		}
		must(t, s, user())
	}
	sound(t, s, nil)
}

func TestClaimsMove(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a, b := user(), user()
	must(t, s, a)
	must(t, s, b)
	// Renaming takes and releases in one append.
	rename := more(a.Stream, 3)
	rename.Take, rename.Release = []eventstore.Claim{name("new " + a.Stream)}, a.Take
	must(t, s, rename)
	// The old name is free for another, and only for one who asks.
	theirs := more(b.Stream, 3)
	theirs.Take = a.Take
	must(t, s, theirs)
	// What is another's cannot be released.
	foreign := more(a.Stream, 4)
	foreign.Release = a.Take
	must(t, s, foreign)
	for c, owner := range map[eventstore.Claim]string{a.Take[0]: b.Stream, rename.Take[0]: a.Stream} {
		if got, _ := s.Owner(t.Context(), c); got != owner {
			t.Errorf("%v belongs to %q, want %q", c, got, owner)
		}
	}
	// Taking again what one owns is no conflict, and releasing it at the same
	// time keeps it.
	keep := more(b.Stream, 4)
	keep.Take, keep.Release = b.Take, b.Take
	must(t, s, keep)
	if got, _ := s.Owner(t.Context(), b.Take[0]); got != b.Stream {
		t.Error("a claim that was taken and released at once is gone")
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	a := user()
	a.Idempotency = &eventstore.Idempotency{Key: "k", Request: []byte("body")}
	first := must(t, s, a)
	second := must(t, s, a)
	want := first
	want.Repeated = true
	if diff := cmp.Diff(want, second); diff != "" {
		t.Error(diff)
	}
	if r, ok, err := s.Repeat(t.Context(), *a.Idempotency); err != nil || !ok || r != want {
		t.Errorf("%+v %v %v", r, ok, err)
	}
	other := user()
	other.Idempotency = &eventstore.Idempotency{Key: "k", Request: []byte("another body")}
	if _, err := s.Append(t.Context(), other); !errors.Is(err, eventstore.ErrIdempotencyMismatch) {
		t.Errorf("another request under the same key: %v", err)
	}
	if _, _, err := s.Repeat(t.Context(), *other.Idempotency); !errors.Is(err, eventstore.ErrIdempotencyMismatch) {
		t.Errorf("looking it up: %v", err)
	}
	// A request that failed may be repeated.
	failing := user()
	failing.Take = a.Take
	failing.Idempotency = &eventstore.Idempotency{Key: "k2", Request: []byte("b")}
	if _, err := s.Append(t.Context(), failing); err == nil {
		t.Fatal("no conflict")
	}
	failing.Take = nil
	if r := must(t, s, failing); r.Repeated {
		t.Error("a failure was remembered")
	}

	// The same key from many at once: one append, the same answer for all.
	racing := user()
	racing.Idempotency = &eventstore.Idempotency{Key: "race", Request: []byte("b")}
	var wg sync.WaitGroup
	results := make([]eventstore.Result, 50)
	for i := range results {
		wg.Go(func() {
			r, err := s.Append(context.Background(), racing)
			if err != nil {
				t.Error(err)
			}
			r.Repeated = false
			results[i] = r
		})
	}
	wg.Wait()
	if len(slices.Compact(results)) != 1 {
		t.Errorf("different answers: %+v", results)
	}
	sum := sound(t, s, nil)
	if sum.Events != 9 {
		t.Errorf("%d events, want 9", sum.Events)
	}
}

// TestClaimRace lets a thousand requests race for one name, through three
// processes: exactly one wins.
func TestClaimRace(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	if _, err := eventstore.CreateKeyring(keys); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	outs := make([]string, 3)
	for i := range outs {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestClaimRaceProcess$")
			cmd.Env = append(os.Environ(), "MUSTER_RACE_URL="+url, "MUSTER_RACE_KEYS="+keys, fmt.Sprintf("MUSTER_RACE_NAME=process-%d", i))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("process %d: %v\n%s", i, err, out)
			}
			outs[i] = string(out)
		})
	}
	wg.Wait()
	var wins []string
	losses := 0
	for _, line := range strings.Fields(strings.Join(outs, "\n")) {
		switch kind, stream, _ := strings.Cut(line, ":"); kind {
		case "won":
			wins = append(wins, stream)
		case "lost":
			losses++
		}
	}
	if len(wins) != 1 || losses != 999 {
		t.Fatalf("winners %v, %d losers", wins, losses)
	}
	k, err := eventstore.OpenKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, url, k, nil)
	if owner, _ := s.Owner(t.Context(), name("the one")); owner != wins[0] {
		t.Errorf("the name belongs to %q, not to the winner", owner)
	}
	var claims int
	if err := s.Pool().QueryRow(t.Context(), `SELECT count(*) FROM claims`).Scan(&claims); err != nil {
		t.Fatal(err)
	}
	if sum := sound(t, s, nil); sum.Streams != 1 || claims != 2 {
		t.Errorf("losers have left something behind: %d claims, %+v", claims, sum)
	}
}

// TestClaimRaceProcess is one of the processes of TestClaimRace; on its own it
// has nothing to do.
func TestClaimRaceProcess(t *testing.T) {
	url := os.Getenv("MUSTER_RACE_URL")
	if url == "" {
		return
	}
	keys, err := eventstore.OpenKeyring(os.Getenv("MUSTER_RACE_KEYS"))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, url, keys, nil)
	n := 333
	if os.Getenv("MUSTER_RACE_NAME") == "process-0" {
		n++
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			a := user()
			a.Stream = fmt.Sprintf("%s-%d", os.Getenv("MUSTER_RACE_NAME"), i)
			a.Take = []eventstore.Claim{name("of " + a.Stream), name("the one")}
			_, err := s.Append(context.Background(), a)
			var conflict *eventstore.ConflictError
			switch {
			case err == nil:
				fmt.Printf("\nwon:%s\n", a.Stream)
			case errors.As(err, &conflict):
				fmt.Printf("\nlost:%s\n", a.Stream)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestLostConnections cuts the committing connections off again and again while
// appends go on. Every append gets the truth.
func TestLostConnections(t *testing.T) {
	t.Parallel()
	url, keys := pgtest.New(t), keyring(t)
	s := open(t, url, keys, nil)
	admin := owner(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		acked = map[string]eventstore.Result{}
	)
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				a := user()
				r, err := s.Append(context.Background(), a)
				if err != nil {
					t.Errorf("an append failed: %v", err)
					return
				}
				mu.Lock()
				acked[a.Stream] = r
				mu.Unlock()
			}
		})
	}
	acknowledged := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	cut := 0
	for before := 0; before < 1000; {
		var n int
		err := admin.QueryRow(t.Context(), `
			SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		cut += n
		// A connection takes a while to be made again; cut the next ones when
		// appends are under way once more.
		for acknowledged() < before+20 {
			time.Sleep(time.Millisecond)
		}
		before = acknowledged()
	}
	cancel()
	wg.Wait()
	sum := sound(t, s, nil)
	if int(sum.Streams) != len(acked) || int(sum.Events) != 3*len(acked) {
		t.Errorf("%d appends were acknowledged, the log has %d streams and %d events", len(acked), sum.Streams, sum.Events)
	}
	for stream, r := range acked {
		events, err := s.ReadStream(t.Context(), stream, 0)
		if err != nil || len(events) != 3 || events[2].Position != r.Position {
			t.Fatalf("%s: acknowledged at %d, has %d events (%v)", stream, r.Position, len(events), err)
		}
	}
	if cut == 0 {
		t.Error("no connection was cut")
	}
}

// TestBackPressure holds the log's lock so that nothing commits, fills the
// queue, and looks that callers wait within their deadlines and learn that
// nothing happened.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := open(t, url, keyring(t), func(c *eventstore.Config) { c.Queue, c.Lanes = 4, 1 })
	admin := owner(t, url)
	if _, err := admin.Exec(t.Context(), `BEGIN; SELECT pg_advisory_xact_lock(x'6d7573746572'::int8)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Append(ctx, user()) })
	}
	wg.Wait()
	unavailable, unknown := 0, 0
	for _, err := range errs {
		switch {
		case errors.Is(err, eventstore.ErrUnavailable):
			unavailable++
		case errors.Is(err, context.DeadlineExceeded):
			unknown++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	// At most one flush was under way; whoever was in it does not know.
	if unavailable == 0 || unknown == 0 || unavailable < len(errs)-5 {
		t.Errorf("%d unavailable, %d unknown", unavailable, unknown)
	}
	if _, err := admin.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	must(t, s, user())
	sum := sound(t, s, nil)
	if int(sum.Streams) != unknown+1 {
		t.Errorf("%d streams, want the %d that were under way and one more", sum.Streams, unknown)
	}
}

func TestCloseFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()
	url, keys := pgtest.New(t), keyring(t)
	s := open(t, url, keys, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	started := make(chan struct{}, 200)
	for range 200 {
		wg.Go(func() {
			started <- struct{}{}
			_, err := s.Append(context.Background(), user())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done++
			case !errors.Is(err, eventstore.ErrUnavailable):
				t.Error(err)
			}
		})
	}
	for range 200 {
		<-started
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if _, err := s.Append(t.Context(), user()); !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("a closed store accepts: %v", err)
	}
	if sum := sound(t, open(t, url, keys, nil), nil); int(sum.Streams) != done {
		t.Errorf("%d acknowledged, %d there", done, sum.Streams)
	}
}

// TestEventsNeverChange tries, as the service, all that must be refused, and as
// the owner what the triggers refuse.
func TestEventsNeverChange(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := open(t, url, keyring(t), nil)
	must(t, s, user())
	service := owner(t, pgtest.ServiceURL(url))
	admin := owner(t, url)
	for _, sql := range []string{
		`UPDATE events SET type = 'x'`, `DELETE FROM events`, `TRUNCATE events`,
		`UPDATE batches SET n = n`, `DELETE FROM batches`, `TRUNCATE batches`,
		`UPDATE epochs SET epoch = epoch`, `DELETE FROM epochs`,
	} {
		for who, conn := range map[string]interface {
			Exec(context.Context, string) error
		}{"service": connExec{service}, "owner": connExec{admin}, "pool": poolExec{s}} {
			if err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s as %s: %v", sql, who, err)
			}
		}
	}
	for _, sql := range []string{`ALTER TABLE events DISABLE TRIGGER ALL`, `DROP TABLE events`, `ALTER TABLE events ADD x int`, `DELETE FROM streams`} {
		if err := (connExec{service}).Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s as the service: %v", sql, err)
		}
	}
	sound(t, s, nil)
}
