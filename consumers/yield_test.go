package consumers_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// grow lets the log grow until stop is called, and returns once the store has
// noticed.
func grow(t *testing.T, store *eventstore.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var growing sync.WaitGroup
	stop = func() { cancel(); growing.Wait() }
	t.Cleanup(stop)
	growing.Go(func() {
		for ctx.Err() == nil {
			_, err := store.Append(ctx, eventstore.Append{Stream: "growing", Org: "org1", Actor: "test", Expected: eventstore.Any, At: time.Now(),
				Events: encode(domain.UserLocked{}, domain.UserUnlocked{})})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	until(t, "growth", func() bool { return store.Growth() > 1 })
	return stop
}

// TestConsumersLetImportsGoFirst: while the log grows faster than a consumer's
// limit the consumer steps back, and afterwards it makes up for it. One without
// a limit shows how much there was to do.
func TestConsumersLetImportsGoFirst(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	const backlog = 20_000
	newUsers(t, store, backlog/5, 4)
	stop := grow(t, store)
	var polite, eager atomic.Int64
	counting := func(n *atomic.Int64) message.NoPublishHandlerFunc {
		return func(*message.Message) error { n.Add(1); return nil }
	}
	consume(t, store, "polite", consumers.Config{YieldAbove: 1, Flush: 20 * time.Millisecond}, counting(&polite))
	consume(t, store, "eager", consumers.Config{YieldAbove: -1}, counting(&eager))
	until(t, "the eager consumer", func() bool { return eager.Load() >= backlog })
	if n := polite.Load(); n == 0 || n > backlog/10 {
		t.Errorf("beside an import the consumer got %d events, another one %d", n, backlog)
	}
	stop()
	until(t, "the polite consumer", func() bool { return polite.Load() >= backlog })
}

// counter is a broker that counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Publish(_ string, messages ...*message.Message) error {
	c.n.Add(int64(len(messages)))
	return nil
}

func (*counter) Close() error { return nil }

func TestTheRelayLetsImportsGoFirst(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	const backlog = 20_000
	newUsers(t, store, backlog/5, 4)
	stop := grow(t, store)
	run := func(name string, yieldAbove int) *counter {
		c := &counter{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- consumers.NewRelay(store, c, consumers.RelayConfig{Name: name, YieldAbove: yieldAbove}).Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return c
	}
	polite, eager := run("polite", 1), run("eager", -1)
	until(t, "the eager relay", func() bool { return eager.n.Load() >= backlog })
	until(t, "the polite relay's first events", func() bool { return polite.n.Load() > 0 })
	if n := polite.n.Load(); n > backlog/10 {
		t.Errorf("beside an import %d events were relayed, by another relay %d", n, backlog)
	}
	stop()
	until(t, "the polite relay", func() bool { return polite.n.Load() >= backlog })
}
