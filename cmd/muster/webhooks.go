package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
)

type webhooksCmd struct {
	Private bool `env:"MUSTER_WEBHOOKS_PRIVATE" name:"webhooks-private" help:"Let webhooks have private and loopback addresses."`

	List    webhooksListCmd    `cmd:"" default:"withargs" help:"All webhooks, with lag and parked users."`
	Create  webhooksCreateCmd  `cmd:"" help:"Create a webhook and print its id and its secret, once."`
	Rotate  webhooksRotateCmd  `cmd:"" help:"Give a webhook a new secret and print it, once; the former one signs beside it for a while."`
	Enable  webhooksEnableCmd  `cmd:"" help:"Turn a webhook on; what happened while it was off is sent."`
	Disable webhooksDisableCmd `cmd:"" help:"Turn a webhook off."`
	Delete  webhooksDeleteCmd  `cmd:"" help:"Forget a webhook."`
	Ping    webhooksPingCmd    `cmd:"" help:"Send a signed test message and print the answer's status; exit code 1 unless that is 2xx."`
	Replay  webhooksReplayCmd  `cmd:"" help:"Send everything behind a position again, under the same webhook-id as before."`
	Parked  webhooksParkedCmd  `cmd:"" help:"The users whose events are parked or being retried."`
	Retry   webhooksRetryCmd   `cmd:"" help:"Give users whose events are set aside one more try at once."`
	Release webhooksReleaseCmd `cmd:"" help:"Let parked users go on, from the event that failed, with all tries anew."`
	Skip    webhooksSkipCmd    `cmd:"" help:"Give up the event that a user is parked at; the reason goes into the log."`
}

// webhooks opens the administration of webhooks for a command beside the
// service.
func (c *webhooksCmd) webhooks(a *app) (*consumers.Webhooks, *eventstore.Store, func(), error) {
	store, done, err := a.openStore()
	if err != nil {
		return nil, nil, nil, err
	}
	return consumers.NewWebhooks(store, consumers.WebhooksConfig{AllowPrivate: c.Private, Log: a.log}), store, done, nil
}

// webhookConsumer is the consumer of a webhook's id.
func webhookConsumer(id string) string { return consumers.Webhook{ID: id}.Consumer() }

type webhooksListCmd struct {
	Org string `placeholder:"ID" help:"Only this organisation's."`
}

// Run lists webhooks.
func (c *webhooksListCmd) Run(a *app, all *webhooksCmd) error {
	hooks, store, done, err := all.webhooks(a)
	if err != nil {
		return err
	}
	defer done()
	list, err := hooks.List(a, c.Org)
	if err != nil {
		return err
	}
	infos, err := consumers.NewAdmin(store).List(a, "")
	if err != nil {
		return err
	}
	at := map[string]consumers.Info{}
	for _, i := range infos {
		at[i.Name] = i
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tORG\tURL\tTYPES\tSTATE\tPOSITION\tLAG\tPARKED\tRETRYING\tCREATED")
	for _, h := range list {
		org, types, state, i := h.Org, strings.Join(h.Types, ","), "enabled", at[h.Consumer()]
		if org == "" {
			org = "(all)"
		}
		if types == "" {
			types = "(all)"
		}
		if !h.Enabled {
			state = "disabled"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", h.ID, org, h.URL, types, state, i.Checkpoint.Position, i.Lag, i.Parked, i.Retrying, date(h.CreatedAt))
	}
	return w.Flush()
}

type webhooksCreateCmd struct {
	URL      string    `arg:"" name:"url" help:"Where to send events."`
	Org      string    `placeholder:"ID" xor:"org" required:"" help:"The organisation whose events are sent."`
	AllOrgs  bool      `name:"all-organisations" xor:"org" required:"" help:"Send the events of all organisations."`
	Types    []string  `name:"type" placeholder:"TYPE" help:"Send only events of this type; can be repeated. Default: all."`
	Personal bool      `help:"Send personal data too; credentials never are."`
	From     string    `enum:"now,beginning," default:"" placeholder:"now|beginning" xor:"start" help:"Where to begin. Default: now."`
	After    *int64    `placeholder:"POSITION" xor:"start" help:"Begin behind this position."`
	Since    time.Time `placeholder:"TIME" xor:"start" help:"Begin with what happened since, RFC 3339."`
}

// Run creates a webhook.
func (c *webhooksCreateCmd) Run(a *app, all *webhooksCmd) error {
	for _, t := range c.Types {
		if !slices.Contains(domain.EventTypes(), t) {
			return fmt.Errorf("there is no type of event %q; there are: %s", t, strings.Join(domain.EventTypes(), ", "))
		}
	}
	start := consumers.FromNow()
	switch {
	case c.From == "beginning":
		start = consumers.FromBeginning()
	case c.After != nil && *c.After < 0:
		return errors.New("positions begin at 0")
	case c.After != nil:
		start = consumers.FromPosition(eventstore.Position(*c.After))
	case !c.Since.IsZero():
		start = consumers.FromTime(c.Since)
	}
	hooks, store, done, err := all.webhooks(a)
	if err != nil {
		return err
	}
	defer done()
	if !c.AllOrgs {
		exists, err := access.NewOrganisations(store, time.Now).Exists(a, c.Org)
		if err != nil {
			return err
		}
		if !exists {
			return errors.New("there is no such organisation; see: muster org list")
		}
	}
	h, secret, err := hooks.Create(a, consumers.Webhook{Org: c.Org, URL: c.URL, Types: c.Types, OpenSealed: c.Personal}, start)
	if err != nil {
		return err
	}
	a.log.Info("a webhook is created; its secret is shown this once")
	fmt.Fprintf(a.out, "%s %s\n", h.ID, secret)
	return nil
}

type webhooksRotateCmd struct {
	ID      string        `arg:"" help:"The webhook."`
	Overlap time.Duration `default:"24h" help:"How long the former secret signs beside the new one; at most 720h."`
}

// Run rotates a secret.
func (c *webhooksRotateCmd) Run(a *app, all *webhooksCmd) error {
	hooks, _, done, err := all.webhooks(a)
	if err != nil {
		return err
	}
	defer done()
	secret, err := hooks.Rotate(a, "", c.ID, c.Overlap)
	if err != nil {
		return err
	}
	a.log.Info("the secret is shown this once", "former_signs_for", c.Overlap)
	fmt.Fprintln(a.out, secret)
	return nil
}

type (
	webhooksEnableCmd struct {
		ID string `arg:"" help:"The webhook."`
	}
	webhooksDisableCmd struct {
		ID string `arg:"" help:"The webhook."`
	}
	webhooksDeleteCmd struct {
		ID string `arg:"" help:"The webhook."`
	}
	webhooksPingCmd struct {
		ID string `arg:"" help:"The webhook."`
	}
)

// Run turns a webhook on.
func (c *webhooksEnableCmd) Run(a *app, all *webhooksCmd) error {
	return all.act(a, "enabled", func(h *consumers.Webhooks) error { return h.Enable(a, "", c.ID, true) })
}

// Run turns a webhook off.
func (c *webhooksDisableCmd) Run(a *app, all *webhooksCmd) error {
	return all.act(a, "disabled", func(h *consumers.Webhooks) error { return h.Enable(a, "", c.ID, false) })
}

// Run deletes a webhook.
func (c *webhooksDeleteCmd) Run(a *app, all *webhooksCmd) error {
	return all.act(a, "deleted", func(h *consumers.Webhooks) error { return h.Delete(a, "", c.ID) })
}

// act does one thing and says that it is done.
func (c *webhooksCmd) act(a *app, said string, f func(*consumers.Webhooks) error) error {
	hooks, _, done, err := c.webhooks(a)
	if err != nil {
		return err
	}
	defer done()
	if err := f(hooks); err != nil {
		return err
	}
	fmt.Fprintln(a.out, said)
	return nil
}

// Run sends a test message.
func (c *webhooksPingCmd) Run(a *app, all *webhooksCmd) error {
	hooks, _, done, err := all.webhooks(a)
	if err != nil {
		return err
	}
	defer done()
	status, err := hooks.Ping(a, "", c.ID)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, status)
	if status < 200 || status > 299 {
		return exitError(1)
	}
	return nil
}

type webhooksReplayCmd struct {
	ID    string `arg:"" help:"The webhook."`
	After int64  `required:"" placeholder:"POSITION" help:"Begin behind this position; 0: at the beginning."`
}

// Run replays.
func (c *webhooksReplayCmd) Run(a *app) error {
	return (&consumersResetCmd{Name: webhookConsumer(c.ID), After: c.After, Yes: true}).Run(a)
}

type webhooksParkedCmd struct {
	ID string `arg:"" help:"The webhook."`
}

// Run lists parked users.
func (c *webhooksParkedCmd) Run(a *app) error {
	return (&consumersParkedCmd{Name: webhookConsumer(c.ID)}).Run(a)
}

type webhooksRetryCmd struct {
	ID   string `arg:"" help:"The webhook."`
	User string `arg:"" optional:"" help:"Only this user."`
}

// Run retries.
func (c *webhooksRetryCmd) Run(a *app) error {
	return (&consumersRetryCmd{Name: webhookConsumer(c.ID), Stream: c.User}).Run(a)
}

type webhooksReleaseCmd struct {
	ID   string `arg:"" help:"The webhook."`
	User string `arg:"" optional:"" help:"Only this user."`
}

// Run releases.
func (c *webhooksReleaseCmd) Run(a *app) error {
	return (&consumersReleaseCmd{Name: webhookConsumer(c.ID), Stream: c.User}).Run(a)
}

type webhooksSkipCmd struct {
	ID     string `arg:"" help:"The webhook."`
	User   string `arg:"" help:"The parked user."`
	Reason string `required:"" placeholder:"TEXT" help:"Why; goes into the log."`
}

// Run skips an event.
func (c *webhooksSkipCmd) Run(a *app) error {
	return (&consumersSkipCmd{Name: webhookConsumer(c.ID), Stream: c.User, Reason: c.Reason}).Run(a)
}
