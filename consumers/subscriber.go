package consumers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/eventstore"
)

// Start says where a consumer begins that the database does not know yet. The
// zero value is the beginning of the log. A known consumer goes on from its
// checkpoint; see Reset.
type Start struct {
	now   bool
	after eventstore.Position
	at    time.Time
}

// FromBeginning starts with the first event.
func FromBeginning() Start { return Start{} }

// FromNow starts with the first event that is committed after the consumer was
// created.
func FromNow() Start { return Start{now: true} }

// FromPosition starts with the event after a position.
func FromPosition(after eventstore.Position) Start { return Start{after: after} }

// FromTime starts with the first batch that the database's clock says was
// begun at or after a time.
func FromTime(t time.Time) Start { return Start{at: t} }

// Clock is where the time comes from: the system, or a test.
type Clock interface {
	// Now need not be the wall clock, but must never go back.
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d, unless stopped before.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// Config says how a Subscriber works. The zero value of a field takes the
// default.
type Config struct {
	// Types are the only event types that are delivered; none means all.
	Types []string
	// Org is the only organisation whose events are delivered; "" means all.
	Org string
	// Start is where a new consumer begins. Default: the beginning.
	Start Start
	// OpenSealed decrypts personal data for the handlers: EventOf then has
	// everything, and the payload has the personal fields, but never the
	// credentials.
	OpenSealed bool

	// InFlight bounds the handlers at work at once, over all streams.
	// Default 64.
	InFlight int
	// Window bounds the events in memory that are read and not yet handled.
	// Default 16384.
	Window int
	// Batch bounds one read. Default 4000; at most half the Window.
	Batch int
	// YieldAbove lets imports go first: while the log grows by more events a
	// second than this, the consumer gets 50 a second at most from each
	// instance, and catches up afterwards. Default 5,000; negative: never.
	YieldAbove int
	// Ranges is how many leases a new consumer's slices are divided into, and
	// so how many instances can share its work. Default 16.
	Ranges int

	// Attempts is how often an event is tried before its stream is parked.
	// Default 8.
	Attempts int
	// Backoff says how long to wait after a number of failed tries, from 1.
	// Default: Exponential(100 ms, 1 min).
	Backoff func(failed int) time.Duration
	// AsideAfter is the shortest wait for which a stream is set aside in the
	// database instead of in memory. Default 1 s.
	AsideAfter time.Duration
	// MaxAside bounds the streams set aside, parked ones included. Beyond it
	// it is not a stream that fails but the consumer: failing events are
	// tried again for ever, and reading stops. Default 10,000.
	MaxAside int
	// KillStarts is the number of recorded attempts on an event that did not
	// outlive its process before its stream is parked. Default 2.
	KillStarts int
	// HandlerTimeout ends a message's context after so long. Default: never.
	HandlerTimeout time.Duration

	// LeaseTTL is how long an instance that died keeps its slices from the
	// others. Default 15 s.
	LeaseTTL time.Duration
	// Flush is how often checkpoints are written. Default 200 ms.
	Flush time.Duration
	// CloseTimeout is how long Close waits for handlers. Default 20 s.
	CloseTimeout time.Duration
	// RewindOnFork makes the consumer go back to the last position that its
	// history and the present one share, and handle the events from there,
	// where it would otherwise stop with an eventstore.ForkError.
	RewindOnFork bool

	// Log receives what an operator should know: no payload, no handler's
	// error text.
	Log *slog.Logger
	// Clock and Rand (0 ≤ r < 1, for jitter) are replaced by tests.
	Clock Clock
	Rand  func() float64
}

func (c *Config) setDefaults() error {
	defInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	defDur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	defInt(&c.InFlight, 64)
	defInt(&c.Window, 16384)
	defInt(&c.Batch, 4000)
	c.Batch = max(1, min(c.Batch, c.Window/2))
	c.YieldAbove = yieldDefault(c.YieldAbove)
	defInt(&c.Ranges, 16)
	if c.Ranges > eventstore.Slices || eventstore.Slices%c.Ranges != 0 {
		return fmt.Errorf("consumers: Ranges must divide %d", eventstore.Slices)
	}
	defInt(&c.Attempts, 8)
	defDur(&c.AsideAfter, time.Second)
	defInt(&c.MaxAside, 10_000)
	defInt(&c.KillStarts, 2)
	defDur(&c.LeaseTTL, 15*time.Second)
	defDur(&c.Flush, 200*time.Millisecond)
	defDur(&c.CloseTimeout, 20*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.Rand == nil {
		c.Rand = mathrand.Float64
	}
	if c.Backoff == nil {
		c.Backoff = Exponential(100*time.Millisecond, time.Minute, c.Rand)
	}
	return nil
}

// Exponential is a backoff that doubles from first up to limit; each wait is
// chosen at random between half of that and all of it, so that what failed
// together does not come back together.
func Exponential(first, limit time.Duration, random func() float64) func(failed int) time.Duration {
	return func(failed int) time.Duration {
		d := limit
		if shift := max(failed, 1) - 1; shift < 32 && first<<shift > 0 && first<<shift < limit {
			d = first << shift
		}
		return d/2 + time.Duration(random()*float64(d-d/2))
	}
}

// Subscriber is the log as a Watermill message.Subscriber. The topic of
// Subscribe is the consumer's name: subscriptions with the same name, here or
// in other processes, share the work.
type Subscriber struct {
	store *eventstore.Store
	cfg   Config

	mu     sync.Mutex
	closed bool
	groups map[*group]struct{}
	errs   map[string]error
	wg     sync.WaitGroup
}

var _ message.Subscriber = (*Subscriber)(nil)
var _ message.SubscribeInitializer = (*Subscriber)(nil)

// NewSubscriber makes a Subscriber over a log. The store must outlive it.
func NewSubscriber(store *eventstore.Store, cfg Config) (*Subscriber, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	return &Subscriber{store: store, cfg: cfg, groups: map[*group]struct{}{}, errs: map[string]error{}}, nil
}

// errClosed is returned by Subscribe after Close.
var errClosed = errors.New("consumers: the subscriber is closed")

// SubscribeInitialize creates the consumer, at its starting point, unless it
// exists.
func (s *Subscriber) SubscribeInitialize(consumer string) error {
	return create(context.Background(), s.store, consumer, s.cfg)
}

// Subscribe starts to deliver the log's events to the consumer of a name, 1 to
// 100 lower-case letters, digits, points, dashes and underscores. Many messages
// are in the channel's receivers' hands at once, InFlight at most, each of
// another stream; each must be acked or nacked.
//
// The channel is closed when ctx ends, after Close, or when the consumer cannot
// go on; Err then tells why.
func (s *Subscriber) Subscribe(ctx context.Context, consumer string) (<-chan *message.Message, error) {
	if err := create(ctx, s.store, consumer, s.cfg); err != nil {
		return nil, err
	}
	g := newGroup(s.store, s.cfg, consumer, rand.Text())

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	s.groups[g] = struct{}{}
	delete(s.errs, consumer)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		err := g.run(ctx)
		s.mu.Lock()
		delete(s.groups, g)
		if err != nil {
			s.errs[consumer] = err
		}
		s.mu.Unlock()
		if err != nil {
			s.cfg.Log.Error("a consumer has stopped", "consumer", consumer, "err", err)
		}
		close(g.out)
	}()
	return g.out, nil
}

// Err returns why the last subscription of a consumer stopped by itself, such
// as an *eventstore.ForkError; nil while it runs or when it was told to stop.
func (s *Subscriber) Err(consumer string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errs[consumer]
}

// Close ends all subscriptions: no new message is delivered, handlers at work
// may finish within CloseTimeout, checkpoints are written, leases are given
// back, channels are closed.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	for g := range s.groups {
		g.finish()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
