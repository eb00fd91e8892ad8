package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
)

// outward is all that acts on events outside the database: mail, webhooks and
// the relay to a broker.
type outward struct {
	app     *app
	router  *message.Router
	hooks   *consumers.Webhooks
	relay   *consumers.Relay // nil without a broker
	metrics []prometheus.Collector
	closers []func()
}

// consumers wires them.
func (c *serveCmd) consumers(a *app, store *eventstore.Store, address string) (_ *outward, err error) {
	o := &outward{app: a}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	origin := c.PublicURL
	if origin == "" {
		origin = address
	}
	mail, err := consumers.NewMail(store, consumers.MailConfig{
		URL:       c.SMTPURL,
		Folder:    filepath.Join(a.cfg.DataDir, "mail"),
		Origin:    origin,
		Templates: c.MailTemplates,
		PerSecond: c.MailRate,
		Log:       a.log,
	})
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, mail.Close)
	yieldAbove := c.YieldAbove
	if yieldAbove == 0 {
		yieldAbove = -1
	}
	subscriber, err := consumers.NewSubscriber(store, mail.Subscription(consumers.Config{LeaseTTL: c.LeaseTTL, YieldAbove: yieldAbove, Log: a.log}))
	if err != nil {
		return nil, err
	}
	o.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: c.Grace}, watermill.NewSlogLogger(a.log.With("part", "consumers")))
	if err != nil {
		return nil, err
	}
	o.router.AddMiddleware(consumers.Classify)
	o.router.AddConsumerHandler("mail", consumers.MailConsumer, subscriber, mail.Handle)
	o.metrics = append(o.metrics, mail, subscriber)

	o.hooks = consumers.NewWebhooks(store, consumers.WebhooksConfig{
		AllowPrivate: c.HooksPrivate, FirstRetry: c.HooksRetry, Subscriber: consumers.Config{LeaseTTL: c.LeaseTTL, YieldAbove: yieldAbove}, Log: a.log,
	})
	if c.NATSURL != "" {
		stream, err := consumers.NewJetStream(c.NATSURL, consumers.JetStreamConfig{Log: a.log})
		if err != nil {
			return nil, fmt.Errorf("MUSTER_NATS_URL: %w", err)
		}
		o.closers = append(o.closers, func() {
			if err := stream.Close(); err != nil {
				a.log.Warn("closing the broker's connection", "error", err)
			}
		})
		o.relay = consumers.NewRelay(store, stream, consumers.RelayConfig{OpenSealed: c.NATSPersonal, LeaseTTL: c.LeaseTTL, YieldAbove: yieldAbove, Log: a.log})
		o.metrics = append(o.metrics, o.relay)
	}
	return o, nil
}

// run starts them in group until ctx ends. One that must not go on, since the
// log's history has changed under it, stops alone and says so: the service goes
// on without it.
func (o *outward) run(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return o.router.Run(ctx) })
	alone := func(name string, run func(context.Context) error) {
		group.Go(func() error {
			if err := run(ctx); err != nil {
				o.app.log.Error("a consumer has stopped; the service goes on without it", "consumer", name, "error", err)
			}
			return nil
		})
	}
	alone("webhooks", o.hooks.Run)
	if o.relay != nil {
		alone("relay", o.relay.Run)
	}
}

// close releases what they hold, after they have ended.
func (o *outward) close() {
	for _, f := range o.closers {
		f()
	}
}

// instance names this process for operators.
func instance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "muster"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// openPool opens connections under the service's role.
func (a *app) openPool(url string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the database URL is not usable: %w", err)
	}
	cfg.MaxConns = 12
	cfg.ConnConfig.RuntimeParams["role"] = migrations.ServiceRole
	cfg.ConnConfig.RuntimeParams["application_name"] = "muster read models"
	return pgxpool.NewWithConfig(a, cfg)
}
