package handlers_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/consumers"
)

// TestAHoleIsFilledOverHTTP: a reader of the broker's stream sees by the dense
// position that something is missing, and gets exactly that from the service.
func TestAHoleIsFilledOverHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	t.Cleanup(func() { broker.Shutdown(); broker.WaitForShutdown() })
	if !broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker does not start")
	}
	publisher, err := consumers.NewJetStream(broker.ClientURL(), consumers.JetStreamConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = consumers.NewRelay(s.store, publisher, consumers.RelayConfig{}).Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-ended; _ = publisher.Close() })

	for i := range 12 {
		s.add(t, nil, "x-zitadel-orgid", []string{"org-1", "org-2"}[i%2])
	}
	head, err := s.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect(broker.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream", func() bool {
		stream, err := js.Stream(t.Context(), "MUSTER")
		return err == nil && stream.CachedInfo().State.Msgs == uint64(head.Position)
	})
	stream, err := js.Stream(t.Context(), "MUSTER")
	if err != nil {
		t.Fatal(err)
	}

	// The reader: what it was given, and what it had to ask for. Three holes
	// are made: at the beginning, over a page's end, and of one.
	lost := func(p int64) bool { return p <= 3 || p >= 10 && p < 20 || p == 25 }
	var have, sent [][]byte
	asked, last := 0, int64(0)
	take := func(position int64, payload []byte) {
		if position != last+1 {
			t.Fatalf("position %d follows %d", position, last)
		}
		have, last = append(have, payload), position
	}
	for seq := uint64(1); seq <= uint64(head.Position); seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, m.Data)
		position, err := strconv.ParseInt(m.Header.Get(consumers.HeaderPosition), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if lost(position) {
			continue
		}
		for last < position-1 { // a hole: last+1 … position-1
			asked++
			a := s.rest(t, "GET", fmt.Sprintf("/v1/events?allOrganisations=true&after=%d&limit=%d", last, min(4, position-1-last)), "")
			if a.HTTP != http.StatusOK {
				t.Fatalf("%d: %s", a.HTTP, a.Body)
			}
			for line := range bytes.Lines(a.Body) {
				doc, err := consumers.ParseDocument(bytes.TrimSpace(line))
				if err != nil {
					t.Fatal(err)
				}
				take(int64(doc.Event.Position), bytes.TrimSpace(line))
			}
		}
		take(position, m.Data)
	}
	if asked != 5 || len(have) != len(sent) {
		t.Fatalf("%d questions, %d events of %d", asked, len(have), len(sent))
	}
	for i := range sent {
		if !bytes.Equal(have[i], sent[i]) {
			t.Errorf("position %d reads\n%s\nand was published as\n%s", i+1, have[i], sent[i])
		}
	}
}
