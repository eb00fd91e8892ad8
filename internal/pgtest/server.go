package pgtest

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/pgserver"
	"github.com/muster-id/muster/migrations"
)

// Server is a PostgreSQL of a test's own, to be killed and started at will.
// Its methods are for the test's own goroutine.
type Server struct {
	cfg pgserver.Config
	run *pgserver.Server // the last run
	up  bool             // it is under way
}

// NewServer starts a server with full durability, migrates its database, and
// removes both after the test. Settings override its parameters
// (PostgreSQL's names); nil is fine.
func NewServer(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	s := newServer(t, settings)
	s.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := migrations.Up(ctx, s.URL()); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s
}

func newServer(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	all := map[string]string{"shared_buffers": "64MB", "min_wal_size": "80MB"}
	maps.Copy(all, settings)
	s := &Server{cfg: pgserver.Config{DataDir: filepath.Join(DataDir(t), "data"), Settings: all}}
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// URL is the address of the server's database, for its owner. It stays the
// same over Kill, Stop and Start.
func (s *Server) URL() string { return s.run.URL() }

// TCPURL is URL by 127.0.0.1, for tests that put something between.
func (s *Server) TCPURL() string { return s.run.TCPURL() }

// Start runs the server after Kill or Stop, and returns when it is ready. A
// server that runs is left alone.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if s.up {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before := s.run
	run, err := pgserver.Start(ctx, s.cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.run, s.up = run, true
	if before != nil && before.URL() != run.URL() {
		t.Fatal("pgtest: the server's port was taken while it was down")
	}
}

// Stop shuts the server down in order.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if !s.up {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.up = false
	if err := s.run.Stop(ctx); err != nil {
		t.Errorf("pgtest: %v", err)
	}
}

// Kill kills the server with -9 and returns when all its processes are gone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(s.run.PID(), syscall.SIGKILL); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	select {
	case err := <-s.run.Done():
		if err == nil {
			t.Fatal("pgtest: the server was down already")
		}
	case <-time.After(patience):
		t.Fatal("pgtest: the server outlives kill -9")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.up = false
	_ = s.run.Stop(ctx) // it is down: this waits until its folder is free
}

// Standby starts a second server that streams from s and answers reads. It is
// a copy of s as of now, with the same password.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	b := newServer(t, s.cfg.Settings)
	if err := s.copyTo(t.Context(), b); err != nil {
		t.Fatalf("pgtest: the standby: %v", err)
	}
	b.Start(t)
	return b
}

// copyTo makes a base backup, by the means that every installation has:
// pg_basebackup is not with all of them.
func (s *Server) copyTo(ctx context.Context, b *Server) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()

	const slot = "standby"
	primary, err := pgx.ParseConfig(s.run.TCPURL())
	if err != nil {
		return err
	}
	// The slot keeps the log that the copy needs to become consistent.
	if _, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)`, slot); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_backup_start('standby', true)`); err != nil {
		return err
	}
	from, to := s.run.DataPath(), filepath.Join(b.cfg.DataDir, "postgres")
	if err := errors.Join(os.Mkdir(b.cfg.DataDir, 0o711), copyCluster(from, to)); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, `SELECT labelfile FROM pg_backup_stop(false)`).Scan(&label); err != nil {
		return err
	}
	settings := map[string]string{
		"primary_conninfo": "host=127.0.0.1 port=" + strconv.Itoa(int(primary.Port)) +
			" user=" + primary.User + " password=" + primary.Password + " application_name=standby",
		"primary_slot_name": slot, "hot_standby": "on", "wal_retrieve_retry_interval": "100ms",
	}
	maps.Copy(settings, b.cfg.Settings)
	b.cfg.Settings = settings
	password := filepath.Join(b.cfg.DataDir, "postgres.password")
	if err := errors.Join(
		os.WriteFile(filepath.Join(to, "backup_label"), []byte(label), 0o600),
		os.WriteFile(filepath.Join(to, "standby.signal"), nil, 0o600),
		os.WriteFile(password, []byte(primary.Password+"\n"), 0o600),
	); err != nil {
		return err
	}
	return chownLike(from, to)
}

// copyCluster copies a running cluster's files, without what a backup leaves
// out. Files may change or go meanwhile: replay puts that right.
func copyCluster(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		rel, relErr := filepath.Rel(from, path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		}
		switch dir, below, _ := strings.Cut(rel, string(filepath.Separator)); dir {
		case "pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans":
			if below != "" {
				return nil
			}
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular(), strings.HasPrefix(d.Name(), "postmaster."):
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o600)
	})
}

// chownLike gives the files below to to the owner of from.
func chownLike(from, to string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(to, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(sys.Uid), int(sys.Gid))
	})
}

// Promote makes a standby a primary of its own, on a new timeline.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	var ok bool
	if err := conn.QueryRow(ctx, `SELECT pg_promote(true)`).Scan(&ok); err != nil || !ok {
		t.Fatalf("pgtest: promotion: %v, %v", ok, err)
	}
}
