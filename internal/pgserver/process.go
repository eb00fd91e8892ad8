package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// process is one run of the postmaster.
type process struct {
	pid     int
	started time.Time
	exited  chan struct{}
	err     error // how it ended; valid after exited
}

func (p *process) state() string {
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// stop ends the process: orderly while ctx lasts, then at once.
func (p *process) stop(ctx context.Context) error {
	return halt(ctx, p.pid, p.exited)
}

// halt asks PostgreSQL's postmaster for ever harder shutdowns until gone is
// closed: fast (roll back, checkpoint, exit) until ctx ends or half a minute
// is over, then immediate (no checkpoint: the next start recovers), then none
// of its doing.
func halt(ctx context.Context, pid int, gone <-chan struct{}) error {
	var forced error
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, 30 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := signal(pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping PostgreSQL: %w", err)
		}
		patience := time.NewTimer(step.wait)
		var cut <-chan struct{}
		if step.sig == syscall.SIGINT {
			cut = ctx.Done()
		}
		select {
		case <-gone:
			patience.Stop()
			return forced
		case <-cut:
			patience.Stop()
			forced = fmt.Errorf("PostgreSQL was stopped without a checkpoint: %w", ctx.Err())
		case <-patience.C:
			forced = errors.New("PostgreSQL did not shut down in time and was forced to")
		}
	}
	return errors.New("PostgreSQL cannot be stopped")
}

// spawn starts a postmaster.
func (s *Server) spawn() (*process, error) {
	logFile, err := os.OpenFile(s.logPath(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	// Its end is awaited, never cut by a context: see stop.
	cmd := s.command(context.Background(), "postgres", append([]string{"-D", s.data}, s.settings()...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p := &process{started: time.Now(), exited: make(chan struct{})}
	up := make(chan error, 1)
	go func() {
		// The kernel's signal at our death hangs on this thread: see
		// dieWithParent. It is busy waiting until the server is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			up <- err
			return
		}
		p.pid = cmd.Process.Pid
		up <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-up; err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return p, nil
}

// launch starts a postmaster and waits until it takes connections. With
// newPort it may choose another port than the last one.
func (s *Server) launch(ctx context.Context, newPort bool) (*process, error) {
	const tries = 10
	keep := true
	for try := 1; ; try++ {
		if err := s.clear(ctx); err != nil {
			return nil, err
		}
		if newPort {
			if err := s.choosePort(ctx, keep); err != nil {
				return nil, err
			}
		}
		offset := s.rotateLog()
		p, err := s.spawn() //nolint:contextcheck // ctx bounds the start, not the server's life
		if err != nil {
			return nil, err
		}
		err = s.ready(ctx, p)
		if err == nil {
			return p, nil
		}
		select {
		case <-p.exited:
		default:
			return nil, errors.Join(err, p.stop(ctx))
		}
		said := s.logSince(offset)
		// The port was taken between our look and the server's; or processes
		// of a killed server still hold its memory.
		taken := bytes.Contains(said, []byte("could not create any TCP/IP sockets"))
		keep = !taken
		if !taken && !bytes.Contains(said, []byte("shared memory block")) || try == tries {
			return nil, fmt.Errorf("PostgreSQL does not start: %w: %s", err, lastLines(said))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try) * 50 * time.Millisecond):
		}
	}
}

// ready waits until p takes connections, recovery after a crash included.
func (s *Server) ready(ctx context.Context, p *process) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTicker(10 * time.Second)
	defer patience.Stop()
	unreachable := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			return errors.New(p.state())
		case <-patience.C:
			s.log.Info("PostgreSQL is still starting: it recovers from a crash", "log", s.logPath())
		case <-tick.C:
			if pid, ready := s.pidFile(); pid != p.pid || !ready {
				continue
			}
			conn, err := pgx.Connect(ctx, s.adminURL())
			if err == nil {
				return conn.Close(ctx)
			}
			var refused *pgconn.PgError
			const cannotConnectNow = "57P03"
			switch {
			case errors.As(err, &refused) && refused.Code == cannotConnectNow:
			case refused != nil, unreachable == 200:
				return err
			default:
				unreachable++
			}
		}
	}
}

// pidFile reads who runs on the data, and whether it says that it is ready.
// The file's lines are: pid, data folder, start time, port, socket folder,
// address, shared memory, status.
func (s *Server) pidFile() (pid int, ready bool) {
	text, err := os.ReadFile(s.pidPath())
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(text), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, false
	}
	if len(lines) > 7 {
		status := strings.TrimSpace(lines[7])
		ready = status == "ready" || status == "standby"
	}
	return pid, ready
}

func (s *Server) pidPath() string { return filepath.Join(s.data, "postmaster.pid") }

// clear takes out of the way whatever a killed service or a killed server left.
func (s *Server) clear(ctx context.Context) error {
	if err := s.stopOrphan(ctx); err != nil {
		return err
	}
	if err := s.clearLeftovers(ctx); err != nil {
		return err
	}
	if s.socket == "" {
		return nil
	}
	// Nobody runs on these data, so a socket's lock says nothing; the process
	// number in it may be another's by now.
	stale, err := filepath.Glob(filepath.Join(globQuote(s.socket), ".s.PGSQL.*"))
	for _, path := range stale {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// globQuote escapes what filepath.Glob would take for a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// stopOrphan stops a server that a killed service left running on the data,
// and clears away a pid file that only looks like one. We hold the folder's
// lock, so no other service has a claim on either.
func (s *Server) stopOrphan(ctx context.Context) error {
	pid, _ := s.pidFile()
	if pid == 0 || !exists(pid) {
		return nil
	}
	if !runsPostgres(pid, s.data) {
		// The number is another process's by now; PostgreSQL would take that
		// for a running server and refuse.
		return os.Remove(s.pidPath())
	}
	s.log.Info("stopping the PostgreSQL that a killed muster left", "pid", pid)
	gone := make(chan struct{})
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		if poll(watch, func() bool { return !runsPostgres(pid, s.data) }) {
			close(gone)
		}
	}()
	err := halt(ctx, pid, gone)
	stop()
	<-finished
	select {
	case <-gone:
		return ctx.Err()
	default:
		return err
	}
}

// clearLeftovers waits for the processes of a postmaster that was killed: they
// notice and leave by themselves unless they are deep in a statement.
func (s *Server) clearLeftovers(ctx context.Context) error {
	none := func() bool { return len(postgresProcesses(s.data)) == 0 }
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{0, time.Second}, {syscall.SIGQUIT, 3 * time.Second}, {syscall.SIGKILL, 3 * time.Second}} {
		if step.sig != 0 {
			for _, pid := range postgresProcesses(s.data) {
				_ = signal(pid, step.sig)
			}
		}
		short, cancel := context.WithTimeout(ctx, step.wait)
		ok := poll(short, none)
		cancel()
		if ok {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("processes of a killed PostgreSQL on %s cannot be stopped: %v", s.data, postgresProcesses(s.data))
}

// poll waits until ok, and reports false when ctx ends first.
func poll(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// rotateLog keeps the server's log from growing for ever, and returns where
// the next lines will begin.
func (s *Server) rotateLog() int64 {
	const limit = 16 << 20
	st, err := os.Stat(s.logPath())
	if err != nil {
		return 0
	}
	if st.Size() > limit && os.Rename(s.logPath(), s.logPath()+".1") == nil {
		return 0
	}
	return st.Size()
}

func (s *Server) logSince(offset int64) []byte {
	f, err := os.Open(s.logPath())
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.NewSectionReader(f, offset, 1<<16))
	return text
}
