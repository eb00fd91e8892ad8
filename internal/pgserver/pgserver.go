// Package pgserver runs a PostgreSQL of the service's own, for whoever has no
// other at hand: it finds the server's binaries, makes the data folder, starts
// the server, watches it and stops it.
//
// What it promises:
//
//   - Full durability: fsync, synchronous commits, full page writes, data
//     checksums. Nothing that was committed is lost when the service, the
//     server or both are killed with -9, whenever that happens, the first
//     start included.
//   - One service per data folder. A second Start on it gets ErrInUse for as
//     long as the first one's process lives, and not a moment longer.
//   - No server outlives its service for long. The kernel stops it where it
//     can (Linux); elsewhere the next Start finds the orphan and stops it. An
//     orphan is never adopted: stopping costs a fraction of a second, and a
//     server that is always our child has always our settings.
//   - It listens on 127.0.0.1 and on a Unix socket below the data folder, asks
//     everyone for a password (SCRAM), and makes a random one that is kept
//     beside the data with mode 0600.
//   - The server's log (postgres.log in the data folder) holds no statement, no
//     parameter and no row: an error's text goes to the client that caused it.
package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/filelock"
)

// ErrInUse says that another process runs a server on the data folder.
var ErrInUse = errors.New("the data folder is in use by another muster")

// Owner is both the superuser of the server and the name of its database.
const Owner = "muster"

// Config says what to run. Only DataDir is required.
type Config struct {
	// DataDir is the folder that everything is kept in. Start makes it, with
	// mode 0711, where there is none: a server that runs as another user must
	// be able to pass through it. In it are
	//
	//	postgres           the database, or a link to it
	//	postgres.password  the owner's password
	//	postgres.port      the port, kept from one start to the next while free
	//	postgres.log       what the server has to say
	//	postgres.lock      held while the service runs
	DataDir string
	// BinDir is the folder of initdb and postgres; empty: look for them.
	BinDir string
	// Settings override or add to the server's parameters. With fsync=off
	// initdb doesn't sync either.
	Settings map[string]string
	// Restart starts the server anew, at the same address, when it dies under
	// a running service. Otherwise Done reports the death.
	Restart bool
	// Logger gets what happens, a few lines a run; nil discards it.
	Logger *slog.Logger
}

// Server is a running PostgreSQL.
type Server struct {
	cfg      Config
	log      *slog.Logger
	lock     *filelock.Lock
	bins     binaries
	as       *account // nil: our own user
	data     string   // resolved path of the cluster
	socket   string   // folder of the Unix socket; "" when there is none
	tempSock bool     // socket is a folder of its own, to be removed
	port     int
	password string

	life   context.Context    // ends when Stop is called
	cancel context.CancelFunc // ends life

	mu      sync.Mutex
	current *process
	stopCtx context.Context // Stop's, before life ends

	finished chan struct{} // supervise has returned
	done     chan error
	stopErr  error // valid after finished
}

// Start runs a server on the data in cfg.DataDir, making them first if need
// be, and returns once it takes connections. ctx bounds the start only; the
// server runs until Stop. The errors ErrInUse and ErrNoPostgres can be told
// apart; all of them are fit to be shown to the user as they are.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if !supported {
		return nil, errors.New("muster can't run a PostgreSQL of its own on this system: set DATABASE_URL")
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err = s.locate(ctx); err != nil {
		return nil, err
	}
	if err = s.prepare(ctx); err != nil {
		return nil, err
	}
	s.life, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p, err := s.launch(ctx, true)
	if err != nil {
		s.cancel()
		return nil, err
	}
	if err = s.ensureDatabase(ctx); err != nil {
		s.cancel()
		return nil, errors.Join(err, p.stop(ctx))
	}
	s.current = p
	go s.supervise(p)
	return s, nil
}

// open takes the data folder's lock.
func open(ctx context.Context, cfg Config) (*Server, error) {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	cfg.DataDir = dir
	s := &Server{cfg: cfg, log: cfg.Logger, finished: make(chan struct{}), done: make(chan error, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	path := filepath.Join(dir, "postgres.lock")
	// A service that was killed a moment ago may not be quite gone yet.
	for try := 0; ; try++ {
		lock, ok, err := filelock.TryExclusive(path)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the data folder: %w", err)
		case ok:
			s.lock = lock
			return s, lock.Write(strconv.Itoa(os.Getpid()) + "\n")
		case try == 10:
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("%w (process %s): %s", ErrInUse, strings.TrimSpace(string(holder)), dir)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) close() {
	if s.tempSock {
		_ = os.Remove(s.socket)
	}
	_ = s.lock.Unlock()
}

// URL returns the address of the service's database, for its owner, with the
// password: by the Unix socket if there is one. It stays the same over
// restarts by Config.Restart.
func (s *Server) URL() string {
	if s.socket == "" {
		return s.TCPURL()
	}
	return s.url(Owner, s.socket)
}

// TCPURL is URL by 127.0.0.1.
func (s *Server) TCPURL() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Owner, s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + Owner,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *Server) url(database, host string) string {
	q := url.Values{"host": {host}, "port": {strconv.Itoa(s.port)}, "sslmode": {"disable"}}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Owner, s.password),
		// A plus sign is no blank in a connection string.
		Path: "/" + database, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20"),
	}
	return u.String()
}

// Location tells a person where the server is, without its password.
func (s *Server) Location() string {
	return fmt.Sprintf("PostgreSQL %d on 127.0.0.1:%d, data in %s", s.bins.major, s.port, s.data)
}

// DataPath returns the resolved folder of the database cluster (PGDATA).
func (s *Server) DataPath() string { return s.data }

// BinDir returns the folder of the binaries that run.
func (s *Server) BinDir() string { return s.bins.dir }

// PID returns the process number of the server that runs now, or ran last.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.pid
}

// Done yields an error when the server is gone for good although nobody called
// Stop, and is closed when it is gone for whatever reason.
func (s *Server) Done() <-chan error { return s.done }

// Stop shuts the server down: transactions under way are rolled back, the rest
// is on disk. When ctx ends first, the server is told to drop everything at
// once, which its next start recovers from. Afterwards the data folder is
// free, and no process is left.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	if s.stopCtx == nil {
		s.stopCtx = ctx
	}
	s.mu.Unlock()
	s.cancel()
	<-s.finished
	return s.stopErr
}

// supervise owns the server process from the moment that it is ready.
func (s *Server) supervise(p *process) {
	defer close(s.finished)
	defer close(s.done)
	defer s.close()
	quick := 0 // deaths in a row within seconds of a start
	for {
		select {
		case <-s.life.Done():
			s.mu.Lock()
			ctx := s.stopCtx
			s.mu.Unlock()
			s.stopErr = p.stop(ctx)
			return
		case <-p.exited:
		}
		if s.life.Err() != nil {
			return
		}
		died := fmt.Errorf("PostgreSQL ended unexpectedly (%s); see %s", p.state(), s.logPath())
		if time.Since(p.started) < 5*time.Second {
			quick++
		} else {
			quick = 0
		}
		if !s.cfg.Restart || quick > 3 {
			s.done <- errors.Join(died, s.clearLeftovers(s.life))
			return
		}
		s.log.Error("PostgreSQL died: starting it again", "error", died)
		next, err := s.launch(s.life, false)
		if err != nil {
			if s.life.Err() == nil {
				s.done <- err
			}
			return
		}
		s.log.Info("PostgreSQL runs again", "pid", next.pid)
		s.mu.Lock()
		s.current = next
		s.mu.Unlock()
		p = next
	}
}

// settings returns the server's parameters, as -c arguments in a fixed order.
func (s *Server) settings() []string {
	m := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"unix_socket_permissions": "0700",

		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",
		"wal_level":          "replica",

		"max_connections":    "100",
		"shared_buffers":     fmt.Sprintf("%dMB", sharedBuffers(memory())>>20),
		"min_wal_size":       "256MB",
		"max_wal_size":       "4GB",
		"wal_compression":    "on",
		"checkpoint_timeout": "15min",
		"autovacuum":         "on",
		"random_page_cost":   "1.1",
		"jit":                "off", // our statements are short: compiling them costs more than it saves

		"timezone":        "UTC",
		"log_timezone":    "UTC",
		"log_destination": "stderr",
		// Errors are the client's, and their texts and details may hold
		// personal data: only what concerns the server itself is logged.
		"log_min_messages":        "log",
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
		"log_statement":           "none",
		"logging_collector":       "off",
	}
	if s.socket != "" {
		// A list of quoted names.
		m["unix_socket_directories"] = `"` + strings.ReplaceAll(s.socket, `"`, `""`) + `"`
	}
	maps.Copy(m, s.cfg.Settings)
	var args []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		args = append(args, "-c", name+"="+m[name])
	}
	return args
}

// sharedBuffers is how much memory of the machine's the server shares among its
// processes: a sixteenth, since the machine has other things to do, within
// 128 MiB and 1 GiB. A sixteenth of 8 GiB holds the upper parts of the indexes
// of some million users.
func sharedBuffers(memory int64) int64 {
	return min(max(memory/16, 128<<20), 1<<30)
}

// memory is the machine's memory in bytes, or 4 GiB where the system does not
// tell in /proc.
func memory() int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
				if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
					return kb << 10
				}
			}
		}
	}
	return 4 << 30
}

// ensureDatabase makes the service's database on the first start.
func (s *Server) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.adminURL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there, standby bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1), pg_is_in_recovery()`,
		Owner).Scan(&there, &standby)
	if err != nil || there || standby {
		return err
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{Owner}.Sanitize())
	return err
}

func (s *Server) adminURL() string {
	host := s.socket
	if host == "" {
		host = "127.0.0.1"
	}
	return s.url("postgres", host)
}

func (s *Server) logPath() string { return filepath.Join(s.cfg.DataDir, "postgres.log") }

// Ports that servers are given: below those that systems give to outgoing
// connections, one of which might sit on a server's port while it is down.
const firstPort, lastPort = 20_000, 32_000

// choosePort takes the port of the last start if it is free, else any that is.
func (s *Server) choosePort(ctx context.Context, keep bool) error {
	path := filepath.Join(s.cfg.DataDir, "postgres.port")
	if keep {
		last, _ := os.ReadFile(path)
		if n, err := strconv.Atoi(strings.TrimSpace(string(last))); err == nil && n > 1023 && n < 65536 {
			if s.port, err = freePort(ctx, n); err == nil {
				return nil
			}
		}
	}
	var err error
	for try := range 50 {
		n := firstPort + mathrand.IntN(lastPort-firstPort)
		if try == 49 {
			n = 0 // whatever the system gives
		}
		if s.port, err = freePort(ctx, n); err == nil {
			return os.WriteFile(path, []byte(strconv.Itoa(s.port)+"\n"), 0o600)
		}
	}
	return err
}

// freePort returns n if nobody listens there; for 0, any such port.
func freePort(ctx context.Context, n int) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("no TCP port to be had"), l.Close())
	}
	return addr.Port, l.Close()
}

// secret reads the owner's password, or makes one.
func (s *Server) secret(existing bool) error {
	path := filepath.Join(s.cfg.DataDir, "postgres.password")
	text, err := os.ReadFile(path)
	switch {
	case err == nil && len(text) > 0:
		s.password = strings.TrimSpace(string(text))
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case existing:
		return fmt.Errorf("the password of the database in %s is lost: %s is missing", s.data, path)
	}
	s.password = rand.Text()
	return writeDurably(path, s.password+"\n")
}

// writeDurably replaces the file at path; it is whole or absent at any moment.
func writeDurably(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
