package hostile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// Run tries the variants and returns what became of each. The error says that
// the harness itself failed; a broken promise is an Outcome's.
func Run(ctx context.Context, cfg Config) (outcomes []Outcome, err error) {
	if cfg.Round <= 0 {
		cfg.Round = 5 * time.Second
	}
	if cfg.Writers <= 0 {
		cfg.Writers = 3
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()>>33 + 1 // short enough to type
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	f := &frame{ctx: ctx}
	defer f.end(&err)
	defer rescue(&err)
	s, err := newStage(f, cfg)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(cfg.Out, "seed %d\n", cfg.Seed)
	for _, v := range cfg.Variants {
		out, err := s.try(v)
		if err != nil {
			return outcomes, err
		}
		outcomes = append(outcomes, out)
	}
	return outcomes, nil
}

// stage is where it all happens: two servers and a folder for records.
type stage struct {
	*frame
	cfg      Config
	primary  *pgtest.Server
	standby  *pgtest.Server
	dir      string
	keys     string
	logs     int // databases made
	children int // processes started
}

func newStage(f *frame, cfg Config) (*stage, error) {
	s := &stage{frame: f, cfg: cfg}
	var err error
	if s.dir, err = os.MkdirTemp("", "muster-hostile-"); err != nil {
		return nil, err
	}
	f.Cleanup(func() {
		_ = os.Remove(s.dir) // what was kept for a failure stays
	})
	s.keys = filepath.Join(s.dir, "keys.json")
	if _, err = eventstore.CreateKeyring(s.keys); err != nil {
		return nil, err
	}
	f.Cleanup(func() { _ = os.Remove(s.keys) })
	s.primary = pgtest.NewServer(f, map[string]string{"max_prepared_transactions": "20", "max_connections": "150"})
	s.standby = s.primary.Standby(f)
	return s, s.exec("postgres", `CREATE DATABASE elsewhere`, `CREATE ROLE muster_stranger LOGIN SUPERUSER`)
}

// at is the address of a database on a server.
func at(server *pgtest.Server, database string) string {
	u, err := url.Parse(server.URL())
	if err != nil {
		panic(err) // it is of our own making
	}
	u.Path = "/" + database
	return u.String()
}

func (s *stage) exec(database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, at(s.primary, database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("hostile: %s: %w", sql, err)
		}
	}
	return nil
}

// enough is how many events a log may have before a fresh one is begun: every
// round checks all of it.
const enough = 150_000

// try tries one variant until its time is over or it has failed.
func (s *stage) try(v Variant) (out Outcome, err error) {
	var began time.Time // the first log is there
	out = Outcome{Variant: v, Seed: s.cfg.Seed, Troubles: map[string]int{}}
	for out.Failure == nil && (out.Rounds == 0 || time.Since(began) < s.cfg.Duration) {
		t, err := s.begin(v)
		if err != nil {
			return out, err
		}
		if out.Rounds == 0 {
			began = time.Now()
		}
		for events := 0; out.Failure == nil && events < enough && (out.Rounds == 0 || time.Since(began) < s.cfg.Duration); {
			out.Rounds++
			t.rng = rand.New(rand.NewPCG(s.cfg.Seed, uint64(out.Rounds)))
			out.Failure, err = t.round(out.Troubles)
			if err != nil {
				return out, errors.Join(err, t.end(true))
			}
			events = t.found.events
			fmt.Fprintf(s.cfg.Out, "%s: round %d, %.0f s: %d events, %d acknowledged, %d seen; %s\n",
				v.Name, out.Rounds, time.Since(began).Seconds(), t.found.events, t.found.acked, t.found.seen, verdictOf(out.Failure))
		}
		out.Events += t.found.events
		out.Acked += t.found.acked
		out.Read += t.found.seen
		if out.Failure != nil {
			out.Failure.Round = out.Rounds
			if v.Fault == "" {
				out.Failure.Kept = t.dir
			}
		}
		out.After = time.Since(began)
		if err := t.end(out.Failure != nil && out.Failure.Kept != ""); err != nil {
			return out, err
		}
	}
	return out, nil
}

func verdictOf(f *Failure) string {
	if f == nil {
		return "every promise held"
	}
	return f.Error()
}

// trial is one log of one variant: its database, its processes, its records.
type trial struct {
	*stage
	variant  Variant
	database string
	dir      string
	rng      *rand.Rand
	writers  []*child
	readers  []*child
	fell     chan *child // a child has ended that was not meant to; capacity enough
	troubles map[string]int
	undo     []undo
	found    findings
}

func (s *stage) begin(v Variant) (*trial, error) {
	s.logs++
	t := &trial{stage: s, variant: v, database: fmt.Sprintf("log_%d", s.logs), fell: make(chan *child, 1000)}
	t.dir = filepath.Join(s.dir, t.database)
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.exec("postgres", `CREATE DATABASE `+t.database+` TEMPLATE muster`); err != nil {
		return nil, err
	}
	if err := s.exec(t.database, `CREATE TABLE strangers (x int)`); err != nil {
		return nil, err
	}
	if v.setup != "" {
		return t, s.exec(t.database, v.setup)
	}
	return t, nil
}

func (t *trial) end(keep bool) error {
	for _, c := range append(t.writers, t.readers...) {
		c.kill()
	}
	t.undoAll()
	err := t.exec("postgres", `DROP DATABASE `+t.database+` WITH (FORCE)`)
	if !keep {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	return err
}

// round disturbs for a while, lets everybody come to rest, and checks.
func (t *trial) round(troubles map[string]int) (*Failure, error) {
	t.troubles = troubles
	if err := t.start(); err != nil {
		return nil, err
	}
	failure, err := t.disturb()
	t.resume()
	if failure == nil && err == nil {
		failure, err = t.settle()
	}
	for _, c := range append(t.writers, t.readers...) {
		c.kill()
	}
	t.undoAll()
	t.writers, t.readers = nil, nil
	return failure, err
}

// start starts the round's processes and waits until every writer has had an
// answer: trouble before that is wasted. Readers go on from where the last
// round's have stopped.
func (t *trial) start() error {
	sizes := map[string]int64{} // of the writers' records so far
	for i := range t.cfg.Writers {
		name := fmt.Sprintf("writer-%d", i)
		sizes[name] = t.recorded(name)
		c, err := t.spawn("writer", name, t.primary)
		if err != nil {
			return err
		}
		t.writers = append(t.writers, c)
	}
	for name, server := range map[string]*pgtest.Server{"reader-primary": t.primary, "reader-standby": t.standby} {
		c, err := t.spawn("reader", name, server)
		if err != nil {
			return err
		}
		t.readers = append(t.readers, c)
	}
	deadline := time.Now().Add(30 * time.Second)
	for _, w := range t.writers {
		for t.recorded(w.name) == sizes[w.name] {
			if time.Now().After(deadline) {
				return fmt.Errorf("hostile: %s does not begin: %s", w.name, tail(w.stderr.String()))
			}
			if !sleep(t.ctx, 10*time.Millisecond) {
				return t.ctx.Err()
			}
		}
	}
	return nil
}

// recorded is the size of a child's record.
func (t *trial) recorded(name string) int64 {
	st, err := os.Stat(filepath.Join(t.dir, name))
	if err != nil {
		return 0 // not there yet
	}
	return st.Size()
}

// settle waits until the writers have finished and the readers have got to the
// end, and checks.
func (t *trial) settle() (*Failure, error) {
	for _, w := range t.writers {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, w := range t.writers {
		if failure, err := w.wait(time.Minute); failure != nil || err != nil {
			return failure, err
		}
	}
	if t.variant.Gated {
		t.undoAll()
	}
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Minute)
	defer cancel()
	truth, err := t.truth(ctx)
	if err != nil {
		return nil, err
	}
	if failure := t.check(truth); failure != nil {
		return failure, nil
	}
	head := eventstore.Position(0)
	if len(truth) > 0 {
		head = truth[len(truth)-1].Position
	}
	for _, r := range t.readers {
		fmt.Fprintln(r.stdin, head)
	}
	for _, r := range t.readers {
		failure, err := r.wait(30 * time.Second)
		if errors.Is(err, errStuck) {
			return failf("L1 held up", 0, "%s does not get to the end of the log at %d", r.name, head), nil
		}
		if failure != nil || err != nil {
			return failure, err
		}
	}
	if failure, err := t.checkReaders(truth); failure != nil || err != nil {
		return failure, err
	}
	t.undoAll() // from here on nobody else has a transaction open
	return t.verify(ctx)
}

// child is a process of ours.
type child struct {
	kind, name string
	server     *pgtest.Server
	cmd        *exec.Cmd
	stdin      io.WriteCloser
	stderr     bytes.Buffer
	meant      bool // that it ends; set by whoever ends it, before
	ended      chan struct{}
	err        error // valid after ended
}

func (t *trial) spawn(kind, name string, server *pgtest.Server) (*child, error) {
	t.children++
	r := role{
		Kind: kind, Name: fmt.Sprintf("%s.%d", name, t.children), URL: at(server, t.database), Keys: t.keys,
		Record: filepath.Join(t.dir, name), Variant: t.variant.Name, Seed: t.rng.Uint64(),
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Its end is awaited or brought about, never by a context.
	c := &child{kind: kind, name: name, server: server, cmd: exec.CommandContext(context.Background(), exe), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
		t.fell <- c
	}()
	return c, nil
}

// kill ends the child with -9.
func (c *child) kill() {
	c.meant = true
	_ = c.cmd.Process.Kill()
	<-c.ended
}

var errStuck = errors.New("hostile: a process does not end")

// wait waits for the child's own end.
func (c *child) wait(patience time.Duration) (*Failure, error) {
	c.meant = true
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c.ended:
		return c.verdict()
	case <-t.C:
		return nil, fmt.Errorf("%w: %s: %s", errStuck, c.name, tail(c.stderr.String()))
	}
}

// verdict is what an ended child has to say.
func (c *child) verdict() (*Failure, error) {
	var exit *exec.ExitError
	switch {
	case c.err == nil:
		return nil, nil
	case errors.As(c.err, &exit) && endedBy(exit, syscall.SIGTERM):
		return nil, nil // told to end before it had begun
	case errors.As(c.err, &exit) && exit.ExitCode() == violation:
		lines := strings.Split(strings.TrimSpace(c.stderr.String()), "\n")
		var f Failure
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &f); err != nil {
			return nil, err
		}
		f.Text += " (" + c.name + ")"
		return &f, nil
	default:
		return nil, fmt.Errorf("hostile: %s: %w: %s", c.name, c.err, tail(c.stderr.String()))
	}
}

func endedBy(exit *exec.ExitError, sig syscall.Signal) bool {
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

func tail(s string) string { return s[max(0, len(s)-2000):] }
