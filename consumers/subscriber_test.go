package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

// journal is what a handler saw: the sequences of each stream, in the order of
// their successful attempts.
type journal struct {
	mu      sync.Mutex
	order   map[string][]int64
	total   int
	active  map[string]int
	overlap bool
}

func newJournal() *journal {
	return &journal{order: map[string][]int64{}, active: map[string]int{}}
}

func (j *journal) enter(stream string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.active[stream]++
	if j.active[stream] > 1 {
		j.overlap = true
	}
}

func (j *journal) leave(stream string, sequence int64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.active[stream]--
	if ok {
		j.order[stream] = append(j.order[stream], sequence)
		j.total++
	}
}

func (j *journal) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.total
}

// seen returns how many different events were handled.
func (j *journal) seen() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, seqs := range j.order {
		m := map[int64]bool{}
		for _, s := range seqs {
			m[s] = true
		}
		n += len(m)
	}
	return n
}

// inOrder fails unless each stream's first handlings are 1, 2, 3 …; an event
// may be handled again, but only with everything after it again too.
func (j *journal) inOrder(t *testing.T) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.overlap {
		t.Error("two events of one stream were handled at once")
	}
	for stream, seqs := range j.order {
		last := int64(0)
		for _, s := range seqs {
			if s > last+1 {
				t.Errorf("stream %s: %v: %d follows %d", stream, seqs, s, last)
				break
			}
			last = s
		}
	}
}

func streamOf(msg *message.Message) (string, int64) {
	n, _ := strconv.ParseInt(msg.Metadata.Get(consumers.MetaSequence), 10, 64)
	return msg.Metadata.Get(consumers.MetaStream), n
}

// consume runs a handler over the log on a Watermill router until the test ends
// or stop is called.
func consume(t testing.TB, store *eventstore.Store, name string, cfg consumers.Config, h message.NoPublishHandlerFunc) (sub *consumers.Subscriber, stop func()) {
	t.Helper()
	if testing.Verbose() && cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	sub, err := consumers.NewSubscriber(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(consumers.Classify)
	router.AddConsumerHandler(name, name, sub, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := router.Run(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	<-router.Running()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			router.Close()
			<-done
		})
	}
	t.Cleanup(stop)
	return sub, stop
}

// until waits for a condition; a test that waits longer than this has failed.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func quick(int) time.Duration { return 2 * time.Millisecond }

func TestEveryEventInOrderWithinItsStream(t *testing.T) {
	store := openStore(t)
	newUsers(t, store, 300, 9)
	j := newJournal()
	_, stop := consume(t, store, "order", consumers.Config{Window: 256, InFlight: 32, Backoff: quick}, func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		j.enter(stream)
		fail := rand.IntN(10) == 0
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		j.leave(stream, seq, !fail)
		if fail {
			return errors.New("no")
		}
		return nil
	})
	until(t, "all events", func() bool { return j.count() >= 3000 })
	newUsers(t, store, 1, 0) // while it waits for the log to grow
	until(t, "the late event", func() bool { return j.count() >= 3001 })
	stop()
	j.inOrder(t)
	if j.count() != 3001 || j.seen() != 3001 {
		t.Errorf("handled %d times, %d events, want 3001", j.count(), j.seen())
	}
	// An orderly end leaves nothing to repeat.
	again := newJournal()
	consume(t, store, "order", consumers.Config{}, func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		again.enter(stream)
		again.leave(stream, seq, true)
		return nil
	})
	newUsers(t, store, 1, 0)
	until(t, "the new event", func() bool { return again.count() > 0 })
	if again.count() != 1 {
		t.Errorf("%d events came again", again.count()-1)
	}
}

func TestAFailingStreamIsParkedAndDelaysNoOther(t *testing.T) {
	store := openStore(t)
	ids := newUsers(t, store, 50, 2)
	poison := ids[7]
	var mu sync.Mutex
	broken, tries := true, 0
	j := newJournal()
	handler := func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		mu.Lock()
		defer mu.Unlock()
		if stream == poison && seq == 2 && broken {
			tries++
			return &consumers.Failure{Class: "poison"}
		}
		j.enter(stream)
		j.leave(stream, seq, true)
		return nil
	}
	cfg := consumers.Config{Attempts: 3, Backoff: quick, AsideAfter: time.Hour, Flush: 20 * time.Millisecond}
	_, stop := consume(t, store, "park", cfg, handler)
	until(t, "all other events", func() bool { return j.count() == 148 })
	admin := consumers.NewAdmin(store)
	var parked []consumers.Parked
	until(t, "a parked stream", func() bool {
		var err error
		if parked, err = admin.Parked(t.Context(), "park", 0); err != nil {
			t.Fatal(err)
		}
		return len(parked) == 1
	})
	if p := parked[0]; p.Stream != poison || p.Sequence != 2 || p.Attempts != 3 || p.Class != "poison" || p.State != "parked" || tries != 3 {
		t.Errorf("parked: %+v after %d tries", p, tries)
	}
	// Later events of the parked stream queue behind it, and the checkpoint
	// passes them, even over a restart.
	appendAll(t, store, eventstore.Append{Stream: poison, Org: "org1", Actor: "test", Expected: eventstore.Any, At: time.Now(), Events: encode(unlocked)})
	newUsers(t, store, 1, 0)
	until(t, "the new user", func() bool { return j.count() == 149 })
	until(t, "the checkpoint", func() bool { return lag(t, admin, "park") == 0 })
	stop()
	_, _ = consume(t, store, "park", cfg, handler)
	newUsers(t, store, 1, 0)
	until(t, "another new user", func() bool { return j.count() == 150 })
	j.inOrder(t)

	mu.Lock()
	broken = false
	mu.Unlock()
	if n, err := admin.Release(t.Context(), "park", poison); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	until(t, "the released events", func() bool { return j.count() == 153 })
	appendAll(t, store, eventstore.Append{Stream: poison, Org: "org1", Actor: "test", Expected: eventstore.Any, At: time.Now(), Events: encode(unlocked)})
	until(t, "the stream's next event", func() bool { return j.count() == 154 })
	j.inOrder(t)
	if n := fmt.Sprint(j.order[poison]); n != "[1 2 3 4 5]" {
		t.Errorf("the parked stream was handled as %s", n)
	}
	until(t, "no parked stream", func() bool {
		parked, err := admin.Parked(t.Context(), "park", 0)
		return err == nil && len(parked) == 0
	})
}

// A stream is released while its events keep coming: the drain and the reader
// hand over to each other without a gap and without an overlap.
func TestReleaseUnderTraffic(t *testing.T) {
	store := openStore(t)
	id := newUsers(t, store, 1, 0)[0]
	var mu sync.Mutex
	broken, stumbled := true, map[int64]bool{}
	j := newJournal()
	cfg := consumers.Config{Attempts: 1, Backoff: quick, AsideAfter: time.Hour, Flush: 3 * time.Millisecond}
	consume(t, store, "traffic", cfg, func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		mu.Lock()
		fails := broken
		if seq%50 == 49 && !stumbled[seq] {
			broken, stumbled[seq] = true, true
		}
		mu.Unlock()
		j.enter(stream)
		j.leave(stream, seq, !fails)
		if fails {
			return errors.New("no")
		}
		return nil
	})
	const events = 400
	appended := make(chan struct{})
	go func() {
		defer close(appended)
		for range events - 1 {
			appendAll(t, store, eventstore.Append{Stream: id, Org: "org1", Actor: "test", Expected: eventstore.Any, At: time.Now(), Events: encode(unlocked)})
		}
	}()
	admin := consumers.NewAdmin(store)
	until(t, "everything", func() bool {
		mu.Lock()
		broken = false
		mu.Unlock()
		if _, err := admin.Release(t.Context(), "traffic", ""); err != nil {
			t.Fatal(err)
		}
		return j.seen() == events
	})
	<-appended
	j.inOrder(t)
	if j.count() != events {
		t.Errorf("%d handlings of %d events", j.count(), events)
	}
}
