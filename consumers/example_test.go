package consumers_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// A consumer is an ordinary Watermill handler: this one welcomes people.
func Example() {
	ctx := context.Background()
	store, done := exampleStore() // eventstore.New(ctx, eventstore.Config{URL: …, Keys: …})
	defer done()

	// The log as a Subscriber: only some events, personal data opened.
	subscriber, err := consumers.NewSubscriber(store, consumers.Config{
		Types:      []string{"HumanAdded"},
		OpenSealed: true,
		Attempts:   5,
	})
	if err != nil {
		log.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	router.AddMiddleware(consumers.Classify)
	welcomed := make(chan struct{})
	router.AddConsumerHandler("welcome", "welcome", subscriber, func(msg *message.Message) error {
		event, committed, err := consumers.EventOf(msg)
		if err != nil {
			return err
		}
		human := event.(domain.HumanAdded)
		fmt.Printf("welcome, %s (position %d)\n", human.Profile.DisplayName, committed.Position)
		close(welcomed)
		return nil // acked; an error would be tried again, then park this person's events
	})
	go func() {
		if err := router.Run(ctx); err != nil {
			log.Fatal(err)
		}
	}()

	data, personal := domain.Encode(domain.HumanAdded{UserName: "ada", Email: "ada@example.test", Profile: domain.Profile{DisplayName: "Ada Lind"}})
	if _, err := store.Append(ctx, eventstore.Append{
		Stream: "01J0000000000000000000ADA0", Org: "org", Actor: "example", Expected: eventstore.NoStream, At: time.Now(),
		Events: []eventstore.NewEvent{{Type: "HumanAdded", Schema: 1, Data: data, Personal: personal}},
	}); err != nil {
		log.Fatal(err)
	}
	<-welcomed
	if err := router.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: welcome, Ada Lind (position 1)
}
