package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// A call is what a client did to one stream or one claim, and what it was told.
type call struct {
	key string // the stream or the claim

	// Of streams: an append of one event, or a look at the last sequence.
	append   bool
	expected eventstore.Expected
	sequence int64 // after the append, or the actual one of a refusal, or what was read

	// Of claims: "take", "release" or "look", by or to a stream.
	verb   string
	stream string // who asks; for a look, the owner that was found

	ok bool // not refused
}

func (c call) String() string {
	if c.verb != "" {
		return fmt.Sprintf("%s %s %s: %v", c.verb, c.key, c.stream, c.ok)
	}
	return fmt.Sprintf("%s append=%v expected=%d: %d %v", c.key, c.append, c.expected, c.sequence, c.ok)
}

// streams is the promise about one stream: a number that appends raise by one,
// if their expectation holds at that moment.
var streams = porcupine.Model{
	Partition: byKey,
	Init:      func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		n, c := state.(int64), input.(call)
		switch {
		case !c.append:
			return c.sequence == n, n
		case c.ok:
			return (c.expected == eventstore.Any || int64(c.expected) == n) && c.sequence == n+1, n + 1
		default:
			return c.expected != eventstore.Any && int64(c.expected) != n && c.sequence == n, n
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(call).String() },
}

// claims is the promise about one claim: at most one stream has it.
var claims = porcupine.Model{
	Partition: byKey,
	Init:      func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		owner, c := state.(string), input.(call)
		switch c.verb {
		case "look":
			return c.stream == owner, owner
		case "release":
			if owner == c.stream {
				owner = ""
			}
			return c.ok, owner
		default: // take
			free := owner == "" || owner == c.stream
			if free {
				owner = c.stream
			}
			return c.ok == free, owner
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(call).String() },
}

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	parts := map[string][]porcupine.Operation{}
	for _, o := range history {
		key := o.Input.(call).key
		parts[key] = append(parts[key], o)
	}
	var list [][]porcupine.Operation
	for _, p := range parts {
		list = append(list, p)
	}
	return list
}

// history collects what clients do at the same time.
type history struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// record adds a call unless it failed for reasons of the connection, which
// only a look can: it has no effect then.
func (h *history) record(client int, do func() (call, bool)) {
	began := time.Since(h.start)
	c, answered := do()
	ended := time.Since(h.start)
	if !answered {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: c, Call: int64(began), Return: int64(ended)})
}

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// TestLinearizable has clients of several stores append to, read and fight
// over the same streams and claims, while connections are cut, and has
// porcupine look for an order in which all of their answers are right.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	const (
		clients = 9
		calls   = 120
		keys    = 8
		cuts    = 8
	)
	url, ring := pgtest.New(t), keyring(t)
	var stores []*eventstore.Store
	for range 3 {
		stores = append(stores, open(t, url, ring, nil))
	}
	onStreams, onClaims := &history{start: time.Now()}, &history{start: time.Now()}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	var wg sync.WaitGroup
	for client := range clients {
		s, rng := stores[client%len(stores)], rand.New(rand.NewPCG(seed, uint64(client)))
		wg.Go(func() {
			known := map[string]int64{}
			for range calls {
				if rng.IntN(2) == 0 {
					onStreams.record(client, func() (call, bool) { return onStream(t, s, rng, known, keys) })
				} else {
					onClaims.record(client, func() (call, bool) { return onClaim(t, s, rng, keys) })
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	admin, cut := owner(t, url), 0
	for n := range cuts {
		eventually(t, func() bool {
			select {
			case <-finished:
				return true
			default:
				return onStreams.len()+onClaims.len() >= (n+1)*clients*calls/(cuts+1)
			}
		})
		var victims int
		err := admin.QueryRow(t.Context(), `
			SELECT count(pg_terminate_backend(pid)) FROM (
				SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
				ORDER BY state = 'idle', random() LIMIT 3) v`).Scan(&victims)
		if err != nil {
			t.Error(err)
		}
		cut += victims
	}
	<-finished
	t.Logf("%d calls on streams, %d on claims, %d connections cut, %v", len(onStreams.ops), len(onClaims.ops), cut, time.Since(onStreams.start))
	for _, c := range []struct {
		name  string
		model porcupine.Model
		ops   []porcupine.Operation
		spoil func(call) (call, bool)
	}{
		{"streams", streams, onStreams.ops, func(c call) (call, bool) { c.sequence++; return c, c.append && c.ok }},
		{"claims", claims, onClaims.ops, func(c call) (call, bool) { c.ok = !c.ok; return c, c.verb == "take" }},
	} {
		if result := porcupine.CheckOperationsTimeout(c.model, c.ops, time.Minute); result != porcupine.Ok {
			t.Errorf("%s: %s", c.name, result)
		}
		// Falsified answers have to be noticed, or the check is worth nothing. All
		// of a half: a single one may happen to be right in another order.
		spoilt := slices.Clone(c.ops)
		for i := range spoilt {
			if wrong, ok := c.spoil(spoilt[i].Input.(call)); ok && i > len(spoilt)/2 {
				spoilt[i].Input = wrong
			}
		}
		if result := porcupine.CheckOperationsTimeout(c.model, spoilt, time.Minute); result != porcupine.Illegal {
			t.Errorf("%s with a false answer: %s", c.name, result)
		}
	}
	sound(t, stores[0], nil)
}

func onStream(t *testing.T, s *eventstore.Store, rng *rand.Rand, known map[string]int64, keys int) (call, bool) {
	c := call{key: fmt.Sprintf("stream-%d", rng.IntN(keys))}
	var err error
	switch rng.IntN(4) {
	case 0:
		c.sequence, err = s.Sequence(context.Background(), c.key)
		known[c.key] = c.sequence
		return c, err == nil
	case 1:
		events, err := s.ReadStream(context.Background(), c.key, 0)
		c.sequence = int64(len(events))
		return c, err == nil
	case 2:
		c.expected = eventstore.Any
	default:
		c.expected = eventstore.Expected(known[c.key])
	}
	c.append = true
	a := more(c.key, c.expected)
	for {
		r, err := s.Append(context.Background(), a)
		var refused *eventstore.SequenceError
		switch {
		case err == nil:
			c.ok, c.sequence = true, r.Last
		case errors.As(err, &refused):
			c.sequence = refused.Actual
		case strings.Contains(err.Error(), "reading data keys"):
			continue // a connection was cut before anything was begun
		default:
			t.Error(err)
			return c, false
		}
		known[c.key] = c.sequence
		return c, true
	}
}

func onClaim(t *testing.T, s *eventstore.Store, rng *rand.Rand, keys int) (call, bool) {
	c := call{key: fmt.Sprintf("claim-%d", rng.IntN(keys)), stream: fmt.Sprintf("owner-%d", rng.IntN(4)), ok: true}
	c.verb = []string{"take", "release", "look"}[rng.IntN(3)]
	if c.verb == "look" {
		var err error
		c.stream, err = s.Owner(context.Background(), name(c.key))
		return c, err == nil
	}
	a := more(c.stream, eventstore.Any)
	if c.verb == "take" {
		a.Take = []eventstore.Claim{name(c.key)}
	} else {
		a.Release = []eventstore.Claim{name(c.key)}
	}
	for {
		_, err := s.Append(context.Background(), a)
		var refused *eventstore.ConflictError
		switch {
		case err == nil:
		case errors.As(err, &refused):
			c.ok = false
		case strings.Contains(err.Error(), "reading data keys"):
			continue // a connection was cut before anything was begun
		default:
			t.Error(err)
			return c, false
		}
		return c, true
	}
}
