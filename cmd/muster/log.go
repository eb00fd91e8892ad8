package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
	"github.com/muster-id/muster/projections"
)

type migrateCmd struct{}

// Run brings the database up to date.
func (*migrateCmd) Run(a *app) (err error) {
	db, err := a.openDatabase(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.stop()) }()
	if err := migrations.Up(a, db.url); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "the database is up to date")
	return nil
}

type verifyCmd struct {
	Projections bool `help:"Look at the read models only."`
	Log         bool `help:"Look at the log only."`
	Sample      int  `default:"0" placeholder:"N" help:"Recompute so many streams of each read model; 0: all."`
}

// Run walks the log, the checkpoints and the read models.
func (c *verifyCmd) Run(a *app) error {
	store, done, err := a.openStore()
	if err != nil {
		return err
	}
	defer done()
	wrong := int64(0)
	if !c.Projections {
		summary, err := store.Verify(a, eventstore.VerifyOptions{Claims: claimsOf}, func(f eventstore.Finding) {
			fmt.Fprintln(a.out, f)
		})
		if err != nil {
			return err
		}
		wrong += summary.Findings
		fmt.Fprintf(a.out, "log: %d events of %d streams (%d erased) and %d claims up to position %d of epoch %d: %d findings\n",
			summary.Events, summary.Streams, summary.Erased, summary.Claims, summary.Head.Position, summary.Head.Epoch, summary.Findings)
		n, err := checkpoints(a, store)
		if err != nil {
			return err
		}
		wrong += n
	}
	if !c.Log {
		n, err := c.readModels(a, store)
		if err != nil {
			return err
		}
		wrong += n
	}
	if wrong > 0 {
		return exitError(1)
	}
	return nil
}

// claimsOf returns the claims that a stream must own.
func claimsOf(stream string, events []eventstore.Event) ([]eventstore.Claim, error) {
	type owner interface {
		Apply(domain.Event)
		Claims() []domain.Claim
	}
	var of owner
	switch {
	case events[0].Erased:
		return nil, nil
	case strings.HasPrefix(stream, domain.OrganisationStream("")):
		of = &domain.Organisation{ID: strings.TrimPrefix(stream, domain.OrganisationStream(""))}
	case strings.HasPrefix(stream, eventstore.SystemPrefix):
		return nil, nil
	default:
		of = &domain.User{ID: stream}
	}
	for i := range events {
		e, err := domain.Decode(events[i].Type, events[i].Schema, events[i].Data, events[i].Personal)
		if err != nil {
			return nil, err
		}
		of.Apply(e)
	}
	var claims []eventstore.Claim
	for _, c := range of.Claims() {
		claims = append(claims, eventstore.Claim(c))
	}
	return claims, nil
}

// checkpoints reports the checkpoints that the log does not bear out.
func checkpoints(a *app, store *eventstore.Store) (wrong int64, err error) {
	type checkpoint struct {
		who string
		eventstore.Checkpoint
	}
	var all []checkpoint
	engine := projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: a.log})
	models, err := engine.Status(a)
	if err != nil {
		return 0, err
	}
	for _, m := range models {
		all = append(all, checkpoint{fmt.Sprintf("projection %s, version %d", m.Projection, m.Version), m.Checkpoint})
	}
	admin := consumers.NewAdmin(store)
	list, err := admin.List(a, "")
	if err != nil {
		return 0, err
	}
	for _, c := range list {
		leases, err := admin.Leases(a, c.Name)
		if err != nil {
			return 0, err
		}
		for _, l := range leases {
			all = append(all, checkpoint{fmt.Sprintf("consumer %s, slices %d to %d", c.Name, l.FirstSlice, l.LastSlice), l.Checkpoint})
		}
	}
	for _, c := range all {
		_, err := store.Resume(a, c.Checkpoint)
		var (
			fork  *eventstore.ForkError
			ahead *eventstore.AheadError
		)
		switch {
		case errors.As(err, &fork), errors.As(err, &ahead):
			wrong++
			fmt.Fprintf(a.out, "checkpoint of %s: %v\n", c.who, err)
		case err != nil:
			return wrong, err
		}
	}
	fmt.Fprintf(a.out, "checkpoints: %d, of which %d are not of this log\n", len(all), wrong)
	return wrong, nil
}

// readModels recomputes every read model.
func (c *verifyCmd) readModels(a *app, store *eventstore.Store) (wrong int64, err error) {
	engine := projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: a.log})
	for _, m := range projections.Models() {
		r, err := engine.Verify(a, m.Name(), c.Sample)
		if err != nil {
			return wrong, err
		}
		for _, d := range r.Drifts {
			fmt.Fprintf(a.out, "read model %s: stream %q, column %q: %s\n", r.Projection, d.Stream, d.Column, d.Kind)
		}
		fmt.Fprintf(a.out, "read model %s, version %d: %d rows of %d streams at position %d: %d differences, %d streams stand still\n",
			r.Projection, r.Version, r.Rows, r.Streams, r.Position, r.Drifted, r.Stopped)
		wrong += r.Drifted + r.Stopped
	}
	return wrong, nil
}

type eventsCmd struct {
	After  int64    `placeholder:"POSITION" help:"Begin behind this position."`
	Stream string   `placeholder:"ID" help:"Only this stream, such as a user's id."`
	Type   []string `placeholder:"TYPE" help:"Only these event types."`
	Org    string   `placeholder:"ID" help:"Only this organisation."`
	Limit  int      `default:"0" placeholder:"N" help:"End after so many events; 0: no limit."`
	Follow bool     `short:"f" help:"Go on as events are appended, until interrupted."`
	JSON   bool     `name:"json" help:"One JSON object a line."`
	Unseal bool     `help:"Show what is sealed. Each use is written into the log."`
	Reason string   `placeholder:"TEXT" help:"Why --unseal is used; goes into the log."`
}

// Run prints events.
func (c *eventsCmd) Run(a *app) error {
	if c.Unseal && c.Reason == "" {
		return errors.New("--unseal needs a --reason, which goes into the log")
	}
	store, done, err := a.openStore()
	if err != nil {
		return err
	}
	defer done()
	if c.Unseal {
		if err := c.audit(a, store); err != nil {
			return err
		}
	}
	p := &printer{events: c, w: a.out}
	if c.Stream != "" {
		events, err := store.ReadStream(a, c.Stream, 0)
		if err != nil {
			return err
		}
		_, err = p.print(a, store, events)
		return err
	}
	for after := eventstore.Position(c.After); ; {
		page, err := store.ReadPage(a, eventstore.Query{After: after, Types: c.Type, Org: c.Org, Limit: 500})
		if err != nil {
			return ended(a, err)
		}
		more, err := p.print(a, store, page.Events)
		if err != nil || !more {
			return err
		}
		if page.Through > after {
			after = page.Through
			continue
		}
		if !c.Follow {
			return nil
		}
		if err := store.Wait(a, after); err != nil {
			return ended(a, err)
		}
	}
}

// ended forgives the error of a command that was interrupted on purpose.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// audit writes into the log that sealed fields are about to be shown.
func (c *eventsCmd) audit(a *app, store *eventstore.Store) error {
	what := fmt.Sprintf("events after %d, stream %q, types %v, organisation %q", c.After, c.Stream, c.Type, c.Org)
	event := domain.PersonalDataRead{By: operator(), Reason: c.Reason, What: what}
	data, personal := domain.Encode(event)
	_, err := store.Append(a, eventstore.Append{
		Stream:   domain.AuditStream,
		Actor:    systemActor,
		Expected: eventstore.Any,
		At:       time.Now(),
		Events:   []eventstore.NewEvent{{Type: event.Type(), Schema: event.Schema(), Data: data, Personal: personal}},
	})
	if err != nil {
		return fmt.Errorf("writing the audit event: %w", err)
	}
	return nil
}

// operator names who runs a command, as far as the system knows.
func operator() string {
	for _, name := range []string{"SUDO_USER", "USER", "LOGNAME"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// printer prints events in one of two forms.
type printer struct {
	events  *eventsCmd
	w       io.Writer
	printed int
}

// print prints events; it returns false when enough have been printed.
func (p *printer) print(ctx context.Context, store *eventstore.Store, events []eventstore.Event) (more bool, err error) {
	if p.events.Unseal {
		if err := store.Open(ctx, events); err != nil {
			return false, err
		}
	}
	for i := range events {
		e := &events[i]
		if p.events.Limit > 0 && p.printed >= p.events.Limit {
			return false, nil
		}
		p.printed++
		fields, mark := []byte("{}"), ""
		decoded, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		switch {
		case err == nil:
			if fields, err = json.Marshal(decoded); err != nil {
				return false, err
			}
		case !errors.Is(err, domain.ErrUnknownEvent):
			return false, fmt.Errorf("position %d: %w", e.Position, err)
		case e.Type != consumers.TypeEventSkipped:
			mark = "unknown " // a later program wrote it
		}
		sealed := ""
		switch {
		case e.Erased:
			sealed = "erased"
		case e.Sealed != nil && e.Personal == nil:
			sealed = "sealed"
		}
		if p.events.JSON {
			line, err := json.Marshal(map[string]any{
				"position": e.Position, "epoch": e.Epoch, "stream": e.Stream, "sequence": e.Sequence, "id": e.ID.String(),
				"type": e.Type, "schema": e.Schema, "org": e.Org, "actor": e.Actor, "at": e.At, "fields": json.RawMessage(fields), "personal": sealed, "unknown": mark != "",
			})
			if err != nil {
				return false, err
			}
			fmt.Fprintf(p.w, "%s\n", line)
			continue
		}
		fmt.Fprintf(p.w, "%8d  %s  %s/%d  %s  %s %s%s\n", e.Position, e.At.Format(time.RFC3339), e.Stream, e.Sequence, e.Type, fields, mark, sealed)
	}
	return p.events.Limit == 0 || p.printed < p.events.Limit, nil
}

type keysCmd struct {
	List   keysListCmd   `cmd:"" help:"List the keys and how much each wraps."`
	Rotate keysRotateCmd `cmd:"" help:"Add a key, make it the primary, and wrap every data key and every webhook's secret with it. Goes on after an interruption; the service may run."`
}

type keysListCmd struct{}

// Run lists keys.
func (*keysListCmd) Run(a *app) error {
	store, done, err := a.openStore()
	if err != nil {
		return err
	}
	defer done()
	use, err := store.KeyUse(a)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tWRAPS\t")
	for _, id := range store.Keys().IDs() {
		mark := ""
		if id == store.Keys().Primary() {
			mark = "primary"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", id, use[id], mark)
	}
	return w.Flush()
}

type keysRotateCmd struct {
	Resume bool `help:"Add no new key; wrap with the present primary what is not yet."`
}

// Run rotates the primary key.
func (c *keysRotateCmd) Run(a *app) error {
	store, done, err := a.openStore()
	if err != nil {
		return err
	}
	defer done()
	if !c.Resume {
		id, err := store.Keys().AddPrimary()
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s is the primary now\n", id)
	}
	last := time.Now()
	n, err := store.RewrapKeys(a, func(done int64) {
		if time.Since(last) > time.Second {
			last = time.Now()
			fmt.Fprintf(a.out, "%d keys rewrapped\n", done)
		}
	})
	if err != nil {
		return fmt.Errorf("after %d keys (go on with: muster keys rotate --resume): %w", n, err)
	}
	fmt.Fprintf(a.out, "%d keys rewrapped, none is left; a key that wraps nothing can be taken out of %s\n", n, a.cfg.keyFile())
	return nil
}
