package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

// childEnv is the variable that makes a process a consumer.
const childEnv = "MUSTER_CHAOS_CONSUMER"

// child says what a consumer's process is to do.
type child struct {
	Name, Database, KeyFile, Receiver string
	// Delay is how long each event takes it.
	Delay time.Duration
}

// Child turns this process into a consumer when the harness has started it as
// one, and then does not return.
func Child() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	if err := runChild(text); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	keys, err := eventstore.OpenKeyring(c.KeyFile)
	if err != nil {
		return err
	}
	store, err := eventstore.New(ctx, eventstore.Config{URL: c.Database, Role: "muster_service", Keys: keys, PoolSize: 4})
	if err != nil {
		return err
	}
	subscriber, err := consumers.NewSubscriber(store, consumers.Config{
		InFlight: 16, Ranges: 4, Attempts: 3, LeaseTTL: time.Second, Flush: 50 * time.Millisecond, AsideAfter: time.Minute,
		Backoff: func(int) time.Duration { return 20 * time.Millisecond },
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 3 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	router.AddMiddleware(consumers.Classify)
	router.AddConsumerHandler(c.Name, c.Name, subscriber, func(m *message.Message) error {
		time.Sleep(c.Delay)
		q := url.Values{"effect": {m.UUID}, "stream": {m.Metadata.Get(consumers.MetaStream)}, "sequence": {m.Metadata.Get(consumers.MetaSequence)}}
		req, err := http.NewRequestWithContext(m.Context(), http.MethodPost, c.Receiver+"/"+c.Name+"?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return &consumers.Failure{Class: "unreachable", Outage: true, Err: err}
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return router.Run(ctx)
}
