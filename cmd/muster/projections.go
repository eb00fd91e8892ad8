package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/muster-id/muster/projections"
)

// engine opens the read models for a command that works beside the service.
func (a *app) engine() (*projections.Engine, func(), error) {
	store, done, err := a.openStore()
	if err != nil {
		return nil, nil, err
	}
	return projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: a.log}), done, nil
}

type rebuildCmd struct {
	Name     string `arg:"" optional:"" help:"The read model, such as users."`
	All      bool   `help:"All read models, one after the other."`
	Rollback bool   `help:"Make the version before the live one live again."`
}

// Run rebuilds read models and shows how far it is.
func (c *rebuildCmd) Run(a *app) error {
	var names []string
	switch {
	case c.All == (c.Name != ""):
		return errors.New("name a read model, or give --all")
	case c.All:
		for _, m := range projections.Models() {
			names = append(names, m.Name())
		}
	default:
		names = []string{c.Name}
	}
	engine, done, err := a.engine()
	if err != nil {
		return err
	}
	defer done()
	for _, name := range names {
		work := engine.Rebuild
		if c.Rollback {
			work = engine.Rollback
		}
		show := newProgress(a)
		r, err := work(a, name, show.step)
		show.end()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(a.out, "%s: version %d is live at position %d, after version %d; %d events; the live version's writer waited %v for the switch\n",
			r.Projection, r.Version, r.Position, r.From, r.Events, r.Held.Round(time.Microsecond))
		if r.Stopped > 0 {
			fmt.Fprintf(a.out, "%s: %d streams stand still; see: muster projections inspect %s\n", name, r.Stopped, name)
		}
	}
	return nil
}

// progress shows the steps of a rebuild: a bar on a terminal, else lines.
type progress struct {
	a     *app
	bar   *progressbar.ProgressBar
	phase string
	last  time.Time
}

func newProgress(a *app) *progress { return &progress{a: a} }

func onTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p *progress) step(s projections.Step) {
	if onTerminal(p.a.out) {
		if s.Phase != p.phase {
			p.end()
			p.phase = s.Phase
			p.bar = progressbar.NewOptions64(max(1, s.Total), progressbar.OptionSetWriter(p.a.out), progressbar.OptionSetDescription(s.Projection+" "+s.Phase),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"), progressbar.OptionSetPredictTime(true),
				progressbar.OptionThrottle(100*time.Millisecond))
		}
		_ = p.bar.Set64(min(s.Events, max(1, s.Total)))
		return
	}
	if s.Phase == p.phase && time.Since(p.last) < time.Second {
		return
	}
	p.phase, p.last = s.Phase, time.Now()
	fmt.Fprintf(p.a.out, "%s version %d: %s", s.Projection, s.Version, s.Phase)
	if s.Total > 0 {
		fmt.Fprintf(p.a.out, ", %d of %d events", s.Events, s.Total)
		if rate := float64(s.Events-s.Resumed) / s.Elapsed.Seconds(); rate >= 1 {
			left := time.Duration(float64(s.Total-s.Events) / rate * float64(time.Second))
			fmt.Fprintf(p.a.out, ", %.0f/s, %v left", rate, left.Round(time.Second))
		}
	}
	fmt.Fprintln(p.a.out)
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
		fmt.Fprintln(p.a.out)
		p.bar = nil
	}
}

type projectionsCmd struct {
	List    projectionsListCmd    `cmd:"" default:"1" help:"All versions of all read models, with lag."`
	Inspect projectionsInspectCmd `cmd:"" help:"The streams of a read model that stand still, or why one does."`
	Retry   projectionsRetryCmd   `cmd:"" help:"Make a stopped stream's rows anew from its events."`
}

type projectionsListCmd struct{}

// Run lists read models.
func (*projectionsListCmd) Run(a *app) error {
	engine, done, err := a.engine()
	if err != nil {
		return err
	}
	defer done()
	list, err := engine.Status(a)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "READ MODEL\tVERSION\tSTATE\tPOSITION\tLAG\tOLDEST\tSTOPPED\tRANGES\tOWNER\t")
	for _, s := range list {
		state := strings.TrimSpace(s.State + " " + s.Phase)
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%v\t%d\t%d/%d\t%s\t%s\n", s.Projection, s.Version, state, s.Position, s.Lag, s.Oldest.Round(time.Millisecond), s.Stopped, s.Held, s.Ranges, s.Owner, s.Problem)
	}
	return w.Flush()
}

type projectionsInspectCmd struct {
	Name   string `arg:"" help:"The read model."`
	Stream string `arg:"" optional:"" help:"A stream that stands still."`
}

// Run tells which streams stand still, or why one does.
func (c *projectionsInspectCmd) Run(a *app) error {
	engine, done, err := a.engine()
	if err != nil {
		return err
	}
	defer done()
	if c.Stream == "" {
		list, err := engine.Stopped(a, c.Name, 1000)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "STREAM\tSEQUENCE\tPOSITION\tATTEMPTS\tSINCE\tREASON")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%s\n", s.Stream, s.Sequence, s.Position, s.Attempts, s.Since.Format(time.RFC3339), s.Reason)
		}
		return w.Flush()
	}
	i, err := engine.Inspect(a, c.Name, c.Stream)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "stream %s stands still at sequence %d, position %d, since %s\nevent: %s, schema %d, of %s, by %s\nreason: %s\nattempts: %d; events waiting behind it: %d\n",
		i.Stream, i.Sequence, i.Position, i.Since.Format(time.RFC3339), i.Type, i.Schema, i.At.Format(time.RFC3339), i.Actor, i.Reason, i.Attempts, i.Waiting)
	return nil
}

type projectionsRetryCmd struct {
	Name   string `arg:"" help:"The read model."`
	Stream string `arg:"" help:"The stream that stands still."`
}

// Run retries a stream.
func (c *projectionsRetryCmd) Run(a *app) error {
	engine, done, err := a.engine()
	if err != nil {
		return err
	}
	defer done()
	if err := engine.Retry(a, c.Name, c.Stream); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "the stream's rows are up to date")
	return nil
}
