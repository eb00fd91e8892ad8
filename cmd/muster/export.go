package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
)

type exportCmd struct {
	Org    string `placeholder:"ID" help:"The organisation; unset: the default one."`
	Output string `short:"o" placeholder:"FILE" help:"Write to this file (mode 0600) instead of standard output."`
}

// Run writes all users of an organisation as the import's own lines. It works
// on the database, not through the service: what it writes holds hashes, second
// factors and the secrets that hashes need, in clear. Each use is written into
// the log.
func (c *exportCmd) Run(a *app) (err error) {
	store, done, err := a.openStore()
	if err != nil {
		return err
	}
	defer done()
	if c.Org == "" {
		if c.Org, err = a.defaultOrg(store, access.NewOrganisations(store, time.Now)); err != nil {
			return err
		}
	}
	out := a.out
	if c.Output != "" {
		f, err := os.OpenFile(c.Output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	event := domain.PersonalDataRead{By: operator(), Reason: "export", What: fmt.Sprintf("all users of organisation %q", c.Org)}
	data, personal := domain.Encode(event)
	if _, err := store.Append(a, eventstore.Append{
		Stream: domain.AuditStream, Actor: systemActor, Expected: eventstore.Any, At: time.Now(),
		Events: []eventstore.NewEvent{{Type: event.Type(), Schema: event.Schema(), Data: data, Personal: personal}},
	}); err != nil {
		return fmt.Errorf("writing the audit event: %w", err)
	}
	w := bufio.NewWriterSize(out, 256<<10)
	jobs := importer.NewJobs(&importer.Importer{Store: store, Policy: domain.DefaultPolicy(), Now: time.Now}, a.log)
	users, err := jobs.Export(a, c.Org, func(lines []byte) error {
		_, err := w.Write(lines)
		return err
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	a.log.Info("exported", "users", users, "org", c.Org)
	return nil
}
