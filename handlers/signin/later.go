package signin

import (
	"context"
	"sync"
)

// later runs what need not be waited for by the one who caused it, and is
// waited for by the one who shuts down.
type later struct {
	ctx  context.Context // ends when nobody waits any longer
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex // guards closed, and that wg grows only before it
	closed bool
}

func newLater() *later {
	l := &later{}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// run runs f, unless it is too late.
func (l *later) run(f func(ctx context.Context)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.wg.Go(func() { f(l.ctx) })
	}
}

// close lets nothing begin any more and waits for what has. When ctx ends
// first, what is left is cut off.
func (l *later) close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	done := make(chan struct{})
	go func() { l.wg.Wait(); close(done) }()
	defer l.stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
