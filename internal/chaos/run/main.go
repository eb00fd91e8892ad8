// Command run tries the consumers with kills and outages, and reports; exit
// code 1 when something was wrong.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/muster-id/muster/internal/chaos"
	"github.com/muster-id/muster/internal/cluster"
)

func main() {
	cluster.Child()
	chaos.Child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context) (ok bool, err error) {
	muster := flag.String("muster", "bin/muster", "the muster binary")
	events := flag.Int("events", 100_000, "about how many events are imported")
	pause := flag.Duration("pause", time.Second, "how long a disturbance waits for the next, on average")
	turns := flag.Int("turns", 3, "how often each kind of disturbance has its turn at least")
	seed := flag.Uint64("seed", 0, "repeat the plan of this seed")
	verbose := flag.Bool("v", false, "print what the processes print")
	flag.Parse()
	dir, err := os.MkdirTemp("", "muster-chaos-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's own user passes through
		return false, err
	}
	cfg := chaos.Config{Dir: dir, Muster: []string{*muster}, DatabaseURL: os.Getenv("DATABASE_URL"), Nodes: 3,
		Events: *events, Pause: *pause, Turns: *turns, Seed: *seed, Settle: 5 * time.Minute, Out: os.Stdout}
	if *verbose {
		cfg.Log = os.Stderr
	}
	rep, err := chaos.Run(ctx, cfg)
	return err == nil && len(rep.Wrong) == 0, err
}
