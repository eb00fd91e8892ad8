// Hostile tries to break the log, and, built with the tag mutant, shows that
// it can: wrong logs have to be caught. See package hostile.
//
// The exit status is 1 when a promise of the true log is broken or a mutant
// survives, and 2 when the harness itself fails.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/muster-id/muster/internal/hostile"
)

func main() {
	hostile.Child()
	os.Exit(run())
}

func run() int {
	var (
		duration = flag.Duration("duration", time.Minute, "how long to try each log; a mutant, at most")
		round    = flag.Duration("round", 5*time.Second, "how long to disturb before each check")
		writers  = flag.Int("writers", 3, "writing processes")
		seed     = flag.Uint64("seed", 0, "seed of everything random; 0 chooses one")
		gentle   = flag.Bool("gentle", false, "never kill a server")
		logs     = flag.String("logs", hostile.True.Name, `which logs to try: names, separated by commas; "mutants" for all mutants`)
		quiet    = flag.Bool("quiet", false, "print the table only")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	cfg := hostile.Config{Duration: *duration, Round: *round, Writers: *writers, Seed: *seed, Gentle: *gentle}
	if !*quiet {
		cfg.Out = os.Stdout
	}
	for _, name := range strings.Split(*logs, ",") {
		if name == "mutants" {
			cfg.Variants = append(cfg.Variants, hostile.Mutants...)
			continue
		}
		v, err := hostile.Named(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		cfg.Variants = append(cfg.Variants, v)
	}
	if len(cfg.Variants) == 0 {
		fmt.Fprintln(os.Stderr, "hostile: no log to try: build with -tags mutant")
		return 2
	}
	outcomes, err := hostile.Run(ctx, cfg)
	good := report(outcomes)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if !good {
		return 1
	}
	return 0
}

// report prints what became of each log, and says whether it is as it should.
func report(outcomes []hostile.Outcome) (good bool) {
	good = true
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	for _, o := range outcomes {
		mutant := o.Variant.Fault != ""
		switch {
		case mutant && o.Failure != nil:
			fmt.Fprintf(w, "%s\t%s\tcaught after %.1f s\t%s\n", o.Variant.Name, o.Variant.Fault, o.After.Seconds(), o.Failure.Check)
		case mutant:
			good = false
			fmt.Fprintf(w, "%s\t%s\tSURVIVED %.0f s\tseed %d\n", o.Variant.Name, o.Variant.Fault, o.After.Seconds(), o.Seed)
			fmt.Fprintf(w, "\ttroubles\t%s\n", list(o.Troubles))
		case o.Failure != nil:
			good = false
			fmt.Fprintf(w, "%s\tBROKEN after %.1f s\tseed %d, round %d\t%v\n", o.Variant.Name, o.After.Seconds(), o.Seed, o.Failure.Round, o.Failure)
			fmt.Fprintf(w, "\trecords are kept in %s\n", o.Failure.Kept)
		default:
			fmt.Fprintf(w, "%s\theld for %.0f s\t%d rounds, %d events, %d appends acknowledged, %d events given to readers\n",
				o.Variant.Name, o.After.Seconds(), o.Rounds, o.Events, o.Acked, o.Read)
			fmt.Fprintf(w, "\ttroubles\t%s\n", list(o.Troubles))
		}
	}
	_ = w.Flush() // to standard output
	return good
}

func list(counts map[string]int) string {
	var parts []string
	for name, n := range counts {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}
