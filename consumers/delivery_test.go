package consumers_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/consumers"
)

// TestTheMetadataIsTheEvents: all of it, under the token of a lease that has
// changed hands.
func TestTheMetadataIsTheEvents(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	_, stop := consume(t, store, "meta", consumers.Config{Ranges: 1}, func(*message.Message) error { return nil })
	admin := consumers.NewAdmin(store)
	until(t, "a first lease", func() bool {
		l, err := admin.Leases(t.Context(), "meta")
		return err == nil && len(l) == 1 && l[0].Token == 1
	})
	stop()
	got := make(chan message.Metadata, 10)
	consume(t, store, "meta", consumers.Config{Ranges: 1}, func(m *message.Message) error {
		if m.UUID != m.Metadata.Get(consumers.MetaEffectID) {
			t.Errorf("the message is %s, its effect %s", m.UUID, m.Metadata.Get(consumers.MetaEffectID))
		}
		got <- m.Metadata
		return nil
	})
	id := newUsers(t, store, 1, 2)[0]
	events, err := store.ReadStream(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		want := message.Metadata{
			consumers.MetaEventID: e.ID.String(), consumers.MetaType: e.Type, consumers.MetaStream: id, consumers.MetaOrg: "org1",
			consumers.MetaSequence: strconv.FormatInt(e.Sequence, 10), consumers.MetaPosition: strconv.FormatInt(int64(e.Position), 10),
			consumers.MetaEpoch: "1", consumers.MetaToken: "2", consumers.MetaAttempt: "1", consumers.MetaConsumer: "meta",
			consumers.MetaAt: e.At.Format(time.RFC3339Nano), consumers.MetaEffectID: consumers.EffectID("meta", e.ID, 0).String(),
		}
		select {
		case m := <-got:
			if diff := cmp.Diff(want, m); diff != "" {
				t.Error(diff)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("an event has not come")
		}
	}
}

// TestEffectIDsAreUUIDv5: receivers remember them, so they never change.
func TestEffectIDsAreUUIDv5(t *testing.T) {
	event := ulid.MustParse("01ARZ3NDEKTSV4RRFFQ69G5FAV")
	for index, want := range []string{"acd153d1-a422-5014-b097-25bfab2a6db8", "68d6bd0d-43a0-502b-94ed-9b131690f640", "44c61b16-fb13-53af-ac13-2542c0981a04"} {
		if got := consumers.EffectID("mail", event, index); got.String() != want || got.Version() != 5 {
			t.Errorf("effect %d is %s, want %s", index, got, want)
		}
	}
}
