package eventstore

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// channels that instances tell each other news on. The payload of the first is
// a position that is visible; that of the second is the stream whose subject was
// erased.
const (
	channelHead   = "muster_log"
	channelErased = "muster_erased"
)

// watcher knows how far the log reaches and wakes those who wait for more. It
// listens for other instances' notifications on a connection of its own, polls
// as a net, and sends this instance's notifications: one at most for all the
// flushes that ended while the last one was being sent, outside their commits.
type watcher struct {
	store  *Store
	notify chan struct{} // capacity 1: this instance has committed something

	mu     sync.Mutex    // guards what follows
	known  Position      // a position that was visible when it was last looked at
	beyond chan struct{} // closed and replaced when known grows
	growth growth        // of known
}

func newWatcher(s *Store) *watcher {
	return &watcher{store: s, notify: make(chan struct{}, 1), beyond: make(chan struct{})}
}

// head returns the last position known to be visible.
func (w *watcher) head() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// saw takes note of a visible position.
func (w *watcher) saw(p Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p > w.known {
		w.known = p
		w.growth.reached(p, time.Now())
		close(w.beyond)
		w.beyond = make(chan struct{})
	}
}

// forget drops what was known, after a failover to a database that may have
// less.
func (w *watcher) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.growth = 0, growth{}
}

// recede takes note that the log ends at p where a reader looked, although more
// was known: so it is on a standby that was restarted, until it has caught up.
func (w *watcher) recede(p Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p < w.known {
		w.known, w.growth = p, growth{}
	}
}

// growthSpan is the time over which growth is measured, standstill that after
// which a log that has not grown has none.
const (
	growthSpan = 100 * time.Millisecond
	standstill = 500 * time.Millisecond
)

// growth measures how fast a log grows. The zero value knows nothing.
type growth struct {
	from  Position // where the present span begins
	since time.Time
	last  time.Time // when the log was last seen to grow
	rate  float64   // of the last whole span
}

// reached takes note that the log has come to p.
func (g *growth) reached(p Position, now time.Time) {
	took := now.Sub(g.since)
	switch {
	case g.since.IsZero() || now.Sub(g.last) > standstill: // how it came there is not known
		*g = growth{from: p, since: now}
	case took >= growthSpan:
		g.rate, g.from, g.since = float64(p-g.from)/took.Seconds(), p, now
	}
	g.last = now
}

// now returns events a second.
func (g *growth) now(now time.Time) float64 {
	if now.Sub(g.last) > standstill {
		return 0
	}
	return g.rate
}

// Growth returns how fast the log grows as far as this process sees it, in
// events a second over about a tenth of one; 0 while it stands still.
func (s *Store) Growth() float64 {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.watch.growth.now(time.Now())
}

// committed takes note of this instance's own batch and lets the others know.
func (w *watcher) committed(last Position) {
	w.saw(last)
	select {
	case w.notify <- struct{}{}:
	default: // one is pending, and will be sent after this commit
	}
}

// Wait returns once the log reaches beyond a position, or with ctx's error.
func (s *Store) Wait(ctx context.Context, after Position) error {
	backoff := minBackoff
	for {
		s.watch.mu.Lock()
		known, beyond := s.watch.known, s.watch.beyond
		s.watch.mu.Unlock()
		if known > after {
			if !s.standby {
				return nil
			}
			// It may have been restarted since, and show an older state.
			head, err := s.lookUpHead(ctx)
			if err == nil && head > after {
				return nil
			}
			if err == nil {
				s.watch.recede(head)
			} else {
				backoff = pause(ctx, backoff)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		select {
		case <-beyond:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run keeps a connection until ctx ends; when it breaks, whatever might have
// been missed is assumed to have happened.
func (w *watcher) run(ctx context.Context) {
	for backoff := minBackoff; ctx.Err() == nil; {
		conn, err := w.store.connect(ctx)
		if err == nil {
			backoff = minBackoff
			err = w.session(ctx, conn)
			conn.Close(context.WithoutCancel(ctx))
		}
		if ctx.Err() != nil {
			return
		}
		w.store.cfg.Log.Warn("the watcher lost its connection", "error", err)
		backoff = pause(ctx, backoff)
	}
}

// session listens and polls on one connection until it fails or ctx ends.
func (w *watcher) session(ctx context.Context, conn *pgx.Conn) error {
	s := w.store
	if !s.standby { // LISTEN is not to be had there; polling does it all
		if err := s.identify(ctx, conn); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "LISTEN "+channelHead+"; LISTEN "+channelErased); err != nil {
			return err
		}
	}
	// A notification's own transaction is nothing worth waiting for the disk.
	if _, err := conn.Exec(ctx, "SET synchronous_commit = off"); err != nil {
		return err
	}
	s.keys.clear()
	w.forget()
	if err := w.look(ctx, conn); err != nil {
		return err
	}

	heard := make(chan error, 1)
	lastIdentified := time.Now()
	for {
		if time.Since(lastIdentified) > 5*s.cfg.Poll {
			lastIdentified = time.Now()
			if err := w.housekeeping(ctx, conn); err != nil {
				return err
			}
		}
		// One goroutine waits on the connection while this one waits for
		// everything else; it has ended before the connection is used again.
		waitCtx, interrupt := context.WithTimeout(ctx, s.cfg.Poll)
		go func() { heard <- w.listen(waitCtx, conn) }()
		var err error
		select {
		case err = <-heard:
			if err == nil && waitCtx.Err() != nil { // nobody had news for a while
				err = w.look(ctx, conn)
			}
		case <-w.notify:
			interrupt()
			if err = <-heard; err == nil {
				_, err = conn.Exec(ctx, fmt.Sprintf("NOTIFY %s, '%d'", channelHead, w.head()))
			}
			pause(ctx, notifyEvery(s.Growth()))
		}
		interrupt()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// notifyEvery is the shortest time between two notifications while the log grows
// by so many events a second. Each wakes every other instance, which an import of
// many would rather do without.
func notifyEvery(growth float64) time.Duration {
	if growth > 5000 {
		return 25 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// listen returns when another instance has had news or ctx has ended; an error
// means that the connection is broken.
func (w *watcher) listen(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case err != nil && ctx.Err() != nil && !conn.IsClosed():
			return nil
		case err != nil:
			return err
		case n.Channel == channelErased:
			w.store.keys.forget(n.Payload)
		case n.PID != conn.PgConn().PID():
			// Readers go by what they see, so that a wrong position could do no
			// harm but wake them.
			if p, err := strconv.ParseInt(n.Payload, 10, 64); err == nil {
				w.saw(Position(p))
				continue
			}
			return w.look(ctx, conn)
		}
	}
}

func (w *watcher) look(ctx context.Context, conn *pgx.Conn) error {
	var p int64
	if err := conn.QueryRow(ctx, sqlHead).Scan(&p); err != nil {
		return err
	}
	w.saw(Position(p))
	return nil
}

// housekeeping follows changes of the epoch and of the key file.
func (w *watcher) housekeeping(ctx context.Context, conn *pgx.Conn) error {
	s := w.store
	if s.cfg.Keys.Changed() {
		if err := s.cfg.Keys.Reload(); err != nil {
			s.cfg.Log.Error("the key file does not load", "error", err)
		}
	}
	if s.standby {
		return s.loadEpochs(ctx)
	}
	return s.identify(ctx, conn)
}

const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// pause waits for backoff, or until ctx ends, and returns the next one.
func pause(ctx context.Context, backoff time.Duration) time.Duration {
	t := time.NewTimer(backoff)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return min(2*backoff, maxBackoff)
}
