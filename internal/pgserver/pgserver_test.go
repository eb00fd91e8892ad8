//go:build linux

package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestMain doubles as the service that tests kill: with the variable set it
// runs a server on that folder, says so, and waits for its death.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PGSERVER_TEST_SERVE"); dir != "" {
		s, err := Start(context.Background(), Config{DataDir: dir, Settings: quick})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(s.PID(), s.URL())
		select {}
	}
	code := m.Run()
	if seedDir != "" {
		_ = os.RemoveAll(seedDir)
	}
	os.Exit(code)
}

// parentDir is memory where there is enough of it: it spares the tests the disk.
func parentDir() string {
	const shm = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < 2<<30 {
		return ""
	}
	return shm
}

// dataDir returns a folder that the server's user can pass through.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(parentDir(), "muster-pgserver-test-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// seedDir is what seed leaves for TestMain to remove.
var seedDir string

// seed is a database that was made once, and shut down.
var seed = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(parentDir(), "muster-pgserver-seed-")
	if err != nil {
		return "", err
	}
	seedDir = dir
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", err
	}
	s, err := Start(context.Background(), Config{DataDir: filepath.Join(dir, "data"), Settings: quick})
	if err != nil {
		return "", err
	}
	return dir, s.Stop(context.Background())
})

// seeded returns a data folder with a database in it, for tests that are not
// about the first start.
func seeded(t *testing.T, inside ...string) string {
	t.Helper()
	from, err := seed()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(append([]string{dataDir(t)}, inside...)...)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-Rp", filepath.Join(from, "data"), dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	if err := os.Remove(filepath.Join(dir, "postgres.port")); err != nil { // tests run side by side
		t.Fatal(err)
	}
	return dir
}

// quick spares the tests that are about something else the waiting for disks.
var quick = map[string]string{"fsync": "off"}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if pids := postgresProcesses(s.data); len(pids) != 0 {
		t.Errorf("processes %v outlive Stop", pids)
	}
}

// query runs a statement on a connection of its own and returns its first
// column as text.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(got, " ")
}

func TestDurableAndClosed(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, Config{DataDir: dir})
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"server_encoding": "UTF8", "wal_level": "replica", "listen_addresses": "127.0.0.1", "TimeZone": "UTC",
	} {
		if got := query(t, s.URL(), "SHOW "+name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if got := query(t, s.URL(), `SELECT current_database() || ' ' || current_user`); got != "muster muster" {
		t.Errorf("database and user: %s", got)
	}
	if got := query(t, s.URL(), `SELECT lower('ÄÖ') || ' ' || ('Z' < 'a')::text`); got != "äö true" {
		t.Errorf("letters and their order: %s", got)
	}
	if got := query(t, s.TCPURL(), `SELECT host(inet_client_addr())`); got != "127.0.0.1" {
		t.Errorf("TCPURL comes by %s", got)
	}

	for _, url := range []string{s.URL(), s.TCPURL()} {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Password = "guess"
		if conn, err := pgx.ConnectConfig(t.Context(), cfg); err == nil {
			conn.Close(t.Context())
			t.Errorf("a wrong password gets in by %s", cfg.Host)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "postgres.password"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("password file: %v, %v", st, err)
	}
	if strings.Contains(s.Location(), s.password) {
		t.Error("Location tells the password")
	}
}

func TestLogHoldsNoValues(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	s := start(t, Config{DataDir: dir})
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{
		`CREATE TABLE people (mail text PRIMARY KEY)`,
		`INSERT INTO people VALUES ('gigi@example.com')`,
		`INSERT INTO people VALUES ('gigi@example.com')`,
		`SELECT 'gigi@example.com'::integer`,
		`DO $$ BEGIN RAISE WARNING 'gigi@example.com'; END $$`,
	} {
		_, err = conn.Exec(t.Context(), sql)
		_ = err // three of them fail, and that is the point
	}
	stop(t, s)
	text, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil || !strings.Contains(string(text), "ready to accept connections") {
		t.Fatalf("no log: %v", err)
	}
	if strings.Contains(string(text), "gigi") {
		t.Errorf("the log holds a value:\n%s", text)
	}
}

func TestRestartKeepsDataAndPort(t *testing.T) {
	t.Parallel()
	dir := seeded(t)
	s := start(t, Config{DataDir: dir, Settings: quick})
	query(t, s.URL(), `CREATE TABLE t AS SELECT 7 AS n`)
	first := s.URL()
	stop(t, s)
	if _, open := <-s.Done(); open {
		t.Error("Done reports an error after Stop")
	}

	began := time.Now()
	s = start(t, Config{DataDir: dir, Settings: quick})
	t.Logf("a warm start took %v", time.Since(began))
	if s.URL() != first {
		t.Error("the address changed although its port was free")
	}
	if got := query(t, s.URL(), `SELECT n::text FROM t`); got != "7" {
		t.Errorf("after a restart: %q", got)
	}
	stop(t, s)

	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s = start(t, Config{DataDir: dir, Settings: quick})
	if s.URL() == first {
		t.Error("the port is another process's, and was kept")
	}
	query(t, s.TCPURL(), `SELECT n::text FROM t`)
}

func TestSecondStartIsRefused(t *testing.T) {
	t.Parallel()
	dir := seeded(t)
	s := start(t, Config{DataDir: dir, Settings: quick})
	_, err := Start(t.Context(), Config{DataDir: dir, Settings: quick})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("the second start: %v", err)
	}
	if err := Remove(t.Context(), dir); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove: %v", err)
	}
	url, err := Running(dir)
	if err != nil || url != s.TCPURL() {
		t.Errorf("Running: %v", err)
	}
	query(t, url, `SELECT 'unharmed'`)
	stop(t, s)
	if err := Remove(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Running(dir); err == nil {
		t.Error("Running finds a removed database")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("Remove left %v", left)
	}
}

// TestServerKilled kills the postmaster with -9, once with a session that is
// deep in a statement, and expects the service to get another one at the same
// address with everything that was acknowledged.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DataDir: seeded(t), Settings: quick, Restart: true})
	query(t, s.URL(), `CREATE TABLE t (n integer)`)
	for round := 1; round <= 2; round++ {
		query(t, s.URL(), fmt.Sprintf(`INSERT INTO t VALUES (%d)`, round))
		busy, err := pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			// Never looks up from its work.
			_, err := busy.Exec(context.Background(), `SELECT count(*) FROM generate_series(1, 1000000000)`)
			ended <- err
		}()
		pid := s.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		within(t, 15*time.Second, "another server", func() bool { return s.PID() != pid })
		if err := <-ended; err == nil {
			t.Error("a session outlived its server")
		}
		_ = busy.Close(context.Background())
		if got := query(t, s.URL(), `SELECT count(*)::text FROM t`); got != strconv.Itoa(round) {
			t.Errorf("round %d: %s rows", round, got)
		}
	}
}

func TestDeathIsReported(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DataDir: seeded(t), Settings: quick})
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.Done():
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("Done: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Done says nothing")
	}
}

// service runs Start in a process of its own, and returns that process and the
// server's number and address.
func service(t *testing.T, dir string) (*exec.Cmd, int, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PGSERVER_TEST_SERVE="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, url, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, convErr := strconv.Atoi(pid)
	if err != nil || convErr != nil {
		t.Fatalf("the service said %q", line)
	}
	return cmd, n, url
}

func TestServiceKilled(t *testing.T) {
	t.Parallel()
	dir := seeded(t)
	cmd, pid, url := service(t, dir)
	query(t, url, `CREATE TABLE t AS SELECT 7 AS n`)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// At once: the server of the killed service may be there or on its way out.
	s := start(t, Config{DataDir: dir, Settings: quick})
	if err := cmd.Wait(); err == nil {
		t.Error("the service was to die")
	}
	if s.PID() == pid {
		t.Error("the orphan was adopted")
	}
	if got := query(t, s.URL(), `SELECT n::text FROM t`); got != "7" {
		t.Errorf("after kill -9 of the service: %q", got)
	}
}

// TestOrphan covers systems whose kernel does not stop the server when the
// service is killed: one is started behind our back, and goes on.
func TestOrphan(t *testing.T) {
	t.Parallel()
	dir := seeded(t)
	s := start(t, Config{DataDir: dir, Settings: quick})
	query(t, s.URL(), `CREATE TABLE t AS SELECT 7 AS n`)
	stop(t, s)

	orphan := s.command(context.Background(), "postgres", append([]string{"-D", s.data}, s.settings()...)...)
	orphan.SysProcAttr.Pdeathsig = 0
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- orphan.Wait() }()
	within(t, 10*time.Second, "the orphan", func() bool { _, ready := s.pidFile(); return ready })
	query(t, s.URL(), `INSERT INTO t VALUES (8)`)

	s = start(t, Config{DataDir: dir, Settings: quick})
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("the orphan was not shut down in order: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the orphan runs on")
	}
	log, err := os.ReadFile(s.logPath())
	if err != nil || strings.Contains(string(log), "not properly shut down") {
		t.Errorf("the orphan was not shut down in order: %v", err)
	}
	if got := query(t, s.URL(), `SELECT string_agg(n::text, ',' ORDER BY n) FROM t`); got != "7,8" {
		t.Errorf("after the orphan: %q", got)
	}
}

// TestStrangerInPidFile has the pid file of a crashed server name a live
// process of the server's own user, as happens in containers all the time.
func TestStrangerInPidFile(t *testing.T) {
	t.Parallel()
	dir := seeded(t)
	s := start(t, Config{DataDir: dir, Settings: quick})
	stop(t, s)
	stranger := exec.Command("/bin/sleep", "60")
	s.as.runAs(stranger)
	stranger.Dir = "/"
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	pidFile := fmt.Sprintf("%d\n%s\n1\n%d\n%s\n127.0.0.1\n  1  1\nready   \n", stranger.Process.Pid, s.data, s.port, s.socket)
	sockLock := filepath.Join(s.socket, fmt.Sprintf(".s.PGSQL.%d.lock", s.port))
	for _, path := range []string{s.pidPath(), sockLock} {
		if err := os.WriteFile(path, []byte(pidFile), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.as.give(path); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, Config{DataDir: dir, Settings: quick})
	query(t, s.URL(), `SELECT 'up'`)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error("the stranger was harmed")
	}
}

func TestHalfMadeClusterIsMadeAnew(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	half := filepath.Join(dir, "postgres.new", "base")
	if err := os.MkdirAll(half, 0o711); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{DataDir: dir, Settings: quick})
	query(t, s.URL(), `SELECT 'up'`)
	if _, err := os.Stat(filepath.Dir(half)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made cluster is still there: %v", err)
	}
}

// TestLongAndOddPath has a data folder whose socket would not fit, with
// characters that parameters and patterns care about.
func TestLongAndOddPath(t *testing.T) {
	t.Parallel()
	dir := seeded(t, `a "b", [c]*`, strings.Repeat("long", 25))
	s := start(t, Config{DataDir: dir, Settings: quick})
	if len(s.socket) > 80 || strings.HasPrefix(s.socket, dir) {
		t.Errorf("socket in %s", s.socket)
	}
	query(t, s.URL(), `SELECT 'up'`)
	query(t, s.TCPURL(), `SELECT 'up'`)
	stop(t, s)
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder outlives the server: %v", err)
	}

	// A comma would end the host in a connection string: the rest will do.
	dir = seeded(t, `a "b" [c]*`)
	s = start(t, Config{DataDir: dir, Settings: quick})
	if s.socket != s.data {
		t.Errorf("socket in %s", s.socket)
	}
	query(t, s.URL(), `SELECT 'up'`)
}

// TestClosedHome has a data folder that the server's user can't reach, and
// binaries that it can't run, as below root's home.
func TestClosedHome(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		// Without root there is no other user: everything is reachable.
		s := start(t, Config{DataDir: dataDir(t), Settings: quick})
		if s.as != nil || !s.reaches(t.Context(), s.data) {
			t.Errorf("runs as %v", s.as)
		}
		return
	}
	home, other := t.TempDir(), dataDir(t)
	if err := errors.Join(os.Chmod(home, 0o700), os.Mkdir(other, 0o711)); err != nil {
		t.Fatal(err)
	}
	bin, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was := fallbackParent
	fallbackParent = other
	defer func() { fallbackParent = was }()

	var said strings.Builder
	cfg := Config{DataDir: filepath.Join(home, "data"), Settings: quick, Logger: slog.New(slog.NewTextHandler(&said, nil))}
	s := start(t, cfg)
	if !strings.HasPrefix(s.data, other) || !strings.Contains(said.String(), filepath.Dir(s.data)) {
		t.Errorf("data in %s; said: %s", s.data, said.String())
	}
	query(t, s.URL(), `CREATE TABLE t AS SELECT 7 AS n`)
	stop(t, s)
	s = start(t, cfg)
	if got := query(t, s.URL(), `SELECT n::text FROM t`); got != "7" {
		t.Errorf("after a restart: %q", got)
	}
	stop(t, s)

	// Without the link the next start is a first one.
	if err := os.RemoveAll(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	if got := query(t, s.URL(), `SELECT count(*)::text FROM pg_tables WHERE tablename = 't'`); got != "0" {
		t.Error("a removed data folder came back")
	}

	// A stand-in for relocatable binaries: scripts that lead to the real ones.
	closed := filepath.Join(home, "tools", "bin")
	if err := os.MkdirAll(closed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s/%s \"$@\"\n", bin, name)
		if err := os.WriteFile(filepath.Join(closed, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, Config{DataDir: filepath.Join(home, "more"), BinDir: closed, Settings: quick})
	query(t, s.URL(), `SELECT 'up'`)
	if strings.HasPrefix(s.bins.dir, home) {
		t.Errorf("runs %s", s.bins.dir)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	fake := func(version string, names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
			if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	old := fake("9.6.24", "initdb", "postgres")
	half := fake("17.1", "postgres")
	v16 := fake("16.4 (Debian 16.4-1)", "initdb", "postgres")
	v17 := fake("17rc1", "initdb", "postgres")
	future := fake("19.0", "initdb", "postgres")
	for name, tc := range map[string]struct {
		dirs  []string
		major int
		want  string
		err   string
	}{
		"the first that fits":    {[]string{"/nowhere", old, half, future, v17, v16}, 0, v17, ""},
		"the data's version":     {[]string{v17, v16}, 16, v16, ""},
		"data of a lost one":     {[]string{v17, v16}, 15, "", "made by PostgreSQL 15"},
		"none":                   {[]string{half}, 0, "", "apt-get install postgresql"},
		"only unusable ones":     {[]string{old, future}, 0, "", "found only: [9 19]"},
		"nowhere to look at all": {nil, 0, "", "DATABASE_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := find(t.Context(), tc.dirs, tc.major)
			if b.dir != tc.want || (err == nil) != (tc.err == "") {
				t.Errorf("find = %q, %v", b.dir, err)
			}
			if err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("the error says: %v", err)
			}
		})
	}
}

func TestStartFailsClearly(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	_, err := Start(t.Context(), Config{DataDir: dir, Settings: map[string]string{"shared_buffers": "lots"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("a bad setting: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Start(ctx, Config{DataDir: dir, Settings: quick}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled start: %v", err)
	}
	s := start(t, Config{DataDir: dir, Settings: quick}) // nothing is in its way
	stop(t, s)
	if err := os.Remove(filepath.Join(dir, "postgres.password")); err != nil {
		t.Fatal(err)
	}
	if _, err = Start(t.Context(), Config{DataDir: dir, Settings: quick}); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("a lost password: %v", err)
	}
}

func TestStopInTime(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{DataDir: seeded(t), Settings: quick})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop with an ended context: %v", err)
	}
	if err := syscall.Kill(s.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the server is still there: %v", err)
	}
}

func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if !poll(ctx, ok) {
		t.Fatalf("%s is not there after %v", what, d)
	}
}

func TestSharedBuffers(t *testing.T) {
	for memory, want := range map[int64]int64{512 << 20: 128 << 20, 8 << 30: 512 << 20, 64 << 30: 1 << 30} {
		if got := sharedBuffers(memory); got != want {
			t.Errorf("of %d MiB: %d MiB, want %d", memory>>20, got>>20, want>>20)
		}
	}
	if m := memory(); m < 64<<20 {
		t.Errorf("this machine has %d bytes", m)
	}
}
