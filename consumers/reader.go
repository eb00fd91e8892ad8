package consumers

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

// readLoop reads the log, once for all spans that have come equally far.
func (g *group) readLoop(ctx context.Context) {
	failed := 0
	defer func() {
		if g.ahead != nil {
			<-g.ahead.done
		}
	}()
	for ctx.Err() == nil {
		if !g.waitForRoom(ctx) {
			return
		}
		if g.look(); g.yielding.Load() {
			g.sleep(ctx, yieldPause)
		}
		err := g.readRound(ctx)
		switch {
		case err == nil:
			failed = 0
		case ctx.Err() == nil:
			failed++
			g.cfg.Log.Warn("a consumer cannot read the log", "consumer", g.name, "err", err)
			g.sleep(ctx, g.cfg.Backoff(failed))
		}
	}
}

// waitForRoom waits until a whole batch fits into the window.
func (g *group) waitForRoom(ctx context.Context) bool {
	for {
		g.mu.Lock()
		room := len(g.spans) > 0 && g.buffered+g.cfg.Batch <= g.cfg.Window
		for _, s := range g.spans {
			if len(s.fifo)-s.head > spanLimit {
				s.low()
				room = room && len(s.fifo)-s.head <= spanLimit
			}
		}
		g.mu.Unlock()
		if room {
			return true
		}
		select {
		case <-g.changed:
		case <-ctx.Done():
			return false
		}
	}
}

// stretch is what one round reads.
type stretch struct {
	query eventstore.Query
	spans map[*span]bool
	alone bool // no other span is further behind
}

// nextRead chooses the spans to read for. After a change of leases some are
// behind the others; they are read on their own until they have caught up, in
// turn with the rest, so that neither waits for the other.
func (g *group) nextRead() (stretch, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.spans) == 0 {
		return stretch{}, false
	}
	var places []eventstore.Position
	for _, s := range g.spans {
		places = append(places, s.next)
	}
	slices.Sort(places)
	places = slices.Compact(places)
	i := 0
	g.high = !g.high
	if g.high {
		i = len(places) - 1
	}
	st := stretch{
		query: eventstore.Query{After: places[i], Limit: g.cfg.Batch, Types: g.cfg.Types, Org: g.cfg.Org, FirstSlice: eventstore.Slices},
		spans: map[*span]bool{},
		alone: len(places) == 1,
	}
	if g.yielding.Load() {
		st.query.Limit = min(st.query.Limit, yieldBatch)
	}
	if i+1 < len(places) {
		st.query.UpTo = places[i+1]
	}
	for _, s := range g.spans {
		if s.next == places[i] {
			st.spans[s] = true
			st.query.FirstSlice = min(st.query.FirstSlice, s.first)
			st.query.LastSlice = max(st.query.LastSlice, s.last)
		}
	}
	if st.query.FirstSlice == 0 && st.query.LastSlice == eventstore.Slices-1 {
		st.query.LastSlice = 0 // all of them: a read without a filter is cheaper
	}
	return st, true
}

// readRound reads and enqueues one batch, or waits for the log to grow.
func (g *group) readRound(ctx context.Context) error {
	st, ok := g.nextRead()
	if !ok {
		return nil
	}
	page, err := g.readPage(ctx, st.query)
	if err != nil {
		return err
	}
	if page.Through <= st.query.After {
		if st.alone {
			g.waitForLog(ctx, st.query.After)
		}
		return nil
	}
	if g.cfg.OpenSealed {
		if err := g.store.Open(ctx, page.Events); err != nil {
			return err
		}
	}
	if err := g.announce(ctx, st, page.Events); err != nil {
		return err
	}
	if st.alone && len(page.Events) > 0 {
		g.readAhead(ctx, st, page.Through)
	}
	if err := g.take(ctx, st, page.Events); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range st.spans {
		if !s.retired {
			s.next = max(s.next, page.Through)
		}
	}
	return nil
}

// ahead is a page that is read, and announced, while the one before it is
// handed out. Its fields may be read once done is closed.
type ahead struct {
	query eventstore.Query
	page  eventstore.Page
	err   error
	done  chan struct{}
}

// readAhead begins to read the page behind one. Only the reader calls it.
func (g *group) readAhead(ctx context.Context, st stretch, after eventstore.Position) {
	st.query.After = after
	a := &ahead{query: st.query, done: make(chan struct{})}
	g.ahead = a
	go func() {
		defer close(a.done)
		if a.page, a.err = g.store.ReadPage(ctx, a.query); a.err == nil && len(a.page.Events) > 0 {
			a.err = g.announce(ctx, st, a.page.Events)
		}
	}()
}

// readPage reads a page, or takes the one that was read ahead if it is that one
// and has anything. Only the reader calls it.
func (g *group) readPage(ctx context.Context, q eventstore.Query) (eventstore.Page, error) {
	if a := g.ahead; a != nil {
		g.ahead = nil
		<-a.done
		same := a.query.After == q.After && a.query.UpTo == q.UpTo && a.query.FirstSlice == q.FirstSlice && a.query.LastSlice == q.LastSlice
		if same && a.err == nil && a.page.Through > q.After {
			return a.page, nil
		}
	}
	return g.store.ReadPage(ctx, q)
}

// waitForLog waits until the log is longer or the leases have changed.
func (g *group) waitForLog(ctx context.Context, after eventstore.Position) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	select {
	case <-g.changed:
		g.mu.Unlock()
		return
	default:
	}
	g.idle = cancel
	g.mu.Unlock()
	_ = g.store.Wait(ctx, after) // its only error is ctx's
	g.mu.Lock()
	g.idle = nil
	g.mu.Unlock()
}

// announce writes down how far events are about to be handed out, before any
// is: should the process die, these are the ones it may have died of.
func (g *group) announce(ctx context.Context, st stretch, events []eventstore.Event) error {
	g.mu.Lock()
	news := false
	for i := range events {
		if s := g.bySlice[events[i].Slice]; s != nil && st.spans[s] {
			s.dispatched = max(s.dispatched, events[i].Position)
			news = news || s.dispatched > s.savedDispatched
		}
	}
	g.mu.Unlock()
	if !news {
		return nil
	}
	return g.checkpoint(ctx)
}

// take enqueues what was read.
func (g *group) take(ctx context.Context, st stretch, events []eventstore.Event) error {
	g.mu.Lock()
	suspects := false
	for s := range st.spans {
		suspects = suspects || s.suspects > st.query.After
	}
	if !suspects {
		for i := range events {
			if s := g.bySlice[events[i].Slice]; s != nil && st.spans[s] {
				g.enqueue(s, events[i], nil)
			}
		}
		g.mu.Unlock()
		return nil
	}
	g.mu.Unlock()
	return g.takeCarefully(ctx, st, events)
}

// suspect is an event that may have killed the last owner of its span.
type suspect struct {
	span *span
	ev   eventstore.Event
}

// takeCarefully hands out suspects in small groups, each after its attempts
// have been recorded, and waits for the first answer about each. One that was
// recorded before goes alone, so that the next death convicts it; one that was
// recorded KillStarts times parks its stream.
func (g *group) takeCarefully(ctx context.Context, st stretch, events []eventstore.Event) error {
	var batch []suspect
	flush := func() error {
		err := g.try(ctx, batch)
		batch = batch[:0]
		return err
	}
	for _, ev := range events {
		g.mu.Lock()
		s := g.bySlice[ev.Slice]
		if s == nil || !st.spans[s] || ev.Position <= s.next {
			g.mu.Unlock()
			continue
		}
		suspected, started := ev.Position <= s.suspects, s.started[ev.Position]
		g.mu.Unlock()
		alone := !suspected || started > 0
		if alone || len(batch) == suspectGroup {
			if err := flush(); err != nil {
				return err
			}
		}
		switch {
		case !suspected:
			g.mu.Lock()
			g.enqueue(s, ev, nil)
			g.mu.Unlock()
		case started >= g.cfg.KillStarts:
			if err := g.convict(ctx, s, ev); err != nil {
				return err
			}
		default:
			batch = append(batch, suspect{span: s, ev: ev})
			if alone {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// try records attempts, lets them happen, and strikes them out again.
func (g *group) try(ctx context.Context, batch []suspect) error {
	if len(batch) == 0 {
		return nil
	}
	var firsts, slices []int16
	var tokens []int64
	var positions []eventstore.Position
	for _, b := range batch {
		firsts, tokens = append(firsts, b.span.first), append(tokens, b.span.token)
		positions, slices = append(positions, b.ev.Position), append(slices, b.ev.Slice)
	}
	pool := g.store.Pool()
	if _, err := pool.Exec(ctx, sqlRecordStarts, g.name, g.instance, firsts, tokens, positions, slices); err != nil {
		return err
	}
	tried := make([]chan struct{}, len(batch))
	g.mu.Lock()
	for i, b := range batch {
		tried[i] = make(chan struct{})
		g.enqueue(b.span, b.ev, tried[i])
	}
	g.mu.Unlock()
	for _, t := range tried {
		select {
		case <-t:
		case <-ctx.Done():
		}
	}
	_, err := pool.Exec(context.WithoutCancel(ctx), sqlStrikeOut, g.name, positions)
	if err != nil {
		// The attempts stay on record as unfinished: at worst an innocent
		// stream waits for an operator.
		g.cfg.Log.Warn("a consumer could not strike out attempts", "consumer", g.name, "err", err)
	}
	return nil
}

// convict parks the stream of an event that has killed the process before.
func (g *group) convict(ctx context.Context, s *span, ev eventstore.Event) error {
	// Earlier events of the stream go first: they are handled, or set the
	// stream aside themselves.
	for {
		g.mu.Lock()
		busy, known := g.lanes[ev.Stream] != nil, g.aside[ev.Stream] != nil
		if known || s.retired {
			g.enqueue(s, ev, nil) // passes over it
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		if !busy {
			break
		}
		g.sleep(ctx, g.cfg.Flush)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	held, err := g.writeAside(ctx, s, ev, s.started[ev.Position], &Failure{Class: ClassKilledProcess}, stateParked, 0)
	if err != nil || !held {
		return err
	}
	g.stats.parked.Add(1)
	g.cfg.Log.Error("an event has killed the process again and again; its stream is parked",
		"consumer", g.name, "position", ev.Position, "type", ev.Type)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !s.retired {
		g.aside[ev.Stream] = &aside{sequence: ev.Sequence, position: ev.Position}
		g.enqueue(s, ev, nil) // passes over it
	}
	return nil
}

// checkpoint writes what has changed since the last time, and retires the
// spans whose leases turn out to be lost.
func (g *group) checkpoint(ctx context.Context) error {
	g.writes.Lock()
	defer g.writes.Unlock()
	g.mu.Lock()
	epoch := g.epoch
	firsts, tokens := []int16{}, []int64{}
	positions, dispatched := []eventstore.Position{}, []eventstore.Position{}
	written := map[int16]*span{}
	for _, s := range g.spans {
		low := s.low()
		s.dispatched = max(s.dispatched, low)
		if low == s.saved && s.dispatched == s.savedDispatched {
			continue
		}
		firsts, tokens = append(firsts, s.first), append(tokens, s.token)
		positions, dispatched = append(positions, low), append(dispatched, s.dispatched)
		written[s.first] = s
	}
	g.mu.Unlock()
	if len(firsts) == 0 {
		return nil
	}
	rows, err := g.store.Pool().Query(ctx, sqlCheckpoint, g.name, g.instance, epoch, firsts, tokens, positions, dispatched)
	if err != nil {
		return err
	}
	done, err := pgx.CollectRows(rows, pgx.RowTo[int16])
	if err != nil {
		return err
	}
	held := make(map[int16]bool, len(done))
	for _, first := range done {
		held[first] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, first := range firsts {
		s := written[first]
		if !held[first] {
			g.retire(s, false)
			g.wakeLeaser()
			continue
		}
		s.saved = max(s.saved, positions[i])
		s.savedDispatched = max(s.savedDispatched, dispatched[i])
	}
	return nil
}

// flushLoop writes checkpoints, looks for streams whose turn it is, and
// notices when the log begins a new epoch.
func (g *group) flushLoop(ctx context.Context) {
	for {
		g.sleep(ctx, g.cfg.Flush)
		if ctx.Err() != nil {
			return
		}
		g.look()
		if epoch := g.store.Epoch(); epoch != g.epoch {
			g.beginEpoch(epoch)
			continue
		}
		err := g.checkpoint(ctx)
		if err == nil {
			err = g.drainRound(ctx)
		}
		if err != nil && ctx.Err() == nil {
			g.cfg.Log.Warn("a consumer cannot write its checkpoint", "consumer", g.name, "err", err)
			g.sleep(ctx, min(time.Second, 5*g.cfg.Flush))
		}
		select {
		case g.changed <- struct{}{}: // the reader may wait for a low-water mark
		default:
		}
	}
}

// beginEpoch drops everything: what was read may not be in the log any more.
// The leases are taken anew, and their checkpoints judged.
func (g *group) beginEpoch(epoch int32) {
	g.mu.Lock()
	g.epoch = epoch
	for _, s := range g.spans {
		g.retire(s, false)
	}
	g.mu.Unlock()
	g.wakeLeaser()
}
