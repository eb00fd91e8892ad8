package consumers_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

// natsServer is a JetStream server in this process.
func natsServer(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	return srv.ClientURL()
}

// startRelay runs a relay until the test ends or stop is called.
func startRelay(t *testing.T, store *eventstore.Store, url string, cfg consumers.RelayConfig) (stop func() error) {
	t.Helper()
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	js, err := consumers.NewJetStream(url, consumers.JetStreamConfig{AckTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	cfg.LeaseTTL, cfg.Backoff, cfg.Batch = 600*time.Millisecond, func(int) time.Duration { return 20 * time.Millisecond }, 100
	go func() { done <- consumers.NewRelay(store, js, cfg).Run(ctx) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() { cancel(); err = <-done; js.Close() })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func streamOfEvents(t *testing.T, url string) (jetstream.JetStream, func() jetstream.Stream) {
	t.Helper()
	conn, err := nats.Connect(url, nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return js, func() jetstream.Stream {
		s, err := js.Stream(t.Context(), "MUSTER")
		if err != nil {
			return nil
		}
		return s
	}
}

func messages(stream func() jetstream.Stream) uint64 {
	s := stream()
	if s == nil {
		return 0
	}
	info, err := s.Info(context.Background())
	if err != nil {
		return 0
	}
	return info.State.Msgs
}

// dense fails unless the stream holds each position once, in order.
func dense(t *testing.T, stream func() jetstream.Stream, want int) {
	t.Helper()
	s := stream()
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs != uint64(want) {
		t.Errorf("%d messages, want %d", info.State.Msgs, want)
	}
	for i := range want {
		m, err := s.GetMsg(t.Context(), info.State.FirstSeq+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(consumers.HeaderPosition) != strconv.Itoa(i+1) {
			t.Fatalf("message %d has position %s", i+1, m.Header.Get(consumers.HeaderPosition))
		}
	}
}

func TestTheRelayNeitherLosesNorRepeats(t *testing.T) {
	store := openStore(t)
	url := natsServer(t)
	js, stream := streamOfEvents(t, url)
	newUsers(t, store, 100, 4)
	stop := startRelay(t, store, url, consumers.RelayConfig{})
	until(t, "some messages", func() bool { return messages(stream) > 0 })
	if err := stop(); err != nil { // in the middle
		t.Fatal(err)
	}
	stop = startRelay(t, store, url, consumers.RelayConfig{})
	until(t, "all messages", func() bool { return messages(stream) == 500 })
	dense(t, stream, 500)

	m, err := stream().GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := consumers.ParseDocument(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	if want := consumers.EffectID(consumers.RelayConsumer, doc.Event.ID, 0).String(); m.Header.Get("Nats-Msg-Id") != want {
		t.Errorf("Nats-Msg-Id %s, want %s", m.Header.Get("Nats-Msg-Id"), want)
	}
	if want := "muster.org1.HumanAdded." + strconv.Itoa(int(doc.Event.Slice)); m.Subject != want {
		t.Errorf("subject %s, want %s", m.Subject, want)
	}
	if strings.Contains(string(m.Data), "example.test") || strings.Contains(string(m.Data), "Ada") {
		t.Errorf("personal data in %s", m.Data)
	}

	// Two relays at once, and a checkpoint that lags far behind the stream.
	admin := consumers.NewAdmin(store)
	if err := admin.Reset(t.Context(), consumers.RelayConsumer, 0); err != nil {
		t.Fatal(err)
	}
	stopOther := startRelay(t, store, url, consumers.RelayConfig{})
	newUsers(t, store, 50, 1)
	until(t, "the new messages", func() bool { return messages(stream) >= 600 })
	dense(t, stream, 600)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	newUsers(t, store, 10, 0)
	until(t, "the other one to take over", func() bool { return messages(stream) >= 610 })
	dense(t, stream, 610)
	if err := stopOther(); err != nil {
		t.Fatal(err)
	}

	// JetStream is lost with everything in it: nothing is lost.
	if err := js.DeleteStream(t.Context(), "MUSTER"); err != nil {
		t.Fatal(err)
	}
	startRelay(t, store, url, consumers.RelayConfig{})
	until(t, "everything again", func() bool { return messages(stream) >= 610 })
	dense(t, stream, 610)
}

// TestTheRelayIsInterruptedInMidFlight stops the server, and relays, again and
// again while batches are on their way: whoever goes on asks where the stream
// ends, and each position is in it once.
func TestTheRelayIsInterruptedInMidFlight(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
	start := func() *server.Server {
		srv, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		if !srv.ReadyForConnections(10 * time.Second) {
			t.Fatal("the NATS server does not start")
		}
		return srv
	}
	srv := start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	opts.Port = srv.Addr().(*net.TCPAddr).Port
	url := srv.ClientURL()
	_, stream := streamOfEvents(t, url)

	const rounds, users = 2, 400 // five events each
	stop := startRelay(t, store, url, consumers.RelayConfig{})
	more := func(before uint64) uint64 { // until some of a round are there, and most are not
		newUsers(t, store, users, 4)
		until(t, "some messages", func() bool { return messages(stream) > before })
		return messages(stream)
	}
	var seen uint64
	for range rounds {
		more(seen)
		srv.Shutdown()
		srv.WaitForShutdown()
		srv = start()
		until(t, "the stream", func() bool { return messages(stream) > 0 })
		seen = more(messages(stream))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		stop = startRelay(t, store, url, consumers.RelayConfig{})
	}
	until(t, "all messages", func() bool { return messages(stream) >= rounds*2*users*5 })
	dense(t, stream, rounds*2*users*5)
}

// slowBroker is a Sender that accepts batches when it is told to. It cannot tell
// where its stream ends.
type slowBroker struct {
	sent    chan []string // the positions of a batch
	verdict chan error    // one for each batch, in order
}

func (b slowBroker) Publish(string, ...*message.Message) error { panic("a Sender is sent to") }
func (b slowBroker) Close() error                              { return nil }

func (b slowBroker) Send(_ string, batch ...*message.Message) (func() error, error) {
	var positions []string
	for _, m := range batch {
		positions = append(positions, m.Metadata.Get(consumers.MetaPosition))
	}
	b.sent <- positions
	return func() error {
		select {
		case err := <-b.verdict:
			return err
		case <-batch[0].Context().Done():
			return batch[0].Context().Err()
		}
	}, nil
}

// TestTheCheckpointFollowsWhatIsAccepted: batches are sent on before the first is
// accepted, the checkpoint moves over those that are, and after a failure the
// first that is not comes again, and all behind it.
func TestTheCheckpointFollowsWhatIsAccepted(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	newUsers(t, store, 20, 0)
	broker := slowBroker{sent: make(chan []string), verdict: make(chan error)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- consumers.NewRelay(store, broker, consumers.RelayConfig{Batch: 5, Backoff: func(int) time.Duration { return time.Millisecond }}).Run(ctx)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	receive := func(first string) {
		t.Helper()
		select {
		case got := <-broker.sent:
			if len(got) != 5 || got[0] != first {
				t.Fatalf("a batch of %v where one from %s on was due", got, first)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no batch from %s on", first)
		}
	}
	checkpoint := func() int64 {
		list, err := consumers.NewAdmin(store).List(t.Context(), consumers.RelayConsumer)
		if err != nil {
			t.Fatal(err)
		}
		return int64(list[0].Checkpoint.Position)
	}
	receive("1")
	receive("6")
	receive("11")
	if p := checkpoint(); p != 0 {
		t.Errorf("the checkpoint is %d before anything is accepted", p)
	}
	broker.verdict <- nil
	until(t, "the checkpoint", func() bool { return checkpoint() == 5 })
	receive("16")
	broker.verdict <- errors.New("lost")
	receive("6")
	if p := checkpoint(); p != 5 {
		t.Errorf("the checkpoint is %d where the sixth event was lost", p)
	}
	receive("11")
	receive("16")
	for range 3 {
		broker.verdict <- nil
	}
	until(t, "the checkpoint", func() bool { return checkpoint() == 20 })
}

// decorated is a JetStream that the relay does not know as one.
type decorated struct{ *consumers.JetStream }

// TestTheHeadersAreTheEvents: each message says in its headers what is in its
// document, whether the publisher has it from the event or, behind a decorator,
// from the metadata.
func TestTheHeadersAreTheEvents(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	newUsers(t, store, 30, 4)
	for _, bare := range []bool{true, false} {
		url := natsServer(t)
		_, stream := streamOfEvents(t, url)
		js, err := consumers.NewJetStream(url, consumers.JetStreamConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var pub message.Publisher = js
		if !bare {
			pub = decorated{js}
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- consumers.NewRelay(store, pub, consumers.RelayConfig{Name: "nats-" + strconv.FormatBool(bare)}).Run(ctx)
		}()
		until(t, "all messages", func() bool { return messages(stream) == 150 })
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = js.Close()
		s := stream()
		for seq := range uint64(150) {
			m, err := s.GetMsg(t.Context(), seq+1)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := consumers.ParseDocument(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			e := doc.Event
			if m.Subject != consumers.Subject(e) {
				t.Errorf("subject %s of %+v", m.Subject, e)
			}
			for name, want := range map[string]string{
				consumers.HeaderPosition: strconv.FormatUint(seq+1, 10), consumers.HeaderEpoch: strconv.Itoa(int(e.Epoch)),
				consumers.HeaderEventID: e.ID.String(), consumers.HeaderType: e.Type, consumers.HeaderStream: e.Stream,
				consumers.HeaderSequence:        strconv.FormatInt(e.Sequence, 10),
				jetstream.MsgIDHeader:           consumers.EffectID("nats-"+strconv.FormatBool(bare), e.ID, 0).String(),
				jetstream.ExpectedLastSeqHeader: strconv.FormatUint(seq, 10),
			} {
				if got := m.Header.Get(name); got != want {
					t.Fatalf("%s: %q, want %q, in %+v", name, got, want, e)
				}
			}
		}
	}
}

func TestSubjectsAreTokens(t *testing.T) {
	for _, c := range []struct{ org, want string }{
		{"org-1_A", "muster.org-1_A.HumanAdded.3"},
		{"a.b *>", "muster.a%2Eb%20%2A%3E.HumanAdded.3"},
		{"é", "muster.%C3%A9.HumanAdded.3"},
		{"", "muster.-.HumanAdded.3"},
	} {
		if got := consumers.Subject(eventstore.Event{Org: c.org, Type: "HumanAdded", Slice: 3}); got != c.want {
			t.Errorf("%q: %s, want %s", c.org, got, c.want)
		}
	}
}

// A second publisher makes the first one's batch fail as a whole, and asking
// for the stream's end puts it right.
func TestAPublisherOutOfStepPublishesNothing(t *testing.T) {
	url := natsServer(t)
	_, stream := streamOfEvents(t, url)
	var pubs [2]*consumers.JetStream
	for i := range pubs {
		var err error
		if pubs[i], err = consumers.NewJetStream(url, consumers.JetStreamConfig{}); err != nil {
			t.Fatal(err)
		}
		defer pubs[i].Close()
		if last, ok, err := pubs[i].Last(t.Context()); err != nil || !ok || last.Position != 0 {
			t.Fatal(last, ok, err)
		}
	}
	batch := func(from, to int) (out []*message.Message) {
		for p := from; p <= to; p++ {
			m := message.NewMessage(strconv.Itoa(p), []byte("{}"))
			m.SetContext(t.Context())
			m.Metadata = message.Metadata{consumers.MetaSubject: "muster.o.T.1", consumers.MetaPosition: strconv.Itoa(p), consumers.MetaEpoch: "1"}
			out = append(out, m)
		}
		return out
	}
	if err := pubs[0].Publish("muster", batch(1, 3)...); err != nil {
		t.Fatal(err)
	}
	if err := pubs[1].Publish("muster", batch(4, 6)...); err == nil {
		t.Error("a publisher that is out of step can publish")
	}
	if err := pubs[1].Publish("muster", batch(4, 6)...); err == nil {
		t.Error("a publisher goes on after a failure without asking")
	}
	dense(t, stream, 3)
	if last, ok, err := pubs[1].Last(t.Context()); err != nil || !ok || last.Position != 3 || last.Epoch != 1 {
		t.Fatal(last, ok, err)
	}
	if err := pubs[1].Publish("muster", batch(4, 6)...); err != nil {
		t.Fatal(err)
	}
	dense(t, stream, 6)
}

// TestOnlyTheStreamsOwnAcknowledgementsCount: where messages arrive and nobody
// stores them, few enough are sent to fit into a server's queue, and they fail;
// an acknowledgement of an earlier line changes nothing.
func TestOnlyTheStreamsOwnAcknowledgementsCount(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	js, _ := streamOfEvents(t, url)
	pub, err := consumers.NewJetStream(url, consumers.JetStreamConfig{AckTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	conn := js.Conn()
	arrived, err := conn.SubscribeSync("muster.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	batch := func(n int) (out []*message.Message) {
		for p := range n {
			m := message.NewMessage(strconv.Itoa(p), []byte("{}"))
			m.Metadata = message.Metadata{consumers.MetaSubject: "muster.o.T.1", consumers.MetaPosition: strconv.Itoa(p + 1), consumers.MetaEpoch: "1"}
			out = append(out, m)
		}
		return out
	}
	if _, _, err := pub.Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish("muster", batch(1)...); err != nil {
		t.Fatal(err)
	}
	m, err := arrived.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	former := strings.TrimSuffix(m.Reply, ".1") // the reply subjects of the first line
	if _, _, err := pub.Last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "MUSTER"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Publish(former+".20001", []byte(`{"stream":"MUSTER","seq":20001}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish("muster", batch(20_000)...); err == nil {
		t.Error("what nobody stored counts as published")
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := arrived.Pending(); err != nil || n == 0 || n > 9000 {
		t.Errorf("%d messages in flight, %v", n, err)
	}
}

// TestTheStreamGetsAsManyReplicasAsThereCanBe: a new one at once, and one that
// was made with fewer, while nodes were missing, at the next connect. One that
// somebody else made stays as it is.
func TestTheStreamGetsAsManyReplicasAsThereCanBe(t *testing.T) {
	t.Parallel()
	var urls []string
	var routes []*url.URL
	var ports []int
	var held []net.Listener
	for range 3 { // each node has to know all of them before any has started
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
	}
	for i, port := range ports {
		_ = held[i].Close()
		srv, err := server.NewServer(&server.Options{ServerName: "n" + strconv.Itoa(i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
			StoreDir: t.TempDir(), NoSigs: true, NoLog: true, Routes: routes, Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}})
		if err != nil {
			t.Fatal(err)
		}
		go srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		until(t, "a node's port", func() bool { return srv.Addr() != nil })
		urls = append(urls, srv.ClientURL())
	}
	ask := func(cfg consumers.JetStreamConfig) error {
		pub, err := consumers.NewJetStream(strings.Join(urls, ","), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pub.Close()
		_, _, err = pub.Last(t.Context())
		return err
	}
	js, stream := streamOfEvents(t, urls[0])
	replicas := func() int {
		if s := stream(); s != nil {
			return s.CachedInfo().Config.Replicas
		}
		return 0
	}
	until(t, "a stream of one", func() bool { return ask(consumers.JetStreamConfig{Replicas: 1}) == nil })
	if n := replicas(); n != 1 {
		t.Fatalf("%d replicas where one was asked for", n)
	}
	until(t, "three replicas", func() bool { return ask(consumers.JetStreamConfig{}) == nil && replicas() == 3 })
	until(t, "its end", func() bool { return js.DeleteStream(t.Context(), "MUSTER") == nil })
	until(t, "a new stream", func() bool { return ask(consumers.JetStreamConfig{}) == nil })
	if n := replicas(); n != 3 {
		t.Errorf("%d replicas of a new stream", n)
	}
	until(t, "its end", func() bool { return js.DeleteStream(t.Context(), "MUSTER") == nil })
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MUSTER", Subjects: []string{"muster.>"}, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if err := ask(consumers.JetStreamConfig{}); err != nil || replicas() != 1 {
		t.Errorf("somebody else's stream has %d replicas, %v", replicas(), err)
	}
}
