package consumers_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

func TestACheckpointOfALostHistory(t *testing.T) {
	store := openStore(t)
	newUsers(t, store, 10, 1)
	ids := newUsers(t, store, 1, 0) // position 21
	handle := func(j *journal) message.NoPublishHandlerFunc {
		return func(msg *message.Message) error {
			stream, seq := streamOf(msg)
			if stream == ids[0] && j.count() >= 0 {
				return &consumers.Failure{Class: "poison", Permanent: true}
			}
			j.leave(stream, seq, true)
			return nil
		}
	}
	j := newJournal()
	_, stop := consume(t, store, "fork", consumers.Config{Backoff: quick, LeaseTTL: 400 * time.Millisecond}, handle(j))
	until(t, "all events", func() bool { return j.count() == 20 })
	admin := consumers.NewAdmin(store)
	until(t, "the parked one", func() bool { p, _ := admin.Parked(t.Context(), "fork", 0); return len(p) == 1 })
	stop()

	// The primary is lost; the standby that takes over never had positions
	// 11 and up, and what is there now is another history.
	if _, err := store.Pool().Exec(t.Context(), `
		INSERT INTO epochs (epoch, system_identifier, timeline, first_position)
		SELECT epoch + 1, system_identifier, timeline + 1, 11 FROM epochs ORDER BY epoch DESC LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	sub, err := consumers.NewSubscriber(store, consumers.Config{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), "fork")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case msg, ok := <-messages:
		if ok {
			t.Fatalf("delivered position %s", msg.Metadata.Get(consumers.MetaPosition))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the consumer goes on")
	}
	var fork *eventstore.ForkError
	if err := sub.Err("fork"); !errors.As(err, &fork) || fork.Fork != 11 {
		t.Errorf("stopped with %v", err)
	}
	again := newJournal()
	consume(t, store, "fork", consumers.Config{RewindOnFork: true, Backoff: quick, LeaseTTL: 400 * time.Millisecond}, handle(again))
	until(t, "everything from the fork on", func() bool { return again.count() == 10 })
	until(t, "the parked one", func() bool { p, _ := admin.Parked(t.Context(), "fork", 0); return len(p) == 1 && p[0].Epoch == 2 })
	if again.count() != 10 {
		t.Errorf("%d events after rewinding, want 10", again.count())
	}
}
