// Command other-broker relays Muster's log to RabbitMQ, or to any AMQP 0-9-1
// broker: an example of how little another broker takes. It is a module of its
// own, so nothing of it is linked into muster.
//
//	DATABASE_URL=postgres://… MUSTER_KEY_FILE=keys.json AMQP_URL=amqp://… go run .
//
// Every event goes to the topic exchange "muster" under the routing key
// muster.<org>.<type>.<slice>, in order of position, at least once. The message
// id is the effect id, the same each time, and the metadata has position,
// stream and sequence: a reader that remembers the last sequence of each stream
// acts once. For Kafka, Google Pub/Sub, Redis or SQL, take that Publisher of
// Watermill's instead of newAMQP's.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "other-broker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	keys, err := eventstore.OpenKeyring(os.Getenv("MUSTER_KEY_FILE"))
	if err != nil {
		return err
	}
	store, err := eventstore.New(ctx, eventstore.Config{URL: os.Getenv("DATABASE_URL"), Role: "muster_service", Keys: keys})
	if err != nil {
		return err
	}
	defer store.Close(context.WithoutCancel(ctx))
	publisher, err := newAMQP(os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	defer publisher.Close()
	return relay(ctx, store, publisher)
}

// relay is all there is to it. Instances that run it take turns: one works, and
// another takes over when that one dies.
func relay(ctx context.Context, store *eventstore.Store, publisher message.Publisher) error {
	return consumers.NewRelay(store, bySubject{publisher}, consumers.RelayConfig{
		Name:  "amqp", // the checkpoint's name: one for each broker
		Batch: 100,    // what comes again after a failure, at most
		Log:   slog.Default(),
	}).Run(ctx)
}

// bySubject publishes each message under its own subject. It stops at the first
// failure, so that nothing overtakes it: the relay begins again there.
type bySubject struct{ message.Publisher }

// Publish implements message.Publisher.
func (p bySubject) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		if err := p.Publisher.Publish(m.Metadata.Get(consumers.MetaSubject), m); err != nil {
			return err
		}
	}
	return nil
}

// newAMQP connects to a broker. Publisher confirms are on: without them Publish
// returns before the broker has the message, and a crash would lose it.
func newAMQP(url string) (message.Publisher, error) {
	cfg := amqp.NewDurablePubSubConfig(url, nil)
	cfg.Exchange.GenerateName = func(string) string { return consumers.RelayTopic }
	cfg.Exchange.Type = "topic"
	cfg.Publish.GenerateRoutingKey = func(subject string) string { return subject }
	cfg.Publish.ConfirmDelivery = true
	return amqp.NewPublisher(cfg, watermill.NewSlogLogger(slog.Default()))
}
