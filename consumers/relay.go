package consumers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/eventstore"
)

// RelayConsumer is the name under which the relay to JetStream keeps its
// checkpoint.
const RelayConsumer = "nats"

// RelayTopic is the first token of all subjects.
const RelayTopic = "muster"

// MetaSubject is the metadata entry in which the relay suggests a subject, or
// topic, for a message: muster.<org>.<type>.<slice>. Characters of org and type
// other than letters, digits, "-" and "_" are percent-encoded.
const MetaSubject = "subject"

// Recaller is a Publisher that can tell where its stream ends. The relay goes
// on from there: neither a crash of ours nor one of the broker's then makes a
// hole or a duplicate.
type Recaller interface {
	// Last returns the position and epoch of the stream's last message. ok is
	// false when that cannot be told although the stream is not new, as after
	// a purge; a stream that is new, or was lost, has position 0.
	Last(ctx context.Context) (last eventstore.Checkpoint, ok bool, err error)
}

// Sender is a Publisher that takes a batch before it has accepted those that it
// was given earlier.
type Sender interface {
	message.Publisher
	// Send begins to publish a batch behind all others. accepted waits until
	// the broker has it and all before it, or says why not; it ends with the
	// context of the batch's first message. When a batch fails, so do all that
	// were sent behind it.
	Send(topic string, messages ...*message.Message) (accepted func() error, err error)
}

// RelayConfig says how a Relay works. The zero value of a field takes the
// default.
type RelayConfig struct {
	// Name is the consumer's. Default RelayConsumer.
	Name string
	// Batch bounds the messages of one call of the Publisher. Default 2000. A
	// Sender gets some batches more before it has accepted the first.
	Batch int
	// OpenSealed lets personal data out; credentials never are. Default: ids
	// and open fields only.
	OpenSealed bool
	// RewindOnFork publishes again from the fork, in the new epoch, after a
	// failover that lost events which were published. Default: stop.
	RewindOnFork bool
	// YieldAbove is a Subscriber's: while the log grows by more events a second
	// than this, 50 a second are published. Default 5,000; negative: never.
	YieldAbove int
	// LeaseTTL is how long another instance waits before it takes over from
	// one that died. Default 15 s.
	LeaseTTL time.Duration
	// Backoff says how long to wait after so many failures in a row. Default
	// Exponential(100 ms, 30 s).
	Backoff func(failed int) time.Duration
	Log     *slog.Logger
}

// Relay publishes the whole log, in order of position, through a Watermill
// Publisher: JetStream here, another broker in a few lines. Each call of
// Publish gets a batch in order, and must return nil only when all of it is
// accepted; when it fails the relay asks a Recaller where the stream ends, or
// else publishes again from its checkpoint. With a Sender several batches are on
// their way at once.
//
// One instance works at a time. The payload is the event's Document, the UUID
// its effect id, the metadata that of the Subscriber, with MetaSubject.
type Relay struct {
	store *eventstore.Store
	pub   message.Publisher
	cfg   RelayConfig

	published, failures atomic.Int64
	position            atomic.Int64
}

// NewRelay makes a relay; Run runs it. The Publisher stays the caller's.
func NewRelay(store *eventstore.Store, pub message.Publisher, cfg RelayConfig) *Relay {
	if cfg.Name == "" {
		cfg.Name = RelayConsumer
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 2000
	}
	cfg.YieldAbove = yieldDefault(cfg.YieldAbove)
	if cfg.LeaseTTL <= 0 {
		cfg.LeaseTTL = 15 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Backoff == nil {
		var c Config
		_ = c.setDefaults() // for Rand
		cfg.Backoff = Exponential(100*time.Millisecond, 30*time.Second, c.Rand)
	}
	return &Relay{store: store, pub: pub, cfg: cfg}
}

// Run relays until ctx ends, and then returns nil. It returns an error only
// when going on would be wrong: an *eventstore.ForkError or AheadError.
func (r *Relay) Run(ctx context.Context) error {
	instance := rand.Text()
	for failed := 0; ctx.Err() == nil; {
		before := r.published.Load()
		err := create(ctx, r.store, r.cfg.Name, Config{Ranges: 1})
		if err == nil {
			err = r.session(ctx, instance)
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case isFork(err):
			r.cfg.Log.Error("the relay has stopped", "consumer", r.cfg.Name, "err", err)
			return err
		case errors.Is(err, errNotLeased):
			pause(ctx, r.cfg.LeaseTTL/3)
			continue
		}
		if r.published.Load() > before {
			failed = 0
		}
		failed++
		r.failures.Add(1)
		r.cfg.Log.Warn("the relay starts over", "consumer", r.cfg.Name, "err", err)
		pause(ctx, r.cfg.Backoff(failed))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

var errNotLeased = errors.New("consumers: another instance relays")

// session relays under one lease, from where the stream ends, until something
// fails.
func (r *Relay) session(ctx context.Context, instance string) error {
	pool := r.store.Pool()
	ttl := r.cfg.LeaseTTL.Seconds()
	renewed := time.Now()
	var first, last int16
	var token int64
	var at eventstore.Checkpoint
	var dispatched eventstore.Position
	err := pool.QueryRow(ctx, sqlAcquire, r.cfg.Name, instance, ttl, 1, []int16{}).Scan(&first, &last, &token, &at.Epoch, &at.Position, &dispatched)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotLeased
	}
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = pool.Exec(ctx, `UPDATE consumer_ranges SET owner = NULL, expires_at = '-infinity' WHERE consumer = $1 AND token = $2`, r.cfg.Name, token)
	}()
	at, err = r.begin(ctx, at)
	if err != nil {
		return err
	}
	epoch := r.store.Epoch()
	write := func(p eventstore.Position) error {
		var held int16
		err := pool.QueryRow(ctx, sqlCheckpoint, r.cfg.Name, instance, epoch, []int16{first}, []int64{token},
			[]eventstore.Position{p}, []eventstore.Position{p}).Scan(&held)
		if errors.Is(err, pgx.ErrNoRows) {
			return errNotLeased
		}
		r.position.Store(int64(p))
		return err
	}
	if err := write(at.Position); err != nil {
		return err
	}

	settle := func(f flight) error {
		if err := f.accepted(); err != nil {
			return err
		}
		r.published.Add(int64(f.messages))
		return write(f.through)
	}

	// While one batch is published the next one is read, and those before it
	// become accepted: three stages, which end together.
	stages, working := errgroup.WithContext(ctx)
	batches, flights := make(chan batch), make(chan flight, depth)
	stages.Go(func() error {
		defer close(batches)
		return r.readAll(working, token, at.Position, batches)
	})
	stages.Go(func() error {
		defer close(flights)
		for b := range batches {
			if err := r.keep(working, instance, first, token, &renewed); err != nil {
				return err
			}
			if r.store.Epoch() != epoch {
				return errors.New("the log has begun a new epoch")
			}
			if len(b.messages) == 0 {
				continue
			}
			f := flight{messages: len(b.messages), through: b.through}
			var err error
			if f.accepted, err = r.send(b.messages); err != nil {
				return err
			}
			if f.accepted == nil {
				f.accepted = func() error { return nil }
				if err := settle(f); err != nil { // before anything else is published
					return err
				}
				continue
			}
			select {
			case flights <- f:
			case <-working.Done():
				return working.Err()
			}
		}
		return nil
	})
	stages.Go(func() error {
		for f := range flights {
			if err := settle(f); err != nil {
				return err
			}
		}
		return nil
	})
	return stages.Wait()
}

// depth bounds the batches that a Sender has and the broker has not accepted,
// besides the one that it is being given.
const depth = 4

// batch is what was read at a time; none while the log does not grow.
type batch struct {
	messages []*message.Message
	through  eventstore.Position
}

// flight is a batch that is on its way.
type flight struct {
	messages int
	through  eventstore.Position
	accepted func() error
}

// readAll reads the log, and hands on an empty batch now and then while it does
// not grow.
func (r *Relay) readAll(ctx context.Context, token int64, after eventstore.Position, to chan<- batch) error {
	for {
		b := batch{through: after}
		wait, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL/3)
		err := r.store.Wait(wait, after)
		cancel()
		limit, yielding := r.cfg.Batch, yields(r.store, r.cfg.YieldAbove)
		if yielding {
			limit = min(limit, yieldBatch)
		}
		if err == nil {
			if b.messages, b.through, err = r.read(ctx, token, after, limit); err != nil {
				return err
			}
		}
		select {
		case to <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
		if yielding {
			pause(ctx, time.Duration(limit)*time.Second/yieldRate)
		}
		after = b.through
	}
}

// send publishes a batch. accepted is nil when the broker has it already.
func (r *Relay) send(messages []*message.Message) (accepted func() error, err error) {
	if s, ok := r.pub.(Sender); ok {
		return s.Send(RelayTopic, messages...)
	}
	return nil, r.pub.Publish(RelayTopic, messages...)
}

// keep renews the lease when it is time.
func (r *Relay) keep(ctx context.Context, instance string, first int16, token int64, renewed *time.Time) error {
	if time.Since(*renewed) <= r.cfg.LeaseTTL/4 {
		return nil
	}
	now := time.Now()
	var kept int16
	err := r.store.Pool().QueryRow(ctx, sqlRenew, r.cfg.Name, instance, r.cfg.LeaseTTL.Seconds(), []int16{first}, []int64{token}).Scan(&kept)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotLeased
	}
	if err != nil {
		return err
	}
	*renewed = now
	return nil
}

// begin compares the checkpoint with the stream's end. A stream that ends
// before the checkpoint lost messages, and gets them again; one that ends
// beyond it has what a relay published that did not live to write so down.
func (r *Relay) begin(ctx context.Context, at eventstore.Checkpoint) (eventstore.Checkpoint, error) {
	resume := func(c eventstore.Checkpoint) (eventstore.Checkpoint, error) {
		now, err := r.store.Resume(ctx, c)
		if isFork(err) && r.cfg.RewindOnFork {
			r.cfg.Log.Warn("the relay goes back to where its history parted", "consumer", r.cfg.Name, "err", err)
			return r.store.Rewind(ctx, c)
		}
		return now, err
	}
	at, err := resume(at)
	if err != nil {
		return at, err
	}
	recall, ok := r.pub.(Recaller)
	if !ok {
		return at, nil
	}
	last, known, err := recall.Last(ctx)
	if err != nil || !known {
		return at, err
	}
	if last, err = resume(last); err != nil {
		return at, err
	}
	if last.Position < at.Position {
		r.cfg.Log.Warn("the broker's stream ends before the checkpoint: publishing again", "consumer", r.cfg.Name,
			"stream", last.Position, "checkpoint", at.Position)
	}
	return last, nil
}

func (r *Relay) read(ctx context.Context, token int64, after eventstore.Position, limit int) ([]*message.Message, eventstore.Position, error) {
	page, err := r.store.ReadPage(ctx, eventstore.Query{After: after, Limit: limit})
	if err == nil && r.cfg.OpenSealed {
		err = r.store.Open(ctx, page.Events)
	}
	if err != nil {
		return nil, after, err
	}
	contexts := make([]messageContext, len(page.Events))
	for i := range page.Events {
		if err := contexts[i].about(ctx, &page.Events[i]); err != nil {
			return nil, after, fmt.Errorf("consumers: position %d: %w", page.Events[i].Position, err)
		}
	}
	if _, ok := r.pub.(*JetStream); ok {
		return bareMessages(contexts, r.cfg.Name), page.Through, nil
	}
	messages := make([]*message.Message, len(contexts))
	for i := range contexts {
		messages[i] = newMessage(&contexts[i], r.cfg.Name, token, 1)
		messages[i].Metadata.Set(MetaSubject, Subject(contexts[i].event))
	}
	return messages, page.Through, nil
}

// bareMessages are messages without metadata, which JetStream does not need when
// it has the events themselves: a quarter of all work.
func bareMessages(contexts []messageContext, consumer string) []*message.Message {
	messages, list := make([]message.Message, len(contexts)), make([]*message.Message, len(contexts))
	payloads := make([]byte, 0, 400*len(contexts))
	for i := range contexts {
		begin := len(payloads)
		payloads = contexts[i].appendPayload(payloads)
		list[i] = &messages[i]
		list[i].UUID = EffectID(consumer, contexts[i].event.ID, 0).String()
		list[i].Payload = payloads[begin:len(payloads):len(payloads)]
		list[i].SetContext(&contexts[i])
	}
	return list
}

// Subject returns the subject that the relay gives an event.
func Subject(ev eventstore.Event) string { return string(appendSubject(make([]byte, 0, 64), &ev)) }

func appendSubject(b []byte, ev *eventstore.Event) []byte {
	b = append(b, RelayTopic...)
	b = append(b, '.')
	b = appendToken(b, ev.Org)
	b = append(b, '.')
	b = appendToken(b, ev.Type)
	b = append(b, '.')
	return strconv.AppendInt(b, int64(ev.Slice), 10)
}

const hex = "0123456789ABCDEF"

func appendToken(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

var _ prometheus.Collector = (*Relay)(nil)

var (
	descRelayed       = prometheus.NewDesc("muster_relay_published_total", "Events that the broker accepted from this process.", []string{"consumer"}, nil)
	descRelayFailures = prometheus.NewDesc("muster_relay_failures_total", "Times that the relay had to start over.", []string{"consumer"}, nil)
	descRelayPosition = prometheus.NewDesc("muster_relay_position", "The position up to which this process knows the broker to have everything.", []string{"consumer"}, nil)
)

// Describe names the metrics.
func (r *Relay) Describe(ch chan<- *prometheus.Desc) {
	ch <- descRelayed
	ch <- descRelayFailures
	ch <- descRelayPosition
}

// Collect reports on this process's part.
func (r *Relay) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(descRelayed, prometheus.CounterValue, float64(r.published.Load()), r.cfg.Name)
	ch <- prometheus.MustNewConstMetric(descRelayFailures, prometheus.CounterValue, float64(r.failures.Load()), r.cfg.Name)
	ch <- prometheus.MustNewConstMetric(descRelayPosition, prometheus.GaugeValue, float64(r.position.Load()), r.cfg.Name)
}
