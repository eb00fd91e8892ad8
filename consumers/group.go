package consumers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/muster-id/muster/eventstore"
)

// spanLimit bounds, for one range of slices, how far reading may run ahead of
// the low-water mark: what would be handled a second time after a crash.
const spanLimit = 1 << 16

// suspectGroup is how many events that may have killed a process are tried at
// once. When one of them does it again, they are tried one by one.
const suspectGroup = 128

// entry is one event that was read and is not yet handled.
type entry struct {
	ev       eventstore.Event
	attempts int           // failed ones, of this process
	done     bool          // handled, or set aside with its stream
	tracked  bool          // in its span's fifo, counted in buffered
	tried    chan struct{} // closed after the first try, if anyone waits for it
}

// answered tells whoever waits for the first try that it has been made, or is not
// worth waiting for. group.mu is held.
func (e *entry) answered() {
	if e.tried != nil {
		close(e.tried)
		e.tried = nil
	}
}

// span is a range of slices that this instance has leased. All fields but
// validUntil are guarded by group.mu.
type span struct {
	first, last int16
	token       int64
	// validUntil is when this instance must consider the lease lost, in
	// nanoseconds of the clock: a margin before the others may take it.
	validUntil atomic.Int64

	// next is how far the log has been read: every event of the range up to
	// next is in fifo, handled, or behind a stream set aside.
	next eventstore.Position
	// fifo holds the events read, in order; those before head are done.
	fifo []*entry
	head int
	// saved and savedDispatched are what the database has.
	saved, dispatched, savedDispatched eventstore.Position
	// suspects ends the events that the last owner may have died of, and
	// started counts the recorded attempts on single ones.
	suspects eventstore.Position
	started  map[eventstore.Position]int

	running int  // handlers at work
	retired bool // no longer read nor delivered; results only move low()
	release bool // to be given back once running is 0

	ctx    context.Context // of its messages; ends when the lease is lost
	cancel context.CancelFunc
}

// low returns the low-water mark: everything up to it is handled.
func (s *span) low() eventstore.Position {
	for s.head < len(s.fifo) && s.fifo[s.head].done {
		s.fifo[s.head] = nil
		s.head++
	}
	if s.head == len(s.fifo) {
		s.fifo, s.head = s.fifo[:0], 0
		return s.next
	}
	if s.head > 4096 && s.head > len(s.fifo)/2 {
		s.fifo = append(s.fifo[:0], s.fifo[s.head:]...)
		s.head = 0
	}
	return s.fifo[s.head].ev.Position - 1
}

// lane is one stream with something to do.
type lane struct {
	stream string
	span   *span
	queue  []*entry // the first one is next, or being handled
	aside  *aside   // set while the lane drains a stream that was set aside
	// closing says that the drain has reached the reader: what the reader
	// finds from now on is queued here, and runs once the row is deleted.
	closing bool
	dead    bool // its span was retired, or the stream set aside
	stop    func() bool
}

// aside is a stream that was set aside, as this instance knows it.
type aside struct {
	sequence int64               // the first that is not handled
	position eventstore.Position // at or before that event
	progress bool                // sequence is ahead of the database
	passed   eventstore.Position // of the last event that the reader left to the drain
	lane     *lane               // while draining
}

// group is one instance's subscription under one consumer's name.
type group struct {
	store    *eventstore.Store
	cfg      Config
	name     string
	instance string
	out      chan *message.Message
	stats    stats

	stopping  chan struct{} // closed by finish
	stopOnce  sync.Once
	changed   chan struct{} // cap 1: wakes the reader
	leaseWake chan struct{} // cap 1: wakes the leaser
	fatal     chan error    // cap 1

	ahead *ahead // the reader's

	// While yielding, workers take turns.
	yielding atomic.Bool
	turns    *rate.Limiter

	// writes makes the statements on several of the group's rows follow each
	// other: at once they could wait for each other. It is taken before mu.
	writes sync.Mutex

	mu       sync.Mutex
	cond     *sync.Cond // on mu: a worker may have something to do
	epoch    int32
	spans    map[int16]*span // by first slice, not retired
	bySlice  [eventstore.Slices]*span
	retired  map[*span]struct{} // retired and still running, or to be released
	lanes    map[string]*lane
	aside    map[string]*aside // of the spans
	ready    []*lane           // lanes whose first entry may be delivered
	buffered int               // tracked entries that are not done
	high     bool              // whose turn it is to be read; see nextRead
	idle     context.CancelFunc
	// outages counts failures of the destination in a row; while shut, or
	// while one try is out to see whether it is back, nothing else goes out.
	outages       int
	shut, probing bool
	ending        bool // workers stop
}

func newGroup(store *eventstore.Store, cfg Config, name, instance string) *group {
	g := &group{
		store: store, cfg: cfg, name: name, instance: instance,
		out:       make(chan *message.Message),
		stopping:  make(chan struct{}),
		changed:   make(chan struct{}, 1),
		leaseWake: make(chan struct{}, 1),
		fatal:     make(chan error, 1),
		spans:     map[int16]*span{}, retired: map[*span]struct{}{},
		lanes: map[string]*lane{}, aside: map[string]*aside{},
		epoch: store.Epoch(), turns: rate.NewLimiter(yieldRate, 1),
	}
	g.look()
	g.cond = sync.NewCond(&g.mu)
	return g
}

// finish asks the group to end in good order.
func (g *group) finish() { g.stopOnce.Do(func() { close(g.stopping) }) }

func (g *group) fail(err error) {
	select {
	case g.fatal <- err:
	default:
	}
	g.finish()
}

// run works until ctx ends, finish is called, or something makes going on
// wrong; it returns the last of these.
func (g *group) run(ctx context.Context) error {
	// Messages see ctx itself; the machinery goes on without it, so as to end
	// in good order.
	deliver, cancelDeliver := context.WithCancel(ctx)
	defer cancelDeliver()
	work, cancelWork := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWork()
	unhook := context.AfterFunc(ctx, g.finish)
	defer unhook()
	go func() { // ends with work
		select {
		case <-g.stopping:
			cancelWork()
		case <-work.Done():
		}
	}()

	hard, cancelHard := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelHard()
	var machinery, workers errgroup.Group
	machinery.Go(func() error { g.leaseLoop(work, deliver); return nil })
	machinery.Go(func() error { g.flushLoop(work); return nil })
	machinery.Go(func() error { g.readLoop(work); return nil })
	for range g.cfg.InFlight {
		workers.Go(func() error { g.work(work, hard); return nil })
	}

	<-work.Done()
	_ = machinery.Wait()
	g.mu.Lock()
	g.ending = true
	g.mu.Unlock()
	g.cond.Broadcast()
	stopTimer := g.cfg.Clock.AfterFunc(g.cfg.CloseTimeout, cancelHard)
	_ = workers.Wait()
	stopTimer()
	cancelDeliver()
	g.leave(context.WithoutCancel(ctx))
	select {
	case err := <-g.fatal:
		return err
	default:
		return nil
	}
}

// sleep waits for d, or less when ctx ends.
func (g *group) sleep(ctx context.Context, d time.Duration) {
	done := make(chan struct{})
	stop := g.cfg.Clock.AfterFunc(d, func() { close(done) })
	defer stop()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// wakeReader makes the reader look again at what it may read. mu is held.
func (g *group) wakeReader() {
	if g.idle != nil {
		g.idle()
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *group) wakeLeaser() {
	select {
	case g.leaseWake <- struct{}{}:
	default:
	}
}

// push makes a lane's first entry deliverable. mu is held.
func (g *group) push(l *lane) {
	g.ready = append(g.ready, l)
	g.cond.Signal()
}

// enqueue takes an event that was read. mu is held.
func (g *group) enqueue(s *span, ev eventstore.Event, tried chan struct{}) {
	if s.retired || ev.Position <= s.next {
		if tried != nil {
			close(tried)
		}
		return
	}
	s.next = ev.Position
	l := g.lanes[ev.Stream]
	if a := g.aside[ev.Stream]; a != nil && (l == nil || !l.closing) {
		a.passed = ev.Position
		if tried != nil {
			close(tried)
		}
		return // it waits behind its stream
	}
	e := &entry{ev: ev, tracked: true, tried: tried}
	s.fifo = append(s.fifo, e)
	g.buffered++
	if l == nil {
		l = &lane{stream: ev.Stream, span: s}
		g.lanes[ev.Stream] = l
	}
	l.queue = append(l.queue, e)
	if len(l.queue) == 1 && !l.closing {
		g.push(l)
	}
}

// complete marks an entry as needing no more work. mu is held.
func (g *group) complete(e *entry) {
	if e.done {
		return
	}
	e.done = true
	e.answered()
	if e.tracked {
		g.buffered--
		if g.buffered == g.cfg.Window-g.cfg.Batch || g.buffered == 0 {
			g.wakeReader()
		}
	}
	position := e.ev.Position
	e.ev = eventstore.Event{Position: position} // what the fifo still needs
}

// work is one worker: it takes a lane, delivers the first entry, and does what
// the answer asks for.
func (g *group) work(ctx, hard context.Context) {
	for {
		g.pace(ctx)
		g.mu.Lock()
		for !g.ending && (len(g.ready) == 0 || g.shut || g.outages > 0 && g.probing) {
			g.cond.Wait()
		}
		if g.ending {
			g.mu.Unlock()
			return
		}
		l := g.ready[0]
		g.ready[0] = nil
		g.ready = g.ready[1:]
		if l.dead || len(l.queue) == 0 {
			g.mu.Unlock()
			continue
		}
		e, s := l.queue[0], l.span
		if g.cfg.Clock.Now().UnixNano() >= s.validUntil.Load() {
			g.retire(s, false)
			g.mu.Unlock()
			g.wakeLeaser()
			continue
		}
		s.running++
		if g.outages > 0 {
			g.probing = true
		}
		g.mu.Unlock()

		answer, failure := g.deliver(ctx, hard, s, e)
		g.settle(ctx, l, e, answer, failure)
	}
}

type answer int

const (
	abandoned answer = iota // nobody took it, or nobody answered in time
	acked
	nacked
)

// deliver hands one entry to whoever receives from the channel, and waits for
// the answer. No lock and no connection is held meanwhile.
func (g *group) deliver(ctx, hard context.Context, s *span, e *entry) (answer, *Failure) {
	mctx := new(messageContext)
	defer mctx.end()
	if err := mctx.about(s.ctx, &e.ev); err != nil {
		return nacked, &Failure{Class: ClassUndecodable, Permanent: true, Err: err}
	}
	if g.cfg.HandlerTimeout > 0 {
		mctx.deadline = time.Now().Add(g.cfg.HandlerTimeout)
	}
	msg := newMessage(mctx, g.name, s.token, e.attempts+1)
	select {
	case g.out <- msg:
	case <-ctx.Done():
		return abandoned, nil
	}
	g.stats.delivered.Add(1)
	select {
	case <-msg.Acked():
		g.stats.acked.Add(1)
		return acked, nil
	case <-msg.Nacked():
		g.stats.nacked.Add(1)
		return nacked, mctx.reason()
	case <-hard.Done():
		return abandoned, nil
	}
}

// settle does what an answer asks for.
func (g *group) settle(ctx context.Context, l *lane, e *entry, a answer, f *Failure) {
	g.mu.Lock()
	s := l.span
	s.running--
	if g.outages > 0 {
		g.probing = false
		if a == acked || a == nacked && !f.Outage {
			g.outages = 0
		}
		g.cond.Broadcast()
	}
	if s.retired {
		if a == acked {
			g.complete(e)
		}
		if s.running == 0 {
			g.wakeLeaser()
		}
		g.mu.Unlock()
		return
	}
	if a == nacked && ctx.Err() != nil {
		a = abandoned // a handler that was told to stop has not failed
	}
	e.answered()
	switch a {
	case abandoned:
		g.mu.Unlock()
	case acked:
		l.queue = l.queue[1:]
		if l.aside != nil {
			l.aside.sequence, l.aside.position, l.aside.progress = e.ev.Sequence+1, e.ev.Position+1, true
		}
		g.complete(e)
		switch {
		case len(l.queue) > 0:
			g.push(l)
			g.mu.Unlock()
		case l.aside != nil:
			g.mu.Unlock()
			g.refill(ctx, l)
		default:
			delete(g.lanes, l.stream)
			g.mu.Unlock()
		}
	case nacked:
		if f.Outage {
			g.shutGate(f)
			if l.aside == nil {
				g.ready = append([]*lane{l}, g.ready...)
				g.mu.Unlock()
				return
			}
			delay := g.cfg.Backoff(g.outages)
			g.mu.Unlock()
			g.setAside(ctx, l, e, f, stateRetrying, delay)
			return
		}
		e.attempts++
		for _, behind := range l.queue[1:] { // nobody waits for what waits for this one
			behind.answered()
		}
		delay := g.cfg.Backoff(e.attempts)
		full := l.aside == nil && len(g.aside) >= g.cfg.MaxAside
		g.mu.Unlock()
		switch {
		case (f.Permanent || e.attempts >= g.cfg.Attempts) && !full:
			g.setAside(ctx, l, e, f, stateParked, 0)
		case (delay >= g.cfg.AsideAfter || l.aside != nil) && !full:
			g.setAside(ctx, l, e, f, stateRetrying, delay)
		default:
			g.later(l, delay)
		}
	}
}

// shutGate pauses all deliveries for a while. mu is held.
func (g *group) shutGate(f *Failure) {
	if g.shut {
		return
	}
	if g.outages&(g.outages-1) == 0 { // the first, second, third, fifth, ninth … in a row
		g.cfg.Log.Warn("a consumer's destination fails; trying again with backoff", "consumer", g.name, "class", f.Class, "failed", g.outages+1)
	}
	g.outages++
	g.shut = true
	g.stats.outages.Add(1)
	g.cfg.Clock.AfterFunc(g.cfg.Backoff(g.outages), func() {
		g.mu.Lock()
		g.shut, g.probing = false, false
		g.mu.Unlock()
		g.cond.Broadcast()
	})
}

// later makes a lane deliverable again after a while.
func (g *group) later(l *lane, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.dead {
		return
	}
	l.stop = g.cfg.Clock.AfterFunc(d, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !l.dead && len(l.queue) > 0 {
			g.push(l)
		}
	})
}

// retire stops all work on a span. What was read and not handled is dropped;
// its next owner, perhaps this instance again, reads it anew. With release the
// lease is given back as soon as no handler is at work. mu is held.
func (g *group) retire(s *span, release bool) {
	if s.retired {
		return
	}
	s.retired, s.release = true, release
	if !release {
		s.cancel()
	}
	delete(g.spans, s.first)
	for i := s.first; i <= s.last; i++ {
		g.bySlice[i] = nil
	}
	for stream, l := range g.lanes {
		if l.span == s {
			g.drop(l)
			delete(g.lanes, stream)
		}
	}
	for stream := range g.aside {
		if slice := eventstore.SliceOf(stream); s.first <= slice && slice <= s.last {
			delete(g.aside, stream)
		}
	}
	for _, e := range s.fifo[s.head:] {
		if e != nil && !e.done && e.tracked {
			e.tracked = false
			g.buffered--
			e.answered()
		}
	}
	g.retired[s] = struct{}{}
	g.wakeReader()
}

// drop forgets a lane. mu is held.
func (g *group) drop(l *lane) {
	l.dead = true
	if l.stop != nil {
		l.stop()
	}
	if l.aside != nil {
		l.aside.lane = nil
	}
}
