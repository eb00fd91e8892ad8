package eventstore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// model is the log as one would write it if there were no crowd, no crash and
// no disk: each append is judged alone, after the ones before it.
type model struct {
	streams map[string]*modelStream
	owners  map[eventstore.Claim]string
	keys    map[string]modelKey
	events  int
}

type modelStream struct {
	sequence int64
	erased   bool
}

type modelKey struct {
	request string
	result  eventstore.Result
}

func newModel() *model {
	return &model{streams: map[string]*modelStream{}, owners: map[eventstore.Claim]string{}, keys: map[string]modelKey{}}
}

// appendMany judges a batch. The one thing that needs explaining is order: an
// append is sealed before it is judged, so one that found no stream then, and
// finds one now that an earlier append of the batch began, is sealed and judged
// again after all others.
func (m *model) appendMany(as []eventstore.Append) []verdict {
	out := make([]verdict, len(as))
	todo := make([]int, len(as))
	for i := range as {
		todo[i] = i
	}
	for len(todo) > 0 {
		there := map[string]bool{}
		for stream := range m.streams {
			there[stream] = true
		}
		var again []int
		for _, i := range todo {
			var stale bool
			if out[i], stale = m.append(&as[i], there[as[i].Stream]); stale {
				again = append(again, i)
			}
		}
		todo = again
	}
	return out
}

func (m *model) append(a *eventstore.Append, wasThere bool) (_ verdict, stale bool) {
	if a.Idempotency != nil {
		if k, ok := m.keys[a.Idempotency.Key]; ok {
			if k.request != string(a.Idempotency.Request) {
				return verdict{Err: "mismatch"}, false
			}
			k.result.Repeated = true
			return verdict{Result: k.result}, false
		}
	}
	s := m.streams[a.Stream]
	sequence := int64(0)
	if s != nil {
		sequence = s.sequence
	}
	if a.Expected != eventstore.Any && int64(a.Expected) != sequence {
		v := verdict{Err: fmt.Sprintf("sequence %d", sequence)}
		if a.Expected == eventstore.NoStream {
			v.or = a.Take
		}
		return v, false
	}
	if s != nil && !wasThere {
		return verdict{}, true
	}
	if s != nil && s.erased && slices.ContainsFunc(a.Events, func(e eventstore.NewEvent) bool { return e.Personal != nil }) {
		return verdict{Err: "erased"}, false
	}
	for _, c := range a.Take {
		if owner := m.owners[c]; owner != "" && owner != a.Stream {
			return verdict{Err: "conflict " + c.Value}, false
		}
	}
	if s == nil {
		s = &modelStream{}
		m.streams[a.Stream] = s
	}
	for _, c := range a.Release {
		if m.owners[c] == a.Stream {
			delete(m.owners, c)
		}
	}
	for _, c := range a.Take {
		m.owners[c] = a.Stream
	}
	s.erased = s.erased || a.Erase
	m.events += len(a.Events)
	r := eventstore.Result{Stream: a.Stream, First: s.sequence + 1, Last: s.sequence + int64(len(a.Events)),
		Position: eventstore.Position(m.events), Epoch: 1, At: a.At}
	s.sequence = r.Last
	if a.Idempotency != nil {
		m.keys[a.Idempotency.Key] = modelKey{string(a.Idempotency.Request), r}
	}
	return verdict{Result: r}, false
}

// verdict is an outcome in a form that can be compared.
type verdict struct {
	Result eventstore.Result
	Err    string
	// or are claims, a conflict over one of which is as good an answer: of two
	// reasons to refuse a stream that should be new, either may be given.
	or []eventstore.Claim
}

// agree replaces what the model says by what the log says where that is as
// good.
func agree(want, got []verdict) []verdict {
	for i := range want {
		for _, c := range want[i].or {
			if got[i].Err == "conflict "+c.Value {
				want[i].Err = got[i].Err
			}
		}
		want[i].or = nil
	}
	return want
}

func verdictOf(o eventstore.Outcome) verdict {
	var (
		conflict *eventstore.ConflictError
		sequence *eventstore.SequenceError
	)
	switch {
	case o.Err == nil:
		return verdict{Result: o.Result}
	case errors.As(o.Err, &conflict):
		return verdict{Err: "conflict " + conflict.Claim.Value}
	case errors.As(o.Err, &sequence):
		return verdict{Err: fmt.Sprintf("sequence %d", sequence.Actual)}
	case errors.Is(o.Err, eventstore.ErrIdempotencyMismatch):
		return verdict{Err: "mismatch"}
	case errors.Is(o.Err, eventstore.ErrErased):
		return verdict{Err: "erased"}
	}
	return verdict{Err: o.Err.Error()}
}

// few values, so that appends meet; prefixed, so that runs on one database
// don't.
func drawAppend(t *rapid.T, run int, m *model) eventstore.Append {
	few := func(what string, n int) string {
		return fmt.Sprintf("%d-%s-%d", run, what, rapid.IntRange(0, n-1).Draw(t, what))
	}
	claims := func(what string) (list []eventstore.Claim) {
		for range rapid.IntRange(0, 2).Draw(t, what+"s") {
			list = append(list, name(few("name", 4)))
		}
		return list
	}
	a := eventstore.Append{
		Stream: few("stream", 4), Org: "org", Actor: "model", At: at,
		Take: claims("take"), Release: claims("release"),
		Erase: rapid.IntRange(0, 19).Draw(t, "erase") == 0,
	}
	sequence := int64(0)
	if s := m.streams[a.Stream]; s != nil {
		sequence = s.sequence
	}
	// Mostly what holds now, or will hold after some appends before it.
	a.Expected = rapid.SampledFrom([]eventstore.Expected{
		eventstore.NoStream, eventstore.Any, eventstore.Expected(sequence), eventstore.Expected(sequence + 1), eventstore.Expected(sequence + 2),
	}).Draw(t, "expected")
	for range rapid.IntRange(1, 2).Draw(t, "events") {
		e := eventstore.NewEvent{Type: "Happened", Schema: 1, Data: []byte("open")}
		if !a.Erase && rapid.Bool().Draw(t, "personal") {
			e.Personal = []byte("personal")
		}
		a.Events = append(a.Events, e)
	}
	if rapid.IntRange(0, 3).Draw(t, "keyed") == 0 {
		a.Idempotency = &eventstore.Idempotency{Key: few("key", 5), Request: []byte(few("request", 2))}
	}
	return a
}

// TestAsTheModel executes batches of appends on a real log and on the model.
// Every verdict must be the same, and in the end every sequence and every
// owner. One lane keeps the order within a batch.
func TestAsTheModel(t *testing.T) {
	t.Parallel()
	url, ring := pgtest.New(t), keyring(t)
	s := open(t, url, ring, func(c *eventstore.Config) { c.Lanes = 1 })
	ctx, run, base := t.Context(), 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := newModel()
		m.events = base
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			var as []eventstore.Append
			for range rapid.IntRange(1, 6).Draw(t, "appends") {
				as = append(as, drawAppend(t, run, m))
			}
			var got []verdict
			for _, o := range s.AppendMany(ctx, as) {
				got = append(got, verdictOf(o))
				if o.Err == nil && !o.Result.Repeated {
					base = max(base, int(o.Result.Position))
				}
			}
			if diff := cmp.Diff(agree(m.appendMany(as), got), got, cmp.AllowUnexported(verdict{})); diff != "" {
				t.Fatalf("the model says -, the log +:\n%s", diff)
			}
		}
		for stream, want := range m.streams {
			if got, err := s.Sequence(ctx, stream); err != nil || got != want.sequence {
				t.Fatalf("stream %s is at %d (%v), the model at %d", stream, got, err, want.sequence)
			}
			events, err := s.ReadStream(ctx, stream, 0)
			if err == nil {
				err = s.Open(ctx, events)
			}
			if err != nil || int64(len(events)) != want.sequence {
				t.Fatalf("stream %s has %d events, the model %d: %v", stream, len(events), want.sequence, err)
			}
			for i := range events {
				if readable := events[i].Sealed != nil && !events[i].Erased; readable && want.erased {
					t.Fatalf("position %d can be read after its subject was erased", events[i].Position)
				}
			}
		}
		for i := range 4 {
			c := name(fmt.Sprintf("%d-name-%d", run, i))
			if got, err := s.Owner(ctx, c); err != nil || got != m.owners[c] {
				t.Fatalf("%s belongs to %q (%v), in the model to %q", c.Value, got, err, m.owners[c])
			}
		}
	})
	sound(t, s, nil)
}
