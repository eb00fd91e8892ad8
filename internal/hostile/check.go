package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/eventstore"
)

// findings counts what a check has looked at.
type findings struct {
	events, acked, seen int
}

// truth reads the whole log from the primary, when nobody writes.
func (t *trial) truth(ctx context.Context) ([]eventstore.Event, error) {
	v := t.variant
	v.patience = 1 // what is there is to be seen, behind whatever gap
	s, log, err := openStore(ctx, at(t.primary, t.database), t.keys, v, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close(ctx) }()
	var all []eventstore.Event
	for after := eventstore.Position(0); ; {
		page, err := log.ReadPage(ctx, eventstore.Query{After: after, Limit: 2000})
		if err != nil {
			return nil, err
		}
		if len(page.Events) == 0 {
			return all, nil
		}
		all = append(all, page.Events...)
		after = page.Through
	}
}

// entry is an append as the log has it.
type entry struct {
	payload
	stream      string
	first, last int64
	position    eventstore.Position // of its last event
	events      int
}

// check holds the log against itself and against what writers have learnt.
func (t *trial) check(truth []eventstore.Event) *Failure {
	t.found.events = len(truth)
	entries, failure := t.entries(truth)
	if failure != nil {
		return failure
	}
	byKey := map[string]*entry{}
	for _, e := range entries {
		if e.K == "" {
			continue
		}
		if other := byKey[e.K]; other != nil {
			return failf("L5 appended twice", e.position, "appends %s and %s have the same idempotency key", other.Op, e.Op)
		}
		byKey[e.K] = e
	}
	t.found.acked = 0
	for i := range t.cfg.Writers {
		failure, err := t.checkAcks(filepath.Join(t.dir, fmt.Sprintf("writer-%d", i)), entries, byKey)
		if err != nil {
			return failf("harness", 0, "a writer's record: %v", err)
		}
		if failure != nil {
			return failure
		}
	}
	return nil
}

// entries gathers the appends in the log, and checks all that the log can say
// by itself.
func (t *trial) entries(truth []eventstore.Event) (map[string]*entry, *Failure) {
	entries := map[string]*entry{}
	sequences := map[string]int64{}
	owners := map[string]string{}
	ids := make(map[ulid.ULID]eventstore.Position, len(truth))
	before := eventstore.Position(0)
	for i := range truth {
		e := &truth[i]
		if !t.variant.Sparse && e.Position != before+1 {
			return nil, failf("L1 dense", e.Position, "it follows position %d", before)
		}
		before = e.Position
		if at, ok := ids[e.ID]; ok {
			return nil, failf("L1 twice", e.Position, "it is the event at %d once more", at)
		}
		ids[e.ID] = e.Position
		p, err := parsePayload(e)
		if err != nil {
			return nil, failf("L2 alien", e.Position, "%v", err)
		}
		if last := sequences[e.Stream]; e.Sequence != last+1 {
			return nil, failf("L3 sequence", e.Position, "stream %q goes on from %d with %d", e.Stream, last, e.Sequence)
		}
		sequences[e.Stream] = e.Sequence

		a := entries[p.Op]
		switch {
		case a == nil && p.I != 0:
			return nil, failf("L2 whole", e.Position, "append %s begins with its event %d", p.Op, p.I)
		case a == nil:
			a = &entry{payload: p, stream: e.Stream, first: e.Sequence}
			entries[p.Op] = a
			if p.Expected != eventstore.Any && int64(p.Expected) != e.Sequence-1 {
				return nil, failf("L3 expected", e.Position, "append %s expected sequence %d and follows %d", p.Op, p.Expected, e.Sequence-1)
			}
			var taken string
			p.fold(func(name string) {
				if owner := owners[name]; owner != "" && owner != e.Stream {
					taken = fmt.Sprintf("%q takes %q, which is %q's", e.Stream, name, owner)
				}
				owners[name] = e.Stream
			}, func(name string) {
				if owners[name] == e.Stream {
					delete(owners, name)
				}
			})
			if taken != "" {
				return nil, failf("L4 two owners", e.Position, "%s", taken)
			}
		case p.I != a.events || a.stream != e.Stream:
			return nil, failf("L2 whole", e.Position, "append %s goes on with its event %d where %d is due", p.Op, p.I, a.events)
		case !t.variant.Sparse && e.Position != a.position+1:
			return nil, failf("L2 whole", e.Position, "append %s is torn: its last event was at %d", p.Op, a.position)
		}
		a.events++
		a.last, a.position = e.Sequence, e.Position
	}
	for _, a := range entries {
		if a.events != a.N {
			return nil, failf("L2 whole", a.position, "append %s has %d events of %d", a.Op, a.events, a.N)
		}
	}
	return entries, nil
}

// checkAcks holds one writer's record against the log.
func (t *trial) checkAcks(path string, entries, byKey map[string]*entry) (*Failure, error) {
	var failure *Failure
	doubtful := map[string]bool{} // appends that have once had no answer
	_, err := readLines(path, func(line string) error {
		var a ack
		if err := json.Unmarshal([]byte(line), &a); err != nil || failure != nil {
			return err
		}
		e := entries[a.Op]
		switch a.Verdict {
		case wrongAnswer:
			failure = failf("L3 answer", 0, "append %s was answered: %s", a.Op, a.Why)
		case unknown:
			doubtful[a.Op] = true
		case refused:
			if e != nil && !doubtful[a.Op] {
				failure = failf("L2 refused", e.position, "append %s is there although it was answered: %s", a.Op, a.Why)
			}
		case done:
			t.found.acked++
			check := "L2 acknowledged"
			if a.Key != "" {
				check, e = "L5 same result", byKey[a.Key]
			}
			switch {
			case e == nil:
				failure = failf("L2 acknowledged", a.Position, "append %s to %q at sequence %d was acknowledged and is not there", a.Op, a.Stream, a.Last)
			case e.stream != a.Stream, e.first != a.First, e.last != a.Last, !t.variant.Sparse && e.position != a.Position:
				failure = failf(check, e.position, "append %s was said to be %q %d to %d at %d and is %q %d to %d",
					a.Op, a.Stream, a.First, a.Last, a.Position, e.stream, e.first, e.last)
			case !a.Repeated && e.Op != a.Op:
				failure = failf("L5 appended twice", e.position, "append %s was answered as the first of its key, and %s is", a.Op, e.Op)
			}
		}
		return nil
	})
	return failure, err
}

// checkReaders holds what readers were given against the log.
func (t *trial) checkReaders(truth []eventstore.Event) (*Failure, error) {
	t.found.seen = 0
	for _, r := range t.readers {
		i := 0 // the next event in truth
		var failure *Failure
		_, err := readLines(filepath.Join(t.dir, r.name), func(line string) error {
			s, err := parseSighting(line)
			if err != nil || failure != nil {
				return err
			}
			t.found.seen++
			switch {
			case i == len(truth):
				failure = failf("L1 changed", s.position, "%s was given sequence %d of %q, which the log does not have", r.name, s.sequence, s.stream)
			case truth[i].Position < s.position:
				failure = failf("L1 skipped", truth[i].Position, "%s never got sequence %d of %q", r.name, truth[i].Sequence, truth[i].Stream)
			case sightingOf(&truth[i]) != s:
				failure = failf("L1 changed", s.position, "%s was given sequence %d of %q, the log has sequence %d of %q", r.name,
					s.sequence, s.stream, truth[i].Sequence, truth[i].Stream)
			}
			i++
			return nil
		})
		if err != nil || failure != nil {
			return failure, err
		}
		if i < len(truth) {
			return failf("L1 skipped", truth[i].Position, "%s never got sequence %d of %q", r.name, truth[i].Sequence, truth[i].Stream), nil
		}
	}
	return nil, nil
}

// verify has the log look at itself, as muster verify does.
func (t *trial) verify(ctx context.Context) (*Failure, error) {
	s, _, err := openStore(ctx, at(t.primary, t.database), t.keys, t.variant, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close(ctx) }()
	var failure *Failure
	_, err = s.Verify(ctx, eventstore.VerifyOptions{Claims: claimsOf}, func(f eventstore.Finding) {
		if failure == nil && !(t.variant.Sparse && f.Kind == "hole") {
			failure = failf("verify "+f.Kind, f.Position, "%s", f.Text)
		}
	})
	return failure, err
}
