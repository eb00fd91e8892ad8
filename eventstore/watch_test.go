package eventstore

import (
	"testing"
	"time"

	"github.com/muster-id/muster/internal/pgtest"
)

func TestGrowth(t *testing.T) {
	t.Parallel()
	var g growth
	begin := time.Unix(1_000, 0)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	check := func(ms int, want float64) {
		t.Helper()
		if got := g.now(at(ms)); got != want {
			t.Errorf("after %d ms: %v events a second, want %v", ms, got, want)
		}
	}
	check(0, 0)
	g.reached(1_000_000, at(0)) // a process that comes to an old log
	check(0, 0)
	for ms := 10; ms <= 500; ms += 10 {
		g.reached(1_000_000+Position(20*ms), at(ms))
	}
	check(500, 20_000)
	check(900, 20_000) // a disk that takes its time
	g.reached(1_018_000, at(900))
	check(900, 20_000)
	check(1_401, 0) // it stands still
	g.reached(2_000_000, at(5_000))
	check(5_000, 0) // nobody looked: it may have grown at any time since
	for ms := 5_010; ms <= 5_250; ms += 10 {
		g.reached(2_000_000+Position(ms-5_000), at(ms))
	}
	check(5_250, 1_000)
}

// TestGrowthOfALog: a store knows what itself and others append, and forgets
// what it knew when the log turns out to be shorter.
func TestGrowthOfALog(t *testing.T) {
	t.Parallel()
	s := openLog(t, pgtest.New(t))
	for deadline := time.Now().Add(20 * time.Second); s.Growth() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the log grows and is not seen to")
		}
		appendEvents(t, s, 1)
	}
	s.watch.recede(0)
	if g := s.Growth(); g != 0 {
		t.Errorf("%v events a second of a log that is shorter than it was", g)
	}
}
