package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
)

type consumersCmd struct {
	List    consumersListCmd    `cmd:"" default:"withargs" help:"All consumers, with lag and parked streams."`
	Parked  consumersParkedCmd  `cmd:"" help:"The streams that are parked or being retried."`
	Retry   consumersRetryCmd   `cmd:"" help:"Try streams that wait for their next attempt at once."`
	Release consumersReleaseCmd `cmd:"" help:"Take parked streams up again, from the event that failed."`
	Skip    consumersSkipCmd    `cmd:"" help:"Give up the event that a stream is parked at; the reason goes into the log."`
	Reset   consumersResetCmd   `cmd:"" help:"Let a consumer begin again behind a position."`
}

func (a *app) consumerAdmin() (*consumers.Admin, func(), error) {
	store, done, err := a.openStore()
	if err != nil {
		return nil, nil, err
	}
	return consumers.NewAdmin(store), done, nil
}

type consumersListCmd struct {
	Name string `arg:"" optional:"" help:"Only this consumer."`
}

// Run lists consumers.
func (c *consumersListCmd) Run(a *app) error {
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	list, err := admin.List(a, c.Name)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONSUMER\tPOSITION\tLAG\tINSTANCES\tPARKED\tRETRYING\tUNCERTAIN\tUPDATED")
	for _, i := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", i.Name, i.Checkpoint.Position, i.Lag, i.Instances, i.Parked, i.Retrying, i.Uncertain, i.UpdatedAt.Format(time.RFC3339))
	}
	return w.Flush()
}

type consumersParkedCmd struct {
	Name string `arg:"" help:"The consumer."`
}

// Run lists parked streams.
func (c *consumersParkedCmd) Run(a *app) error {
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	list, err := admin.Parked(a, c.Name, 1000)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STREAM\tSEQUENCE\tPOSITION\tTYPE\tSTATE\tATTEMPTS\tCLASS\tSINCE")
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%d\t%s\t%s\n", p.Stream, p.Sequence, p.Position, p.Type, p.State, p.Attempts, p.Class, p.Since.Format(time.RFC3339))
	}
	return w.Flush()
}

type consumersRetryCmd struct {
	Name   string `arg:"" help:"The consumer."`
	Stream string `arg:"" optional:"" help:"Only this stream."`
}

// Run retries streams.
func (c *consumersRetryCmd) Run(a *app) error {
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	n, err := admin.Retry(a, c.Name, c.Stream)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d streams are tried again now\n", n)
	return nil
}

type consumersReleaseCmd struct {
	Name   string `arg:"" help:"The consumer."`
	Stream string `arg:"" optional:"" help:"Only this stream."`
}

// Run releases streams.
func (c *consumersReleaseCmd) Run(a *app) error {
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	n, err := admin.Release(a, c.Name, c.Stream)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%d streams are released\n", n)
	return nil
}

type consumersSkipCmd struct {
	Name   string `arg:"" help:"The consumer."`
	Stream string `arg:"" help:"The parked stream."`
	Reason string `required:"" placeholder:"TEXT" help:"Why; goes into the log."`
}

// Run skips an event.
func (c *consumersSkipCmd) Run(a *app) error {
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	if err := admin.Skip(a, c.Name, c.Stream, systemActor, c.Reason); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "the event is given up; the stream goes on behind it")
	return nil
}

type consumersResetCmd struct {
	Name  string `arg:"" help:"The consumer."`
	After int64  `required:"" placeholder:"POSITION" help:"Begin behind this position; 0: at the beginning."`
	Yes   bool   `help:"Really. Effects since then happen again, as far as the receiver does not know their ids."`
}

// Run resets a consumer.
func (c *consumersResetCmd) Run(a *app) error {
	if !c.Yes {
		return errors.New("a reset repeats every effect since the position; give --yes if that is meant")
	}
	admin, done, err := a.consumerAdmin()
	if err != nil {
		return err
	}
	defer done()
	if err := admin.Reset(a, c.Name, eventstore.Position(c.After)); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s begins again behind position %d\n", c.Name, c.After)
	return nil
}
