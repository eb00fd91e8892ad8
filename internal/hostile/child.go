package hostile

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/muster-id/muster/eventstore"
)

// roleVariable tells a process of ours what it is to do.
const roleVariable = "MUSTER_HOSTILE_ROLE"

// role is what a child process is to do.
type role struct {
	Kind    string // "writer" or "reader"
	Name    string // unique among all processes that there ever were
	URL     string
	Keys    string // the key file
	Record  string // the file to append to
	Variant string
	Seed    uint64
}

// violation is the exit status of a child that has seen a promise broken; its
// last line on standard error is the Failure, as JSON.
const violation = 7

// Child does what this process was started for by the harness, and does not
// return, if it was. Programs that use Run call it first of all.
func Child() {
	text := os.Getenv(roleVariable)
	if text == "" {
		return
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = r.run()
	}
	var broken *Failure
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &broken):
		line, _ := json.Marshal(broken) // it holds nothing that does not marshal
		fmt.Fprintln(os.Stderr, string(line))
		os.Exit(violation)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (r *role) run() error {
	v, err := Named(r.Variant)
	if err != nil {
		return err
	}
	v.prepare()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	// Standard input stays open as long as the harness lives. What comes in is
	// the position that a reader is to stop at.
	until := make(chan eventstore.Position, 1)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if p, err := strconv.ParseInt(strings.TrimSpace(in.Text()), 10, 64); err == nil {
				until <- eventstore.Position(p)
			}
		}
		os.Exit(1)
	}()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, l, err := r.open(ctx, v, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to end before there was anything to do
		}
		return err
	}
	if r.Kind == "writer" {
		return r.write(ctx, s, l)
	}
	return r.follow(l, until)
}

// open waits until the log can be opened: its server may be down just now, or
// a standby may not have got to this database yet.
func (r *role) open(ctx context.Context, v Variant, log *slog.Logger) (*eventstore.Store, Log, error) {
	for {
		s, l, err := openStore(ctx, r.URL, r.Keys, v, log)
		if err == nil {
			return s, l, nil
		}
		if !sleep(ctx, retry) {
			return nil, nil, fmt.Errorf("opening the log: %w", err)
		}
	}
}
