package pgtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/filelock"
	"github.com/muster-id/muster/internal/pgserver"
)

// The shared server's folder holds
//
//	users    a lock: shared by each test process while it lives, taken for
//	         itself by the keeper when it stops the server
//	start    a lock: whoever has it may start a keeper
//	url      the server's address, while it runs
//	data     the server
//	log      what the keeper has to say
const (
	keeperVariable = "MUSTER_PGTEST_KEEPER" // the folder
	idleVariable   = "MUSTER_PGTEST_IDLE"   // for idle
)

// idle is how long the server waits for another test process: the time that
// the go command may need to compile the next package's test.
const idle = 20 * time.Second

// A test binary that is started with the variable set is the keeper: it is
// sure to be there, and it needs no flags, no tests and no TestMain.
func init() {
	dir := os.Getenv(keeperVariable)
	if dir == "" {
		return
	}
	wait, err := time.ParseDuration(os.Getenv(idleVariable))
	if err == nil {
		err = keep(dir, wait)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sharedServer returns the address of the shared server, and starts one if
// there is none. The server stays for as long as the lock is held.
func sharedServer() (_ string, using *filelock.Lock, err error) {
	dir, err := stateDir()
	if err != nil {
		return "", nil, err
	}
	if using, err = filelock.Shared(filepath.Join(dir, "users")); err != nil {
		return "", nil, err
	}
	starting, err := filelock.Exclusive(filepath.Join(dir, "start"))
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, starting.Unlock()) }()
	if url, ok := alive(dir); ok {
		return url, using, nil
	}
	url, err := startKeeper(dir, idle)
	return url, using, err
}

// alive returns the address of the server that runs, if one does.
func alive(dir string) (string, bool) {
	url, err := os.ReadFile(filepath.Join(dir, "url"))
	if err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, string(url))
	if err != nil {
		return "", false
	}
	return string(url), conn.Close(ctx) == nil
}

func startKeeper(dir string, idle time.Duration) (string, error) {
	path, logPath := filepath.Join(dir, "url"), filepath.Join(dir, "log")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	out, err := os.Create(logPath)
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd := exec.CommandContext(context.Background(), exe)
	cmd.Env = append(os.Environ(), keeperVariable+"="+dir, idleVariable+"="+idle.String())
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out // the go command waits for whoever holds a test's output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	// It outlives us: nobody waits for it but the loop below.
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil {
		return "", err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		select {
		case <-deadline:
			return "", errors.New("the test server does not start; see " + logPath)
		case <-tick.C:
			if url, err := os.ReadFile(path); err == nil {
				return string(url), nil
			}
			if ended, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); ended == pid || err != nil {
				said, _ := os.ReadFile(logPath)
				return "", fmt.Errorf("the test server does not start: %s", strings.TrimSpace(string(said)))
			}
		}
	}
}

// keep runs the server until nobody has used it for a while.
func keep(dir string, idle time.Duration) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	data, path := filepath.Join(dir, "data"), filepath.Join(dir, "url")
	// A server that doesn't sync may have left anything behind.
	if err := pgserver.Remove(ctx, data); err != nil {
		return err
	}
	s, err := pgserver.Start(ctx, pgserver.Config{
		DataDir:  data,
		Settings: fast(),
		Logger:   slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		return err
	}
	stop := func() error {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return errors.Join(os.Remove(path), s.Stop(long), pgserver.Remove(long, data))
	}
	if err := os.WriteFile(path+".new", []byte(s.URL()), 0o600); err != nil {
		return errors.Join(err, s.Stop(ctx))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return errors.Join(err, s.Stop(ctx))
	}
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return stop()
		case err := <-s.Done():
			return errors.Join(err, os.Remove(path))
		case <-tick.C:
		}
		alone, ok, err := filelock.TryExclusive(filepath.Join(dir, "users"))
		switch {
		case err != nil:
			return errors.Join(err, stop())
		case !ok:
			last = time.Now()
		case time.Since(last) < idle:
			err = alone.Unlock()
		default:
			// Whoever comes now waits for us to be gone, and starts another.
			return errors.Join(stop(), alone.Unlock())
		}
		if err != nil {
			return errors.Join(err, stop())
		}
	}
}

// fast are settings for a server whose data are worth nothing.
func fast() map[string]string {
	return map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off", "wal_compression": "off",
		"max_connections": "400", "shared_buffers": "128MB", "min_wal_size": "80MB", "max_wal_size": "1GB",
	}
}
