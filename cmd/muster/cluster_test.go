package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/internal/cluster"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/pgtest"
)

// TestClusterLosesOneOfEach runs what `make cluster` runs, kills a JetStream
// node and an instance of Muster while people are imported, and finds every
// event on the stream, once, in order.
func TestClusterLosesOneOfEach(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var log logtest.Log
	c, err := cluster.Start(ctx, cluster.Config{
		Dir: t.TempDir(), Muster: []string{self}, Log: &log, DatabaseURL: pgtest.New(t),
		Env: []string{"MUSTER_TEST_BE_MUSTER=1", "MUSTER_LEASE_TTL=1s"},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(c.Stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	conn, err := nats.Connect(c.NATSURL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	info := func() (*jetstream.StreamInfo, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, "MUSTER")
		if err != nil {
			return nil, err
		}
		return s.Info(ctx)
	}
	// load imports people through all instances, over and over until one takes
	// them, from now until stop.
	load := func(name string) (stop func() int) {
		done, ended := make(chan struct{}), sync.WaitGroup{}
		counts := make([]int, 4)
		for w := range counts {
			ended.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					who := fmt.Sprintf("%s-%d-%d", name, w, n)
					for try := w; !importOne(ctx, c.Instances[try%2].URL, c.Token, who); try++ {
						if ctx.Err() != nil {
							t.Errorf("%s cannot be imported", who)
							return
						}
					}
					counts[w]++
					time.Sleep(5 * time.Millisecond) // a load, not a race
				}
			})
		}
		return func() (all int) {
			close(done)
			ended.Wait()
			for _, n := range counts {
				all += n
			}
			return all
		}
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				t.Fatal("waited in vain for " + what)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}

	stop := load("before")
	var leader string
	wait("the stream", func() bool {
		i, err := info()
		if err != nil || i.State.Msgs < 100 || i.Cluster == nil {
			return false
		}
		if i.Config.Replicas != 3 || i.Config.Storage != jetstream.FileStorage {
			t.Fatalf("the stream has %d replicas, %v", i.Config.Replicas, i.Config.Storage)
		}
		leader = i.Cluster.Leader
		return leader != ""
	})
	for _, p := range c.Nodes {
		if p.Name == leader { // the one that it hurts most to lose
			p.Kill()
		}
	}
	c.Instances[0].Kill()
	at := uint64(0)
	wait("messages with one of each gone", func() bool {
		i, err := info()
		if err != nil || i.Cluster == nil || i.Cluster.Leader == leader {
			return false
		}
		if at == 0 {
			at = i.State.Msgs
		}
		return i.State.Msgs > at+100
	})
	people := stop()

	// Every event is on the stream, once and in order.
	events := lastPosition(t, c.DatabaseURL)
	wait("every event", func() bool { i, err := info(); return err == nil && i.State.LastSeq >= uint64(events) })
	i, err := info()
	if err != nil || i.State.Msgs != uint64(events) || i.State.FirstSeq != 1 {
		t.Fatalf("%+v, %v; want %d messages", i, err, events)
	}
	stream, err := js.Stream(ctx, "MUSTER")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	added := 0
	messages, err := reader.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for position := 1; position <= events; position++ {
		m, err := messages.Next()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Headers().Get(consumers.HeaderPosition); got != strconv.Itoa(position) {
			t.Fatalf("position %s follows %d", got, position-1)
		}
		if m.Headers().Get(consumers.HeaderType) == "HumanAdded" {
			added++
		}
	}
	if added != people || people < 50 {
		t.Errorf("%d people are on the stream, %d were imported", added, people)
	}
	t.Logf("%d people, %d events", people, events)
	// Both come back.
	for _, p := range c.Processes() {
		if p.PID() == 0 {
			if err := p.Start(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

// importOne imports somebody, once, and reports whether that is certain.
func importOne(ctx context.Context, url, token, name string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/management/v1/users/human/_import", strings.NewReader(person(name)))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Idempotency-Key", name)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		return false
	}
	return res.StatusCode == http.StatusOK
}

// lastPosition is how many events the log of a database has.
func lastPosition(t *testing.T, url string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM events`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
