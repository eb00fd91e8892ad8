// Package pgtest gives each test a real PostgreSQL database of its own, with
// all migrations in it, and takes it away afterwards.
//
// One server serves all test processes of a machine's user at once. The first
// process starts it; a keeper, a process of its own, stops it some seconds
// after the last one has gone, so that `go test ./...` shares it between its
// packages and nothing is left behind. It doesn't sync to disk. Tests that
// kill servers or need durability get one of their own from NewServer.
//
// MUSTER_TEST_DATABASE_URL names another server to use instead, by the URL of
// a superuser.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/filelock"
	"github.com/muster-id/muster/migrations"
)

// patience bounds each thing that is done to a server.
const patience = time.Minute

// New returns the URL of a fresh, migrated database on the shared server, as
// its owner, who is a superuser. The database is dropped when the test ends,
// whoever is still connected to it. Tests may run in parallel.
func New(t testing.TB) string {
	t.Helper()
	c, err := shared()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return c.database(t)
}

// ServiceURL returns the address in url for the role that the service acts
// under. Each session begins as that role, whoever logs in.
func ServiceURL(url string) string {
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return url + sep + "options=-c%20role%3D" + migrations.ServiceRole
}

// DataDir returns a new folder that any user of the machine can pass through,
// as a managed PostgreSQL needs when the tests run as root, whose temporary
// folders are closed. It is removed after the test.
func DataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(), "muster-test-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return dir
}

// tempDir is memory where there is enough of it, else the disk.
func tempDir() string {
	const shm, room = "/dev/shm", 4 << 30
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err == nil && st.Bavail*uint64(st.Bsize) > room {
		return shm
	}
	return os.TempDir()
}

// cluster is a server to make databases on.
type cluster struct {
	// using keeps the shared server; nil for another. The kernel releases it
	// when the process ends.
	using *filelock.Lock
	// admin is a superuser's URL.
	admin string
	// run tells this process's databases from others': its advisory lock is
	// held by session for as long as the process lives.
	run     uint64
	session *pgx.Conn

	template     func() (string, error)
	databasesNum atomic.Int64
}

// shared connects to the one server that New uses.
var shared = sync.OnceValues(func() (*cluster, error) {
	if admin := os.Getenv("MUSTER_TEST_DATABASE_URL"); admin != "" {
		return connect(admin)
	}
	admin, using, err := sharedServer()
	if err != nil {
		return nil, err
	}
	c, err := connect(admin)
	if err != nil {
		return nil, err
	}
	c.using = using
	return c, nil
})

// connect marks this process's presence on the server and drops the databases
// of processes that are gone.
func connect(admin string) (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	session, err := pgx.Connect(ctx, admin)
	if err != nil {
		return nil, err
	}
	c := &cluster{admin: admin, session: session, run: randomID()}
	c.template = sync.OnceValues(c.makeTemplate)
	if _, err := session.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(c.run)); err != nil {
		return nil, err
	}
	return c, sweep(ctx, session)
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it would end the program
	return binary.LittleEndian.Uint64(b[:]) >> 1
}

var testDatabase = regexp.MustCompile(`^muster_test_([0-9a-f]{16})_\d+$`)

// sweep drops the databases of processes that no longer hold their lock.
func sweep(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT datname::text FROM pg_database WHERE datname LIKE 'muster\_test\_%'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		m := testDatabase.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		run, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			continue
		}
		var gone bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(run)).Scan(&gone); err != nil {
			return err
		}
		if !gone {
			continue
		}
		// Another process may be sweeping too; then it is gone either way.
		_, _ = conn.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`)
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, int64(run)); err != nil {
			return err
		}
	}
	return nil
}

// database makes a database for t and returns its URL.
func (c *cluster) database(t testing.TB) string {
	t.Helper()
	template, err := c.template()
	if err != nil {
		t.Fatalf("pgtest: the template: %v", err)
	}
	name := fmt.Sprintf("muster_test_%016x_%d", c.run, c.databasesNum.Add(1))
	quoted := pgx.Identifier{name}.Sanitize()
	if err := c.exec(`CREATE DATABASE ` + quoted + ` TEMPLATE ` + pgx.Identifier{template}.Sanitize()); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.exec(`DROP DATABASE IF EXISTS ` + quoted + ` WITH (FORCE)`); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return onDatabase(c.admin, name)
}

// exec runs a statement on a connection of its own: tests run in parallel.
func (c *cluster) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// makeTemplate returns the name of the database that holds exactly today's
// migrations, making it unless some process has done so before.
func (c *cluster) makeTemplate() (_ string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	hash, err := migrationsHash()
	if err != nil {
		return "", err
	}
	name := "muster_template_" + hash
	quoted := pgx.Identifier{name}.Sanitize()
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx) // gives the lock back
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(hashtextextended($1, 0))`, name); err != nil {
		return "", err
	}
	// It becomes a template once it is finished, and only then.
	var finished bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)`, name).Scan(&finished)
	if err != nil || finished {
		return name, err
	}
	for _, sql := range []string{`DROP DATABASE IF EXISTS ` + quoted + ` WITH (FORCE)`, `CREATE DATABASE ` + quoted + ` TEMPLATE template0`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", err
		}
	}
	if err := migrations.Up(ctx, onDatabase(c.admin, name)); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, `ALTER DATABASE `+quoted+` WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`)
	return name, err
}

func migrationsHash() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(migrations.FS, path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)[:8]), err
}

// onDatabase returns a server's URL with another database in it.
func onDatabase(admin, name string) string {
	u, err := url.Parse(admin)
	if err != nil {
		// pgx has taken it, so it is of the keyword form.
		return admin + " dbname=" + name
	}
	u.Path = "/" + name
	return u.String()
}

// stateDir is where the shared server's processes find each other.
func stateDir() (string, error) {
	dir := filepath.Join(tempDir(), "muster-pgtest-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o711); err != nil && !os.IsExist(err) {
		return "", err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || int(sys.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s is not a folder of ours", dir)
	}
	return dir, nil
}
