// Command bench measures Muster beside the limits of the PostgreSQL that it
// runs on and beside its peers, in one run on one server with fsync on, and
// prints the tables that the README and docs/performance.md quote.
//
// Absolute figures depend on the machine and on what else it does; the ratios
// are between figures of the same run, measured in turn.
//
// It is a module of its own, so that the peers it measures are not among the
// service's dependencies.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/pgserver"
	"github.com/muster-id/muster/migrations"
)

// bench is what the sections share.
type bench struct {
	admin   string // URL of a database on the server, as its owner
	seconds time.Duration
	rounds  int
	users   int
	tmp     string
}

// section is one part of the run.
type section struct {
	name string
	run  func(context.Context, *bench) error
}

var sections = []section{
	{"log", benchLog},
	{"http", benchHTTP},
	{"read", benchRead},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	names := make([]string, len(sections))
	for i, s := range sections {
		names[i] = s.name
	}
	only := flag.String("only", "", "sections to run, of "+strings.Join(names, ", ")+"; empty: all")
	seconds := flag.Duration("time", 4*time.Second, "how long to measure each figure in each round")
	rounds := flag.Int("rounds", 3, "how often to measure each figure; medians are printed")
	users := flag.Int("users", 1_000_000, "how many users a full table has")
	url := flag.String("database-url", "", "measure on this PostgreSQL instead of one that bench starts")
	profile := flag.String("cpuprofile", "", "write a CPU profile of this process to a file: service, log and load, not PostgreSQL")
	flag.Parse()
	debug.SetGCPercent(200) // as muster serve does
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}

	tmp, err := os.MkdirTemp("", "muster-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// The server's own unprivileged user has to pass through.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	b := &bench{admin: *url, seconds: *seconds, rounds: *rounds, users: *users, tmp: tmp}
	if b.admin == "" {
		srv, err := pgserver.Start(ctx, pgserver.Config{DataDir: tmp + "/data", Settings: map[string]string{"max_connections": "200", "min_wal_size": "2GB"}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer srv.Stop(context.WithoutCancel(ctx))
		b.admin = srv.URL()
		if err := b.season(ctx); err != nil {
			return err
		}
	}
	if err := b.describe(ctx); err != nil {
		return err
	}
	for _, s := range sections {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// season brings a new server into the state of one that has been in use: its files
// for the write-ahead log are there, to be written over. A new one fills each with
// zeros first, which holds all commits up meanwhile.
func (b *bench) season(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	const files = 2 << 30 / (16 << 20)
	for range files {
		if _, err := conn.Exec(ctx, `SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()`); err != nil {
			return err
		}
	}
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	return err
}

// describe prints what the figures were measured on.
func (b *bench) describe(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var version, fsync, sync, buffers string
	err = conn.QueryRow(ctx, `SELECT split_part(version(), ' ', 2), current_setting('fsync'), current_setting('synchronous_commit'), current_setting('shared_buffers')`).
		Scan(&version, &fsync, &sync, &buffers)
	if err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %s, fsync %s, synchronous_commit %s, shared_buffers %s; %s, %d processors, shared by server, service and load; %s\n",
		version, fsync, sync, buffers, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format("2006-01-02"))
	fmt.Printf("each figure: the median of %d rounds of %v, the rows of a table measured in turn\n", b.rounds, b.seconds)
	return nil
}

// database makes a fresh, migrated database and returns its URL and a function
// that drops it.
func (b *bench) database(ctx context.Context, name string) (string, func(), error) {
	conn, err := pgx.Connect(ctx, b.admin)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close(ctx)
	name = fmt.Sprintf("bench_%s_%d", name, time.Now().UnixNano())
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", nil, err
	}
	url, err := onDatabase(b.admin, name)
	if err != nil {
		return "", nil, err
	}
	if err := migrations.Up(ctx, url); err != nil {
		return "", nil, err
	}
	return url, func() {
		ctx := context.WithoutCancel(ctx)
		if conn, err := pgx.Connect(ctx, b.admin); err == nil {
			conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
			conn.Close(ctx)
		}
	}, nil
}
