// Command muster is an event-sourced user service on PostgreSQL that takes
// people in.
//
//	muster serve         runs the service
//	muster import FILE…  takes a user base in
//
// muster --help lists the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the whole command line. Every flag can be given by environment too.
type cli struct {
	Config

	Serve       serveCmd       `cmd:"" help:"Run the service."`
	Import      importCmd      `cmd:"" help:"Take a user base in: finds out the format, converts, sends, resumes. Exit code 3 if some users failed."`
	Export      exportCmd      `cmd:"" help:"Write all users of an organisation, with everything that another system needs."`
	Migrate     migrateCmd     `cmd:"" help:"Bring the database up to date, and nothing else."`
	Verify      verifyCmd      `cmd:"" help:"Walk the log and every read model and say what is wrong; exit code 1 if something is."`
	Events      eventsCmd      `cmd:"" help:"Print the log's events, follow and filter them."`
	Rebuild     rebuildCmd     `cmd:"" help:"Build a read model anew beside the live one, and switch."`
	Projections projectionsCmd `cmd:"" help:"List read models; retry and inspect streams that stand still."`
	Consumers   consumersCmd   `cmd:"" help:"List consumers; retry, release, skip or reset."`
	Webhooks    webhooksCmd    `cmd:"" help:"Create, list, rotate, test and replay webhooks."`
	Keys        keysCmd        `cmd:"" help:"List and rotate key-encryption keys."`
	Token       tokenCmd       `cmd:"" help:"Create, list and revoke access tokens."`
	Org         orgCmd         `cmd:"" help:"Create and list organisations."`
}

// app is what a command runs with.
type app struct {
	context.Context
	cfg Config
	log *slog.Logger
	out io.Writer
}

// exitError is an error that only sets the exit code: what there was to say has
// been said.
type exitError int

func (c exitError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends things in order; a second one ends them at once.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var code exitError
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "muster:", err)
		os.Exit(1)
	}
}

// run parses args and runs the command that they name.
func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("muster"),
		kong.Description("An event-sourced user service on PostgreSQL that takes people in."),
		kong.UsageOnError(),
		kong.Writers(out, errOut),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": version()},
	)
	if err != nil {
		return err
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help or --version has been answered
		if exited > 0 {
			return exitError(exited)
		}
		return nil
	}
	if err != nil {
		return err
	}
	log, err := c.logger(errOut)
	if err != nil {
		return err
	}
	return command.Run(&c.Webhooks, &app{Context: ctx, cfg: c.Config, log: log, out: out})
}
