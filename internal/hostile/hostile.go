// Package hostile tries to break the log. Several processes write to one log
// and read from it, on a primary and on a streaming standby, while processes,
// connections, backends and servers are paused, cut and killed, and strangers
// leave transactions open. After each round everything that was acknowledged,
// refused or seen is held against what the log says.
//
// What it looks for, by the names of the design's invariants:
//
//	L1  a reader that goes on from its checkpoint is given every event, once,
//	    in order, on both servers, with a filter or without; what it has seen
//	    never changes; nobody's open transaction holds it up
//	L2  an append is whole or absent; what was acknowledged is there, where the
//	    acknowledgement says; what was refused is not
//	L3  sequences are 1 to n in order of position, and an append with an
//	    expected sequence follows just that
//	L4  in order of position a claim has one owner at a time, and at the end the
//	    claims are those that the events imply
//	L5  appends with one idempotency key are one append with one result
//
// A harness that finds nothing proves little unless it finds what is there.
// With the build tag mutant it knows wrong logs too, each with one fault that
// well-known systems have had, and has to catch every one of them.
//
// Everything random follows from a seed, which a failure names. The operating
// system's scheduling does not, so a seed repeats the plan and not the run.
package hostile

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
)

// Log is what the harness drives: *eventstore.Store, or one with a fault.
type Log interface {
	AppendMany(ctx context.Context, as []eventstore.Append) []eventstore.Outcome
	ReadPage(ctx context.Context, q eventstore.Query) (eventstore.Page, error)
	Wait(ctx context.Context, after eventstore.Position) error
}

// Variant is a log to try.
type Variant struct {
	// Name is "true" for the log as it is.
	Name string
	// Fault says in a few words what is wrong with a mutant.
	Fault string
	// Sparse logs do not promise dense positions. They are judged more mildly:
	// only by whether a reader was given every event.
	Sparse bool
	// Gated logs wait for strangers' transactions by design. They are not asked
	// for progress while some are open.
	Gated bool

	// What follows makes a mutant what it is.

	// setup is SQL for a fresh database.
	setup string
	// statements replaces statements of the committer, by their files' names.
	statements map[string]string
	// before is SQL that runs ahead of each flush, outside its transaction.
	before string
	// lostIsDone takes a connection that is lost during the commit for a success.
	lostIsDone bool
	// read replaces reading: $1 after, $2 limit.
	read string
	// patience, when set, is how long a reader waits at a gap before it goes on
	// behind it.
	patience time.Duration
	// trusting takes a head that was seen once for one that stays visible.
	trusting bool
}

// True is the log as it is.
var True = Variant{Name: "true"}

// Config says what to try, and how hard.
type Config struct {
	// Variants are tried one after the other on one pair of servers.
	Variants []Variant
	// Duration is how long each variant is tried; a mutant no longer than until
	// it is caught.
	Duration time.Duration
	// Round is how long the disturbance lasts before a check. Default 5 s.
	Round time.Duration
	// Writers is the number of writing processes. Default 3. As many as four
	// more read.
	Writers int
	// Seed determines everything random; 0 chooses one.
	Seed uint64
	// Gentle leaves the servers alive, which short tries have no time to start
	// again.
	Gentle bool
	// Out gets a line for each round.
	Out io.Writer
}

// Outcome is what became of one variant.
type Outcome struct {
	Variant  Variant
	Seed     uint64
	Rounds   int
	Events   int            // in all of its logs
	Acked    int            // appends acknowledged
	Read     int            // events given to readers
	Troubles map[string]int // disturbances, by kind
	After    time.Duration  // how long it was tried, checks included
	Failure  *Failure       // nil when nothing was found
}

// Failure is a broken promise.
type Failure struct {
	// Check names the invariant, and in a word what was looked at.
	Check string
	// Position is where, or 0.
	Position eventstore.Position
	// Text says what is wrong.
	Text string
	// Round is the round that it was found in, from 1.
	Round int
	// Kept is a folder with what every process has recorded.
	Kept string
}

func (f *Failure) Error() string {
	s := f.Check
	if f.Position != 0 {
		s += fmt.Sprintf(" at position %d", f.Position)
	}
	return s + ": " + f.Text
}

func failf(check string, at eventstore.Position, format string, args ...any) *Failure {
	return &Failure{Check: check, Position: at, Text: fmt.Sprintf(format, args...)}
}

// openStore opens the log at url for one of the processes.
func openStore(ctx context.Context, url, keyFile string, v Variant, log *slog.Logger) (*eventstore.Store, Log, error) {
	keys, err := eventstore.OpenKeyring(keyFile)
	if err != nil {
		return nil, nil, err
	}
	s, err := eventstore.New(ctx, eventstore.Config{
		URL: url, Role: migrations.ServiceRole, Keys: keys, Log: log, PoolSize: 4, Poll: 200 * time.Millisecond,
	})
	if err != nil {
		return nil, nil, err
	}
	return s, v.wrap(s), nil
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
