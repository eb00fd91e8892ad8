package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

func init() { sections = append(sections, section{"consumers", benchConsumers}) }

// benchConsumers measures how fast the log reaches those who act on it.
func benchConsumers(ctx context.Context, b *bench) error {
	url, drop, err := b.database(ctx, "consumers")
	if err != nil {
		return err
	}
	defer drop()
	store, err := b.store(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close(context.WithoutCancel(ctx))
	users := int(25_000 * b.seconds.Seconds()) // a catch-up of about the time asked for
	if err := fill(ctx, store, users); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	conn.Close(ctx)
	if err != nil {
		return err
	}
	if err := b.catchUp(ctx, store); err != nil {
		return fmt.Errorf("catching up: %w", err)
	}
	if err := b.relay(ctx, store); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if err := b.latency(ctx); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	if err := b.importBeside(ctx); err != nil {
		return fmt.Errorf("import beside consumers: %w", err)
	}
	return nil
}

// handle runs a Watermill router over a subscriber until n messages have been
// handled, and returns how long that took from the subscription on.
func handle(ctx context.Context, sub message.Subscriber, topic string, n int64) (time.Duration, error) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return 0, err
	}
	var seen atomic.Int64
	all := make(chan struct{})
	router.AddConsumerHandler(topic, topic, sub, func(*message.Message) error {
		if seen.Add(1) == n {
			close(all)
		}
		return nil
	})
	begin := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- router.Run(ctx) }()
	select {
	case <-all:
	case err := <-failed:
		return 0, fmt.Errorf("after %d messages: %w", seen.Load(), err)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	took := time.Since(begin)
	if err := router.Close(); err != nil {
		return 0, err
	}
	return took, <-failed
}

// drain reads a subscriber's channel until n messages have been acknowledged,
// without a router, and returns how long that took from the subscription on.
func drain(ctx context.Context, sub message.Subscriber, topic string, n int64) (time.Duration, error) {
	begin := time.Now()
	messages, err := sub.Subscribe(ctx, topic)
	if err != nil {
		return 0, err
	}
	for seen := int64(0); seen < n; seen++ {
		msg, ok := <-messages
		if !ok {
			return 0, fmt.Errorf("after %d messages: %w", seen, ctx.Err())
		}
		msg.Ack()
	}
	took := time.Since(begin)
	return took, sub.Close()
}

func (b *bench) catchUp(ctx context.Context, store *eventstore.Store) error {
	head, err := store.Head(ctx)
	if err != nil {
		return err
	}
	type way func(context.Context, message.Subscriber, string, int64) (time.Duration, error)
	ours := func(name string, through way) *figure {
		return &figure{name: name, measure: func(ctx context.Context) (sample, error) {
			runtime.GC()
			sub, err := consumers.NewSubscriber(store, consumers.Config{})
			if err != nil {
				return sample{}, err
			}
			took, err := through(ctx, sub, fmt.Sprintf("bench-%d", serial.Add(1)), int64(head.Position))
			return sample{units: int64(head.Position), elapsed: took}, err
		}}
	}
	// The peer gets a tenth of the same events: it is much slower.
	n := int(head.Position) / 10
	pool, closePeer, err := b.peerEvents(ctx, store, n)
	if err != nil {
		return err
	}
	defer closePeer()
	theirs := func(name string, batch int, through way) *figure {
		return &figure{name: name, measure: func(ctx context.Context) (sample, error) {
			runtime.GC()
			sub, err := wsql.NewSubscriber(wsql.BeginnerFromPgx(pool), wsql.SubscriberConfig{
				ConsumerGroup:    fmt.Sprintf("bench_%d", serial.Add(1)),
				SchemaAdapter:    wsql.DefaultPostgreSQLSchema{SubscribeBatchSize: batch},
				OffsetsAdapter:   wsql.DefaultPostgreSQLOffsetsAdapter{},
				InitializeSchema: true,
			}, watermill.NopLogger{})
			if err != nil {
				return sample{}, err
			}
			took, err := through(ctx, sub, "bench", int64(n))
			return sample{units: int64(n), elapsed: took}, err
		}}
	}
	rows := []struct {
		ours, plain, large *figure
		title              string
	}{{
		ours("our Subscriber", handle), theirs("watermill-sql's Subscriber, its own batch", 0, handle),
		theirs("watermill-sql's Subscriber, batches of 1000", 1000, handle),
		"Catching up with a log, through Watermill's router, to a handler that does nothing",
	}, {
		ours("our Subscriber", drain), theirs("watermill-sql's Subscriber, its own batch", 0, drain),
		theirs("watermill-sql's Subscriber, batches of 1000", 1000, drain),
		"The same without the router: a loop over the Subscriber's channel that acknowledges",
	}}
	for _, r := range rows {
		if err := b.measure(ctx, r.ours, r.plain, r.large); err != nil {
			return err
		}
		against := func(f *figure) []string {
			return []string{f.name, perSecond(f.rate()), ratio(r.ours.rate(), f.rate())}
		}
		table(r.title, []string{"", "events", "ours against it"}, [][]string{{r.ours.name, perSecond(r.ours.rate()), ""}, against(r.plain), against(r.large)})
	}
	return nil
}

// peerEvents publishes the log's first n events, as documents, to the peer on a
// database of its own.
func (b *bench) peerEvents(ctx context.Context, store *eventstore.Store, n int) (*pgxpool.Pool, func(), error) {
	url, drop, err := b.database(ctx, "peer_events")
	if err != nil {
		return nil, nil, err
	}
	pool, err := pgxpool.New(ctx, url+sep(url)+"pool_max_conns=16")
	if err != nil {
		drop()
		return nil, nil, err
	}
	stop := func() { pool.Close(); drop() }
	pub, err := wsql.NewPublisher(wsql.BeginnerFromPgx(pool), wsql.PublisherConfig{SchemaAdapter: wsql.DefaultPostgreSQLSchema{}, AutoInitializeSchema: true}, watermill.NopLogger{})
	if err != nil {
		stop()
		return nil, nil, err
	}
	for after := eventstore.Position(0); int(after) < n; {
		events, err := store.Read(ctx, eventstore.Query{After: after, Limit: min(500, n-int(after))})
		if err != nil {
			stop()
			return nil, nil, err
		}
		messages := make([]*message.Message, len(events))
		for i, ev := range events {
			doc, err := consumers.AppendDocument(nil, ev)
			if err != nil {
				stop()
				return nil, nil, err
			}
			messages[i] = message.NewMessage(consumers.EffectID("bench", ev.ID, 0).String(), doc)
			after = ev.Position
		}
		if err := pub.Publish("bench", messages...); err != nil {
			stop()
			return nil, nil, err
		}
	}
	if _, err := pool.Exec(ctx, "VACUUM ANALYZE"); err != nil {
		stop()
		return nil, nil, err
	}
	return pool, stop, nil
}

// relay compares the relay to JetStream with a publisher that has the same
// messages in memory and does nothing but publish them.
func (b *bench) relay(ctx context.Context, store *eventstore.Store) error {
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(b.tmp, "nats"), NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	broker.Start()
	defer func() { broker.Shutdown(); broker.WaitForShutdown() }()
	if !broker.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the broker does not start")
	}
	conn, err := nats.Connect(broker.ClientURL())
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		return err
	}
	head, err := store.Head(ctx)
	if err != nil {
		return err
	}
	n := int64(head.Position)
	ours := &figure{name: "relay: log to JetStream", measure: func(ctx context.Context) (sample, error) {
		runtime.GC()
		pub, err := consumers.NewJetStream(broker.ClientURL(), consumers.JetStreamConfig{})
		if err != nil {
			return sample{}, err
		}
		defer pub.Close()
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		begin := time.Now()
		go func() {
			ended <- consumers.NewRelay(store, pub, consumers.RelayConfig{Name: fmt.Sprintf("relay-%d", serial.Add(1))}).Run(running)
		}()
		for {
			if s, err := js.Stream(ctx, "MUSTER"); err == nil && s.CachedInfo().State.LastSeq >= uint64(n) {
				break
			}
			select {
			case <-time.After(10 * time.Millisecond): // asking costs the broker more than a message
			case err := <-ended:
				stop()
				return sample{}, err
			}
		}
		took := time.Since(begin)
		stop()
		if err := <-ended; err != nil {
			return sample{}, err
		}
		return sample{units: n, elapsed: took}, js.DeleteStream(ctx, "MUSTER")
	}}
	// The same subjects, headers and payloads, ready made: a share of them, over
	// and over.
	events, err := store.Read(ctx, eventstore.Query{Limit: 30_000})
	if err != nil {
		return err
	}
	ready := make([]*nats.Msg, len(events))
	for i, ev := range events {
		doc, err := consumers.AppendDocument(nil, ev)
		if err != nil {
			return err
		}
		ready[i] = &nats.Msg{Subject: consumers.Subject(ev), Data: doc, Header: nats.Header{
			consumers.HeaderPosition: {strconv.FormatInt(int64(ev.Position), 10)}, consumers.HeaderEpoch: {"1"}, consumers.HeaderEventID: {ev.ID.String()},
			consumers.HeaderType: {ev.Type}, consumers.HeaderStream: {ev.Stream}, consumers.HeaderSequence: {strconv.FormatInt(ev.Sequence, 10)},
		}}
	}
	bare := &figure{name: "bare asynchronous publisher", measure: func(ctx context.Context) (sample, error) {
		runtime.GC()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "BARE", Subjects: []string{consumers.RelayTopic + ".>"}, Storage: jetstream.FileStorage, DenyDelete: true, AllowDirect: true})
		if err != nil {
			return sample{}, err
		}
		begin := time.Now()
		for i := range n {
			m := ready[int(i)%len(ready)]
			if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
				return sample{}, err
			}
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-ctx.Done():
			return sample{}, ctx.Err()
		}
		took := time.Since(begin)
		// What the broker refused does not count as published.
		s, err := js.Stream(ctx, "BARE")
		if err != nil {
			return sample{}, err
		}
		if last := s.CachedInfo().State.LastSeq; last != uint64(n) {
			return sample{}, fmt.Errorf("the broker has %d messages of %d", last, n)
		}
		return sample{units: n, elapsed: took}, js.DeleteStream(ctx, "BARE")
	}}
	if err := b.measure(ctx, ours, bare); err != nil {
		return err
	}
	table("To JetStream, file storage, one node in this process", []string{"", "messages", "against the bare one"}, [][]string{
		{ours.name, perSecond(ours.rate()), ratio(ours.rate(), bare.rate())},
		{bare.name, perSecond(bare.rate()), ""},
	})
	return nil
}

// latencyRate is how many imports a second there are while latency is measured.
const latencyRate = 500

// latency measures from the arrival of an import's answer to the call of the
// handler with the import's last event.
func (b *bench) latency(ctx context.Context) error {
	url, drop, err := b.database(ctx, "latency")
	if err != nil {
		return err
	}
	defer drop()
	s, err := b.serve(ctx, url, nil)
	if err != nil {
		return err
	}
	defer s.close()
	var mu sync.Mutex
	handled := map[int64]time.Time{}
	sub, err := consumers.NewSubscriber(s.store, consumers.Config{Start: consumers.FromNow()})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("latency", "latency", sub, func(m *message.Message) error {
		now := time.Now()
		position, err := strconv.ParseInt(m.Metadata.Get(consumers.MetaPosition), 10, 64)
		if err != nil {
			return err
		}
		mu.Lock()
		handled[position] = now
		mu.Unlock()
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	<-router.Running()

	const callers = 32
	clients, closeClients := connections(callers)
	defer closeClients()
	acked := map[int64]time.Time{}
	var failed error
	ticks := make(chan int64, latencyRate)
	var work sync.WaitGroup
	for _, client := range clients {
		work.Go(func() {
			for n := range ticks {
				body := fmt.Sprintf(`{"userName":"late-%d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"late-%[1]d@example.test","isEmailVerified":true},"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}}`, n)
				position, err := importAt(ctx, client, s.url+importPath, body)
				now := time.Now()
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					acked[position] = now
				}
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(time.Second / latencyRate)
	for end := time.Now().Add(time.Duration(b.rounds) * b.seconds); time.Now().Before(end); {
		<-tick.C
		ticks <- serial.Add(1)
	}
	tick.Stop()
	close(ticks)
	work.Wait()
	if failed != nil {
		return failed
	}
	var out sample
	for position, at := range acked {
		var seen time.Time
		for deadline := time.Now().Add(10 * time.Second); seen.IsZero() && time.Now().Before(deadline); {
			mu.Lock()
			seen = handled[position]
			mu.Unlock()
			if seen.IsZero() {
				time.Sleep(time.Millisecond)
			}
		}
		if seen.IsZero() {
			return fmt.Errorf("position %d is not handled", position)
		}
		out.latencies = append(out.latencies, max(0, seen.Sub(at)))
	}
	if err := router.Close(); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	table(fmt.Sprintf("From an import's answer to the handler, at %d imports a second over HTTP", latencyRate), []string{"imports", "p50", "p99", "most"}, [][]string{
		{strconv.Itoa(len(out.latencies)), ms(out.percentile(0.5)), ms(out.percentile(0.99)), ms(slices.Max(out.latencies))},
	})
	return nil
}

// importAt imports one person and returns the position that the answer names.
func importAt(ctx context.Context, client *http.Client, url, body string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %w: %s", res.Status, err, answer)
	}
	return strconv.ParseInt(res.Header.Get("Muster-Position"), 10, 64)
}

// importBeside measures an import of many by a service in a process of its own,
// with and without consumers in this one.
func (b *bench) importBeside(ctx context.Context) error {
	people := int(10_000 * b.seconds.Seconds())
	run := func(with int, delay time.Duration, yieldAbove int) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			url, drop, err := b.database(ctx, "beside")
			if err != nil {
				return sample{}, err
			}
			defer drop()
			address, _, stop, err := b.child(ctx, url)
			if err != nil {
				return sample{}, err
			}
			defer stop()
			store, err := b.store(ctx, url) // personal data stays sealed, so any keys will do
			if err != nil {
				return sample{}, err
			}
			defer store.Close(context.WithoutCancel(ctx))
			working, quit := context.WithCancel(ctx)
			var group sync.WaitGroup
			defer group.Wait()
			defer quit()
			for range with {
				sub, err := consumers.NewSubscriber(store, consumers.Config{YieldAbove: yieldAbove})
				if err != nil {
					return sample{}, err
				}
				router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
				if err != nil {
					return sample{}, err
				}
				name := fmt.Sprintf("beside-%d", serial.Add(1))
				router.AddConsumerHandler(name, name, sub, func(*message.Message) error { time.Sleep(delay); return nil })
				group.Go(func() { _ = router.Run(working) })
				<-router.Running()
			}
			body, w := io.Pipe()
			go func() { w.CloseWithError(writePeople(w, people)) }()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+importPath, body)
			if err != nil {
				return sample{}, err
			}
			req.Header.Set("Authorization", "Bearer bench")
			req.Header.Set("Content-Type", "application/x-ndjson")
			begin := time.Now()
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return sample{}, err
			}
			defer res.Body.Close()
			answer, err := io.ReadAll(res.Body)
			took := time.Since(begin)
			if err != nil {
				return sample{}, err
			}
			lines := strings.Split(strings.TrimSpace(string(answer)), "\n")
			var last struct{ Summary struct{ Created int } }
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Summary.Created != people {
				return sample{}, fmt.Errorf("the import ended with %.300s", lines[len(lines)-1])
			}
			return sample{units: int64(people), elapsed: took}, nil
		}
	}
	figures := []*figure{
		{name: "without consumers", measure: run(0, 0, 0)},
		{name: "with one that takes 10 ms an event, 64 at once", measure: run(1, 10*time.Millisecond, 0)},
		{name: "with one that does nothing", measure: run(1, 0, 0)},
		{name: "with four that do nothing", measure: run(4, 0, 0)},
		{name: "with one that does nothing and never lets the import go first", measure: run(1, 0, -1)},
	}
	if err := b.measure(ctx, figures...); err != nil {
		return err
	}
	var rows [][]string
	for _, f := range figures {
		rows = append(rows, []string{f.name, perSecond(f.rate()), ratio(f.rate(), figures[0].rate())})
	}
	table("Import of many, beside consumers on the same processors", []string{"", "people", "against without"}, rows)
	return nil
}
