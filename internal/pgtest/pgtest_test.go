package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/filelock"
	"github.com/muster-id/muster/migrations"
)

// TestMain doubles as another test process: with the variable set it makes a
// database, says which, and is killed.
func TestMain(m *testing.M) {
	if os.Getenv("PGTEST_TEST_CRASH") == "" {
		os.Exit(m.Run())
	}
	c, err := shared()
	if err == nil {
		var template string
		template, err = c.template()
		name := fmt.Sprintf("muster_test_%016x_1", c.run)
		if err == nil {
			err = c.exec(`CREATE DATABASE ` + name + ` TEMPLATE ` + template)
		}
		fmt.Println(name)
	}
	if err != nil {
		fmt.Println("error:", err)
	}
	os.Exit(1)
}

func one[T any](t *testing.T, url, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestEachTestHasItsOwn(t *testing.T) {
	var names []string
	t.Run("databases", func(t *testing.T) {
		a, b := New(t), New(t)
		for _, url := range []string{a, b} {
			names = append(names, one[string](t, url, `SELECT current_database()::text`))
		}
		one[int](t, a, `WITH x AS (INSERT INTO claims VALUES (sha256('a'), 's') RETURNING 1) SELECT count(*) FROM x`)
		if n := one[int](t, a, `SELECT count(*) FROM claims`); n != 1 {
			t.Errorf("a has %d claims", n)
		}
		if n := one[int](t, b, `SELECT count(*) FROM claims`); n != 0 {
			t.Errorf("b has %d claims", n)
		}
		// A session that stays open does not keep the database.
		conn, err := pgx.Connect(context.Background(), a)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	if names[0] == names[1] {
		t.Errorf("both tests have %s", names[0])
	}
	if n := one[int](t, New(t), `SELECT count(*) FROM pg_database WHERE datname = ANY($1)`, names); n != 0 {
		t.Errorf("%d of %v are still there", n, names)
	}
}

func TestServiceURL(t *testing.T) {
	url := New(t)
	if got := one[string](t, ServiceURL(url), `SELECT current_user::text`); got != migrations.ServiceRole {
		t.Errorf("acts as %s", got)
	}
	if got := one[string](t, url, `SELECT tableowner::text FROM pg_tables WHERE tablename = 'events'`); got == migrations.ServiceRole {
		t.Error("the service owns its tables")
	}
}

func TestCrashedRunIsSweptUp(t *testing.T) {
	New(t) // the server runs
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PGTEST_TEST_CRASH=1")
	out, err := cmd.Output()
	name := strings.TrimSpace(string(out))
	if err == nil || !testDatabase.MatchString(name) {
		t.Fatalf("the other process: %v, %s", err, name)
	}
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		return one[bool](t, c.admin, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name)
	}
	if !there() {
		t.Fatal("the other process made no database on the same server")
	}
	mine := one[string](t, New(t), `SELECT current_database()::text`)
	next, err := connect(c.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer next.session.Close(context.Background())
	// The crashed process's session may take a moment to be noticed.
	for deadline := time.Now().Add(10 * time.Second); there(); {
		if time.Now().After(deadline) {
			t.Fatal("its database is still there")
		}
		if err := sweep(t.Context(), next.session); err != nil {
			t.Fatal(err)
		}
	}
	if !one[bool](t, c.admin, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, mine) {
		t.Error("a living process's database was swept up")
	}
}

func TestKillAndStart(t *testing.T) {
	s := NewServer(t, nil)
	url := s.URL()
	if got := one[string](t, url, `SHOW fsync`); got != "on" {
		t.Errorf("fsync = %s", got)
	}
	one[int](t, url, `WITH x AS (INSERT INTO claims VALUES (sha256('a'), 's') RETURNING 1) SELECT count(*) FROM x`)
	s.Kill(t)
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a killed server answers")
	}
	s.Start(t)
	if n := one[int](t, url, `SELECT count(*) FROM claims`); n != 1 {
		t.Errorf("%d claims after kill -9", n)
	}
}

func TestStandby(t *testing.T) {
	s := NewServer(t, map[string]string{"fsync": "off"})
	b := s.Standby(t)
	one[int](t, s.URL(), `WITH x AS (INSERT INTO claims VALUES (sha256('a'), 's') RETURNING 1) SELECT count(*) FROM x`)
	if !one[bool](t, b.URL(), `SELECT pg_is_in_recovery()`) {
		t.Error("the standby is none")
	}
	for deadline := time.Now().Add(20 * time.Second); one[int](t, b.URL(), `SELECT count(*) FROM claims`) != 1; {
		if time.Now().After(deadline) {
			t.Fatal("the standby does not follow")
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Kill(t)
	b.Promote(t)
	one[int](t, b.URL(), `WITH x AS (INSERT INTO claims VALUES (sha256('b'), 's') RETURNING 1) SELECT count(*) FROM x`)
	if n := one[int](t, b.URL(), `SELECT count(*) FROM claims`); n != 2 {
		t.Errorf("%d claims after the failover", n)
	}
}

// TestKeeperStopsUnused has a shared server of its own, in a folder of its
// own, whose user goes away.
func TestKeeperStopsUnused(t *testing.T) {
	t.Parallel()
	dir := DataDir(t)
	url, err := startKeeper(dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if again, ok := alive(dir); !ok || again != url {
		t.Errorf("alive = %s, %v", again, ok)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "url")); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the keeper keeps a server that nobody uses")
		}
	}
	// The next user waits until the keeper has cleared everything away.
	next, err := filelock.Exclusive(filepath.Join(dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Unlock()
	if left, err := filepath.Glob(filepath.Join(dir, "data", "postgres")); err != nil || left != nil {
		t.Errorf("the keeper left %v", left)
	}
}
