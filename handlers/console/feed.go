package console

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/muster-id/muster/domain"
)

const (
	// maxViewers bounds the streams that are open at a time.
	maxViewers = 64
	// pollEvery is how often the database is asked, for all who look.
	pollEvery = time.Second
	// patience is how long a reader may take to accept what is sent.
	patience = 15 * time.Second
)

var errViewers = domain.NewError(domain.KindResourceExhausted, "MUSTER-viewers", "Too many consoles are open")

// feed lets many look at what one poller sees. The poller runs while somebody
// looks: the first viewer starts it, the last one ends it and waits until it
// has ended. It is safe for concurrent use.
type feed struct {
	// poll sends frames until ctx ends; what it returns on the way out nobody
	// needs.
	poll func(ctx context.Context, send func(frame []byte))

	mu      sync.Mutex // guards what follows
	viewers map[chan []byte]struct{}
	last    []byte
	cancel  context.CancelFunc
	ended   chan struct{}
}

func newFeed(poll func(context.Context, func([]byte))) *feed {
	return &feed{poll: poll, viewers: map[chan []byte]struct{}{}}
}

// join begins to look. The channel holds the latest frame that has not been
// taken; leave must be called in the end. errViewers.
func (f *feed) join() (frames <-chan []byte, leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.viewers) >= maxViewers {
		return nil, nil, errViewers
	}
	ch := make(chan []byte, 1)
	if f.last != nil {
		ch <- f.last
	}
	f.viewers[ch] = struct{}{}
	if len(f.viewers) == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		before, ended := f.ended, make(chan struct{})
		f.cancel, f.ended = cancel, ended
		go func() {
			defer close(ended)
			if before != nil {
				<-before // one poller at a time
			}
			f.poll(ctx, func(frame []byte) { f.send(ctx, frame) })
		}()
	}
	return ch, func() { f.leave(ch) }, nil
}

func (f *feed) leave(ch chan []byte) {
	f.mu.Lock()
	delete(f.viewers, ch)
	if len(f.viewers) > 0 {
		f.mu.Unlock()
		return
	}
	f.cancel()
	f.last = nil
	ended := f.ended
	f.mu.Unlock()
	<-ended
}

// send gives everybody a frame. Who has not taken the one before gets this one
// instead.
func (f *feed) send(ctx context.Context, frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return // a poller that has been ended is silent
	}
	f.last = frame
	for ch := range f.viewers {
		select {
		case <-ch:
		default:
		}
		ch <- frame
	}
}

// stream sends frames until the reader goes, the session ends or the service
// shuts down.
func (c *console) stream(v *visit) error {
	frames, leave, err := c.feed.join()
	if err != nil {
		return err
	}
	defer leave()
	w, rc := v.echo.Response(), http.NewResponseController(v.echo.Response())
	// Nothing more is read; the deadline of bodies would end the call.
	_ = rc.SetReadDeadline(time.Time{})
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	send := func(format string, args ...any) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(patience))
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && rc.Flush() == nil
	}
	if !send("retry: 2000\n\n") {
		return nil
	}
	check := time.NewTicker(pollEvery)
	defer check.Stop()
	for {
		select {
		case <-v.ctx().Done():
			return nil
		case <-c.cfg.Stopping:
			return nil
		case <-check.C:
			// Beside the frames: there are none while the database is away.
			if ok, err := c.stillGood(v); err == nil && !ok {
				return nil
			}
		case frame := <-frames:
			if !send("data: %s\n\n", frame) {
				return nil
			}
		}
	}
}
