package consumers

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

// The states of a stream that was set aside.
const (
	stateRetrying = "retrying"
	stateReleased = "released"
	stateParked   = "parked"
)

// drains bounds the streams that one round starts to drain.
const drains = 32

// writeAside records in the database that a stream is set aside from an event
// on. held is false when the lease is lost.
func (g *group) writeAside(ctx context.Context, s *span, ev eventstore.Event, attempts int, f *Failure, state string, delay time.Duration) (held bool, err error) {
	tag, err := g.store.Pool().Exec(ctx, sqlSetAside, g.name, g.instance, s.first, s.token,
		ev.Stream, ev.Slice, ev.Org, ev.Epoch, ev.Position, ev.Sequence, ev.Type, attempts, f.Class, state, delay.Seconds())
	return tag.RowsAffected() > 0, err
}

// setAside takes a lane out of memory: its stream waits in the database.
func (g *group) setAside(ctx context.Context, l *lane, e *entry, f *Failure, state string, delay time.Duration) {
	held, err := g.writeAside(ctx, l.span, e.ev, e.attempts, f, state, delay)
	if err != nil {
		if ctx.Err() == nil {
			g.cfg.Log.Warn("a consumer cannot set a stream aside", "consumer", g.name, "err", err)
		}
		g.later(l, max(delay, g.cfg.Flush))
		return
	}
	if state == stateParked {
		g.stats.parked.Add(1)
		g.cfg.Log.Error("a stream is parked", "consumer", g.name, "position", e.ev.Position, "type", e.ev.Type,
			"attempts", e.attempts, "class", f.Class)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !held {
		g.retire(l.span, false)
		g.wakeLeaser()
		return
	}
	if l.dead {
		return
	}
	g.aside[l.stream] = &aside{sequence: e.ev.Sequence, position: e.ev.Position}
	g.drop(l)
	delete(g.lanes, l.stream)
	for _, e := range l.queue {
		g.complete(e)
	}
}

// drainRound writes how far drains have come, and starts those whose turn it
// is.
func (g *group) drainRound(ctx context.Context) error {
	g.mu.Lock()
	if len(g.aside) == 0 {
		g.mu.Unlock()
		return nil
	}
	firsts, tokens := []int16{}, []int64{}
	for _, s := range g.spans {
		firsts, tokens = append(firsts, s.first), append(tokens, s.token)
	}
	busy, progressed := []string{}, []string{}
	sequences, positions := []int64{}, []eventstore.Position{}
	for stream, a := range g.aside {
		if a.lane == nil {
			continue
		}
		busy = append(busy, stream)
		if a.progress && !a.lane.closing {
			a.progress = false
			progressed = append(progressed, stream)
			sequences, positions = append(sequences, a.sequence), append(positions, a.position)
		}
	}
	g.mu.Unlock()

	pool := g.store.Pool()
	if len(progressed) > 0 {
		if _, err := pool.Exec(ctx, sqlDrainProgress, g.name, g.instance, firsts, tokens, progressed, sequences, positions); err != nil {
			return err
		}
	}
	if len(busy) >= drains {
		return nil
	}
	rows, err := pool.Query(ctx, sqlBeginDrains, g.name, g.instance, firsts, tokens, busy, drains-len(busy))
	if err != nil {
		return err
	}
	type due struct {
		stream   string
		aside    aside
		attempts int
	}
	dues, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d due, err error) {
		return d, row.Scan(&d.stream, &d.aside.sequence, &d.aside.position, &d.attempts)
	})
	if err != nil {
		return err
	}
	for _, d := range dues {
		g.mu.Lock()
		s := g.bySlice[eventstore.SliceOf(d.stream)]
		a := g.aside[d.stream]
		if s == nil || a == nil || a.lane != nil {
			g.mu.Unlock()
			continue
		}
		a.sequence, a.position = d.aside.sequence, d.aside.position // an operator may have skipped an event
		l := &lane{stream: d.stream, span: s, aside: a}
		a.lane = l
		g.lanes[d.stream] = l
		g.mu.Unlock()
		g.refillFrom(ctx, l, d.attempts)
	}
	return nil
}

// refill reads the next events of a stream that is being drained.
func (g *group) refill(ctx context.Context, l *lane) { g.refillFrom(ctx, l, 0) }

// refillFrom gives a draining lane what the reader has passed over since the
// stream was set aside. When there is nothing left the stream returns to
// normal.
func (g *group) refillFrom(ctx context.Context, l *lane, attempts int) {
	g.mu.Lock()
	passed, from := l.span.next, l.aside.sequence
	g.mu.Unlock()
	events, err := g.store.ReadStream(ctx, l.stream, from-1)
	if err == nil {
		events = slices.DeleteFunc(events, func(e eventstore.Event) bool {
			return e.Position > passed || g.cfg.Org != "" && e.Org != g.cfg.Org || len(g.cfg.Types) > 0 && !slices.Contains(g.cfg.Types, e.Type)
		})
		if g.cfg.OpenSealed {
			err = g.store.Open(ctx, events)
		}
	}
	if err != nil {
		g.retryDrain(ctx, l, err)
		return
	}
	g.mu.Lock()
	if l.dead {
		g.mu.Unlock()
		return
	}
	if len(events) > 0 {
		for i, ev := range events {
			e := &entry{ev: ev}
			if i == 0 {
				e.attempts = attempts
			}
			l.queue = append(l.queue, e)
		}
		g.push(l)
		g.mu.Unlock()
		return
	}
	if l.aside.passed > passed { // the reader has passed over another one meanwhile
		g.mu.Unlock()
		g.refillFrom(ctx, l, attempts)
		return
	}
	l.closing = true // from here on the reader queues the stream's events in l
	g.mu.Unlock()
	g.endDrain(ctx, l)
}

// endDrain deletes the row and makes the lane an ordinary one.
func (g *group) endDrain(ctx context.Context, l *lane) {
	tag, err := g.store.Pool().Exec(ctx, sqlEndDrain, g.name, g.instance, l.span.first, l.span.token, l.stream)
	if err != nil {
		g.retryDrain(ctx, l, err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.dead {
		return
	}
	if tag.RowsAffected() == 0 {
		g.retire(l.span, false)
		g.wakeLeaser()
		return
	}
	delete(g.aside, l.stream)
	l.aside, l.closing = nil, false
	if len(l.queue) > 0 {
		g.push(l)
	} else {
		delete(g.lanes, l.stream)
	}
}

// retryDrain goes on with a drain after the database failed it.
func (g *group) retryDrain(ctx context.Context, l *lane, err error) {
	if ctx.Err() != nil {
		return
	}
	g.cfg.Log.Warn("a consumer cannot drain a stream that was set aside", "consumer", g.name, "err", err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.dead {
		return
	}
	l.stop = g.cfg.Clock.AfterFunc(time.Second, func() {
		g.mu.Lock()
		dead, closing := l.dead, l.closing
		g.mu.Unlock()
		switch {
		case dead || ctx.Err() != nil:
		case closing:
			g.endDrain(ctx, l)
		default:
			g.refill(ctx, l)
		}
	})
}
