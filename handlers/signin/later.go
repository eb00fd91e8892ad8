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
}

func newLater() *later {
	l := &later{}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

func (l *later) run(f func(ctx context.Context)) {
	l.wg.Go(func() { f(l.ctx) })
}

func (l *later) close(ctx context.Context) error {
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
