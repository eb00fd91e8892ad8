package consumers_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// fromALaterProgram appends to a user an event of a type, and one of a schema,
// that this program does not know, and then one that it knows.
func fromALaterProgram(t *testing.T, store *eventstore.Store, user string) {
	t.Helper()
	appendAll(t, store, eventstore.Append{
		Stream: user, Org: "org1", Actor: "later", Expected: eventstore.Any, At: time.Now(),
		Events: append([]eventstore.NewEvent{
			{Type: "HumanMarried", Schema: 1, Data: []byte("open"), Personal: []byte("to-whom")},
			{Type: domain.TypeUserLocked, Schema: 2},
		}, encode(unlocked)...),
	})
}

// TestUnknownEventsReachHandlers: the message is there, says that nobody here
// knows the event, and a handler that can do without goes on; one that cannot
// parks the stream at once.
func TestUnknownEventsReachHandlers(t *testing.T) {
	store := openStore(t)
	user := newUsers(t, store, 1, 0)[0]
	fromALaterProgram(t, store, user)

	var mu sync.Mutex
	got := map[string]consumers.Document{}
	_, stop := consume(t, store, "all", consumers.Config{OpenSealed: true, Attempts: 1}, func(msg *message.Message) error {
		doc, err := consumers.ParseDocument(msg.Payload)
		if err != nil {
			return err
		}
		event, committed, err := consumers.EventOf(msg)
		if unknown := errors.Is(err, domain.ErrUnknownEvent); unknown != doc.Unknown || unknown != (event == nil) || committed.Type != doc.Event.Type {
			t.Errorf("%s: %v, %v, %v", doc.Event.Type, event, err, doc.Unknown)
		}
		copied := message.NewMessage(msg.UUID, msg.Payload) // as it comes through a broker
		if _, committed, err := consumers.EventOf(copied); errors.Is(err, domain.ErrUnknownEvent) != doc.Unknown || committed.Sequence != doc.Event.Sequence {
			t.Errorf("a copy of %s: %v, %v", doc.Event.Type, committed, err)
		}
		if doc.Unknown && (string(doc.Fields) != "{}" || strings.Contains(string(msg.Payload), "to-whom")) {
			t.Errorf("%s", msg.Payload)
		}
		mu.Lock()
		defer mu.Unlock()
		got[doc.Event.Type] = doc
		return nil
	})
	defer stop()
	until(t, "every event", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 4 })
	stop()
	for typ, unknown := range map[string]bool{"HumanAdded": false, "HumanMarried": true, "UserLocked": true, "UserUnlocked": false} {
		if d := got[typ]; d.Unknown != unknown || d.Event.Actor == "" || d.Event.Stream != user {
			t.Errorf("%s: %+v", typ, d)
		}
	}

	_, stop = consume(t, store, "needs", consumers.Config{Attempts: 8, Backoff: quick}, func(msg *message.Message) error {
		_, _, err := consumers.EventOf(msg)
		return err
	})
	defer stop()
	admin := consumers.NewAdmin(store)
	until(t, "the parked user", func() bool {
		p, err := admin.Parked(t.Context(), "needs", 0)
		return err == nil && len(p) == 1 && p[0].Class == consumers.ClassUndecodable && p[0].Sequence == 2 && p[0].Attempts == 1
	})
}

// TestUnknownEventsReachWebhooksAndBrokers: they get the same documents.
func TestUnknownEventsReachWebhooksAndBrokers(t *testing.T) {
	store := openStore(t)
	fromALaterProgram(t, store, newUsers(t, store, 1, 0)[0])

	r := newReceiver(t)
	unknown := map[string]bool{}
	r.answer = func(doc consumers.Document) int { unknown[doc.Event.Type] = doc.Unknown; return 200 }
	hooks := consumers.NewWebhooks(store, consumers.WebhooksConfig{AllowPrivate: true, Poll: 50 * time.Millisecond,
		Subscriber: consumers.Config{Flush: 20 * time.Millisecond, LeaseTTL: 300 * time.Millisecond}})
	_, secret, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: r.URL}, consumers.FromBeginning())
	if err != nil {
		t.Fatal(err)
	}
	r.secrets = []string{secret}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = hooks.Run(ctx) }()
	defer func() { cancel(); <-done }()
	until(t, "every event at the endpoint", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.ids) == 4 })
	r.mu.Lock()
	if len(r.bad) > 0 || !unknown["HumanMarried"] || !unknown["UserLocked"] || unknown["UserUnlocked"] || unknown["HumanAdded"] {
		t.Errorf("%v, bad %v", unknown, r.bad)
	}
	r.mu.Unlock()

	url := natsServer(t)
	_, stream := streamOfEvents(t, url)
	stop := startRelay(t, store, url, consumers.RelayConfig{OpenSealed: true})
	until(t, "every event at the broker", func() bool { return messages(stream) == 4 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	m, err := stream().GetMsg(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if doc, err := consumers.ParseDocument(m.Data); err != nil || !doc.Unknown || doc.Event.Type != "HumanMarried" || strings.Contains(string(m.Data), "to-whom") {
		t.Errorf("%s, %v", m.Data, err)
	}
}
