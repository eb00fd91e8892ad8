package hostile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-id/muster/eventstore"
)

// hands is how many callers a writing process has.
const hands = 5

// writer appends all sorts of things and records every answer.
type writer struct {
	log    Log
	name   string
	record *os.File
	serial atomic.Int64
}

// write appends until ctx ends.
func (r *role) write(ctx context.Context, s *eventstore.Store, log Log) error {
	record, err := os.OpenFile(r.Record, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer record.Close()
	w := &writer{log: log, name: r.Name, record: record}
	errs := make([]error, hands)
	var wg sync.WaitGroup
	for i := range hands {
		h := &hand{writer: w, rng: rand.New(rand.NewPCG(r.Seed, uint64(i)+1))}
		wg.Go(func() { errs[i] = h.run(ctx) })
	}
	<-ctx.Done()
	// Sometimes the store is closed under its callers' hands.
	patience := 20 * time.Second
	if r.Seed%2 == 0 {
		patience = time.Duration(r.Seed % 7 * uint64(time.Millisecond))
	} else {
		wg.Wait()
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = s.Close(closing) // cut off or not: each caller has its answer
	wg.Wait()
	return errors.Join(errs...)
}

// hand is one caller. It knows its own streams' sequences and names.
type hand struct {
	*writer
	rng *rand.Rand
	own []*subject
}

// subject is a stream of this hand's alone.
type subject struct {
	stream string
	last   int64
	names  []string
	erased bool
}

// op is one append and what its hand makes of a success.
type op struct {
	id     string
	append eventstore.Append
	after  func(eventstore.Result) // nil for nothing
	lost   *subject                // no longer known if the outcome isn't
}

func (h *hand) run(ctx context.Context) error {
	for ctx.Err() == nil {
		n := 1
		if h.rng.IntN(4) == 0 {
			n += h.rng.IntN(16)
		}
		var ops []*op
		for range n {
			ops = append(ops, h.choose()...)
		}
		// Now and then a caller has little patience.
		patience := 30 * time.Second
		if h.rng.IntN(12) == 0 {
			patience = time.Duration(h.rng.IntN(30_000)) * time.Microsecond
		}
		for len(ops) > 0 {
			var err error
			if ops, err = h.do(patience, ops); err != nil {
				return err
			}
			patience = 30 * time.Second
			if ctx.Err() != nil {
				break
			}
		}
		if len(h.own) > 200 {
			h.own = slices.Delete(h.own, 0, 100)
		}
		sleep(ctx, time.Duration(h.rng.IntN(4000))*time.Microsecond)
	}
	return nil
}

// do appends ops and records the answers. It returns those whose outcome is
// unknown and that can be asked for again, by their idempotency keys.
func (h *hand) do(patience time.Duration, ops []*op) (again []*op, err error) {
	as := make([]eventstore.Append, len(ops))
	for i, o := range ops {
		as[i] = o.append
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var lines []byte
	for i, out := range h.log.AppendMany(ctx, as) {
		o, a := ops[i], &as[i]
		line := ack{Op: o.id, Expected: a.Expected, N: len(a.Events), Verdict: verdict(a, out.Err)}
		if a.Idempotency != nil {
			line.Key = a.Idempotency.Key
		}
		switch r := out.Result; line.Verdict {
		case done:
			line.Stream, line.First, line.Last, line.Position, line.Repeated = r.Stream, r.First, r.Last, r.Position, r.Repeated
			if o.after != nil && r.Stream == a.Stream {
				o.after(r)
			}
		case unknown:
			line.Why = out.Err.Error()
			if a.Idempotency != nil {
				again = append(again, o)
			} else if o.lost != nil {
				h.own = slices.DeleteFunc(h.own, func(s *subject) bool { return s == o.lost })
			}
		default:
			line.Why = out.Err.Error()
		}
		text, err := json.Marshal(line)
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, text...), '\n')
	}
	_, err = h.record.Write(lines)
	return again, err
}

func verdict(a *eventstore.Append, err error) string {
	var (
		conflict *eventstore.ConflictError
		sequence *eventstore.SequenceError
	)
	switch {
	case err == nil:
		return done
	case errors.As(err, &conflict):
		if !slices.Contains(a.Take, conflict.Claim) {
			return wrongAnswer
		}
		return refused
	case errors.As(err, &sequence):
		if a.Expected == eventstore.Any || sequence.Expected != a.Expected || sequence.Actual == int64(a.Expected) {
			return wrongAnswer
		}
		return refused
	case errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, eventstore.ErrErased), errors.Is(err, eventstore.ErrIdempotencyMismatch):
		return refused
	case errors.Is(err, eventstore.ErrInvalidAppend):
		return wrongAnswer
	default:
		return unknown
	}
}

// tick is a number that all processes agree on for a moment, so that they
// meet.
func tick() int64 { return time.Now().UnixMilli() / 40 }

func (h *hand) choose() []*op {
	if len(h.own) > 0 && h.rng.IntN(20) == 0 {
		return h.thereAndBack(h.own[h.rng.IntN(len(h.own))])
	}
	return []*op{h.one()}
}

// one chooses an append that has nothing to do with the ones before it.
func (h *hand) one() *op {
	kind := h.rng.IntN(100)
	if len(h.own) == 0 && kind >= 55 {
		kind = h.rng.IntN(55)
	}
	switch {
	case kind < 25: // an import
		return h.create(h.fresh())
	case kind < 32: // of a name that others want
		return h.create(h.fresh(), fmt.Sprintf("few-%d", h.rng.IntN(40)))
	case kind < 39: // of a name that others want at this moment
		return h.create(h.fresh(), fmt.Sprintf("tick-%d", tick()))
	case kind < 45: // of a user that others import at this moment
		return h.shared(fmt.Sprintf("tick-%d", tick()), eventstore.NoStream)
	case kind < 49: // of a request that others send at this moment
		return h.keyed(fmt.Sprintf("tick-%d", tick()))
	case kind < 52: // to a stream that all write to
		return h.shared(fmt.Sprintf("common-%d", h.rng.IntN(5)), eventstore.Any)
	case kind < 55: // with a guess at its sequence
		return h.shared(fmt.Sprintf("common-%d", h.rng.IntN(5)), eventstore.Expected(h.rng.IntN(30)))
	}
	s := h.own[h.rng.IntN(len(h.own))]
	switch {
	case kind < 75: // a change
		return h.change(s, eventstore.Expected(s.last))
	case kind < 80: // with a wrong expectation
		wrong := eventstore.Expected(s.last + 1 + h.rng.Int64N(3))
		if h.rng.IntN(2) == 0 {
			wrong = eventstore.NoStream
		}
		return h.change(s, wrong)
	case kind < 85:
		return h.change(s, eventstore.Any)
	case kind < 96:
		return h.rename(s)
	default:
		return h.erase(s)
	}
}

func (h *hand) fresh() string { return fmt.Sprintf("%s-%d", h.name, h.serial.Add(1)) }

// op makes an append of n events.
func (h *hand) op(stream string, expected eventstore.Expected, n int, personal bool, take, release []string) *op {
	return makeOp(h.fresh(), "", stream, expected, n, personal, take, release)
}

func makeOp(id, key, stream string, expected eventstore.Expected, n int, personal bool, take, release []string) *op {
	o := &op{id: id, append: eventstore.Append{
		Stream: stream, Org: "org", Actor: "hostile", Expected: expected, At: time.Now(),
		Events: make([]eventstore.NewEvent, n),
	}}
	for i := range n {
		p := payload{Op: id, I: i, N: n, K: key}
		if i == 0 {
			p.Expected, p.Take, p.Release = expected, take, release
		}
		data, err := json.Marshal(p)
		if err != nil {
			panic(err) // strings and numbers always marshal
		}
		e := &o.append.Events[i]
		e.Type, e.Schema, e.Data = "Happened", 1, data
		if personal && i%2 == 0 {
			e.Personal = []byte("personal " + id)
		}
	}
	for _, name := range take {
		o.append.Take = append(o.append.Take, claimOf(name))
	}
	for _, name := range release {
		o.append.Release = append(o.append.Release, claimOf(name))
	}
	if key != "" {
		o.append.Idempotency = &eventstore.Idempotency{Key: key, Request: []byte("request " + key)}
	}
	return o
}

// create is an import; some have an idempotency key, to be sent again.
func (h *hand) create(id string, names ...string) *op {
	names = append(names, "of-"+id)
	key := ""
	if h.rng.IntN(3) == 0 {
		key = "key-" + id
	}
	o := makeOp(id, key, "user-"+id, eventstore.NoStream, 1+h.rng.IntN(5), true, names, nil)
	o.after = func(r eventstore.Result) {
		h.own = append(h.own, &subject{stream: r.Stream, last: r.Last, names: names})
	}
	return o
}

func (h *hand) shared(stream string, expected eventstore.Expected) *op {
	return h.op(stream, expected, 1+h.rng.IntN(3), true, nil, nil)
}

// keyed is one of several that have the same key: one of them is appended.
func (h *hand) keyed(key string) *op {
	id := h.fresh()
	return makeOp(id, key, "user-"+id, eventstore.NoStream, 2, true, []string{"of-" + id}, nil)
}

func (h *hand) change(s *subject, expected eventstore.Expected) *op {
	o := h.op(s.stream, expected, 1+h.rng.IntN(2), !s.erased, nil, nil)
	o.after = func(r eventstore.Result) { s.last = max(s.last, r.Last) }
	o.lost = s
	return o
}

func (h *hand) rename(s *subject) *op {
	name := "of-" + h.fresh()
	if h.rng.IntN(3) == 0 {
		name = fmt.Sprintf("few-%d", h.rng.IntN(40))
	}
	release := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return n == name })
	o := h.op(s.stream, eventstore.Expected(s.last), 1, !s.erased, []string{name}, release)
	o.after = func(r eventstore.Result) { s.last, s.names = r.Last, []string{name} }
	o.lost = s
	return o
}

// thereAndBack is two steps of one stream, most likely in one flush: it gives
// its names up and takes them again.
func (h *hand) thereAndBack(s *subject) []*op {
	between, names := "of-"+h.fresh(), slices.Clone(s.names)
	there := h.op(s.stream, eventstore.Expected(s.last), 1, false, []string{between}, names)
	there.after = func(r eventstore.Result) { s.last, s.names = r.Last, []string{between} }
	back := h.op(s.stream, eventstore.Expected(s.last+1), 1, false, names, []string{between})
	back.after = func(r eventstore.Result) { s.last, s.names = r.Last, names }
	there.lost, back.lost = s, s
	return []*op{there, back}
}

func (h *hand) erase(s *subject) *op {
	o := h.op(s.stream, eventstore.Expected(s.last), 1, false, nil, s.names)
	o.append.Erase = true
	o.after = func(r eventstore.Result) { s.last, s.names, s.erased = r.Last, nil, true }
	o.lost = s
	return o
}
