package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// shaky is a broker in this process that refuses a message now and then.
type shaky struct {
	message.Publisher
	mu     sync.Mutex
	n      int
	topics []string
	got    []*message.Message
}

func (s *shaky) Publish(topic string, messages ...*message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n%13 == 5 {
		return errors.New("refused")
	}
	for _, m := range messages {
		s.topics, s.got = append(s.topics, topic), append(s.got, m)
	}
	return s.Publisher.Publish(topic, messages...)
}

func (s *shaky) seen() []*message.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*message.Message(nil), s.got...)
}

// TestAnotherBroker: everything arrives, in order but for repetitions, under
// ids by which they are known.
func TestAnotherBroker(t *testing.T) {
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: pgtest.New(t), Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close(context.Background()) })
	const people = 7
	for i := range people {
		data, personal := domain.Encode(domain.HumanAdded{UserName: "ada", Email: "ada@example.test"})
		_, err := store.Append(t.Context(), eventstore.Append{Stream: "user" + strconv.Itoa(i), Org: "org", Actor: "test", Expected: eventstore.NoStream, At: time.Now(),
			Events: []eventstore.NewEvent{{Type: "HumanAdded", Schema: 1, Data: data, Personal: personal}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	broker := &shaky{Publisher: gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- relay(ctx, store, broker) }()

	ids := map[int]string{}
	for deadline := time.Now().Add(10 * time.Second); len(ids) < people; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d", len(ids), people)
		}
		last := 0
		for i, m := range broker.seen() {
			position, err := strconv.Atoi(m.Metadata.Get(consumers.MetaPosition))
			if err != nil || position > last+1 {
				t.Fatalf("position %d follows %d: %v", position, last, err)
			}
			last = position
			if ids[position] != "" && ids[position] != m.UUID {
				t.Errorf("position %d has two ids", position)
			}
			ids[position] = m.UUID
			if want := "muster.org.HumanAdded." + strconv.Itoa(int(eventstore.SliceOf("user"+strconv.Itoa(position-1)))); broker.topics[i] != want {
				t.Errorf("topic %s, want %s", broker.topics[i], want)
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
