package hostile

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sort"
	"time"

	"github.com/muster-id/muster/eventstore"
)

const retry = 50 * time.Millisecond

// follower reads the log from its checkpoint on, which is the last line of its
// record.
type follower struct {
	log    Log
	sparse bool
	record *os.File
	rng    *rand.Rand

	behind    bool             // there was more than the last page had
	seen      []sighting       // all, in order
	sequences map[string]int64 // the last one seen of each stream
}

// follow reads until it has passed the position that comes from until.
func (r *role) follow(log Log, until <-chan eventstore.Position) error {
	v, err := Named(r.Variant)
	if err != nil {
		return err
	}
	f := &follower{log: log, sparse: v.Sparse, sequences: map[string]int64{}, rng: rand.New(rand.NewPCG(r.Seed, 0))}
	end, err := readLines(r.Record, func(line string) error {
		s, err := parseSighting(line)
		f.note(s)
		return err
	})
	if err != nil {
		return err
	}
	if f.record, err = os.OpenFile(r.Record, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
		return err
	}
	defer f.record.Close()
	// What a killed predecessor left unfinished is no part of the checkpoint.
	if err := f.record.Truncate(end); err != nil {
		return err
	}
	if _, err := f.record.Seek(end, 0); err != nil {
		return err
	}
	target := eventstore.Position(-1)
	for target < 0 || f.checkpoint() < target {
		select {
		case target = <-until:
			continue
		default:
		}
		if target < 0 && (f.rng.IntN(8) == 0 || f.behind && f.rng.IntN(2) == 0) {
			// One that dawdles has part of what it knows of still before it.
			sleep(context.Background(), time.Duration(f.rng.IntN(int(800*time.Millisecond))))
		}
		if err := f.step(); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) checkpoint() eventstore.Position {
	if len(f.seen) == 0 {
		return 0
	}
	return f.seen[len(f.seen)-1].position
}

func (f *follower) note(s sighting) {
	f.seen = append(f.seen, s)
	f.sequences[s.stream] = s.sequence
}

// step waits a little for what comes after the checkpoint and takes it. Errors
// of the database are part of the game; only broken promises are returned.
func (f *follower) step() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if f.rng.IntN(20) == 0 {
		if err := f.lookBack(ctx); err != nil {
			return err
		}
	}
	after := f.checkpoint()
	if f.rng.IntN(4) > 0 {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_ = f.log.Wait(short, after) // reading tells
		cancel()
	}
	q := eventstore.Query{After: after, Limit: 1 + f.rng.IntN([]int{20, 500}[f.rng.IntN(2)])}
	if f.rng.IntN(3) == 0 {
		q.LastSlice = eventstore.Slices - 1 // a filter, which all pass
	}
	page, err := f.log.ReadPage(ctx, q)
	switch {
	case errors.Is(err, eventstore.ErrHole):
		return failf("L1 dense", after, "%v", err)
	case err != nil:
		sleep(ctx, retry)
		return nil
	}
	f.behind = len(page.Events) == q.Limit
	if len(page.Events) == 0 {
		sleep(ctx, 5*time.Millisecond)
	}
	var lines []byte
	for i := range page.Events {
		s := sightingOf(&page.Events[i])
		switch before := f.checkpoint(); {
		case !f.sparse && s.position != before+1:
			return failf("L1 dense", s.position, "a reader at %d was given %d next", before, s.position)
		case s.position <= before:
			return failf("L1 order", s.position, "a reader at %d was given %d next", before, s.position)
		}
		if last := f.sequences[s.stream]; s.sequence != last+1 {
			return failf("L1 skipped", s.position, "after sequence %d of a stream a reader was given %d", last, s.sequence)
		}
		f.note(s)
		lines = s.appendTo(lines)
	}
	if end := f.checkpoint(); page.Through != end {
		return failf("L1 dense", page.Through, "a reader was told that nothing is missing up to %d, and given all up to %d", page.Through, end)
	}
	_, err = f.record.Write(lines)
	return err
}

// lookBack reads again what was seen before.
func (f *follower) lookBack(ctx context.Context) error {
	if len(f.seen) == 0 {
		return nil
	}
	from := f.rng.IntN(len(f.seen))
	after := eventstore.Position(0)
	if from > 0 {
		after = f.seen[from-1].position
	}
	page, err := f.log.ReadPage(ctx, eventstore.Query{After: after, Limit: 200})
	if err != nil {
		return nil //nolint:nilerr // the database is away just now
	}
	for i := range page.Events {
		now := sightingOf(&page.Events[i])
		if now.position > f.checkpoint() {
			break
		}
		k := sort.Search(len(f.seen), func(k int) bool { return f.seen[k].position >= now.position })
		switch then := f.seen[k]; {
		case then.position != now.position:
			return failf("L1 skipped", now.position, "a reader at %d looked back and found sequence %d of %q, which it was never given",
				f.checkpoint(), now.sequence, now.stream)
		case then != now:
			return failf("L1 changed", now.position, "a reader at %d looked back: it had seen sequence %d of %q, now there is sequence %d of %q",
				f.checkpoint(), then.sequence, then.stream, now.sequence, now.stream)
		}
	}
	return nil
}
