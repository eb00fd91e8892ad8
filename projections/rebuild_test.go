package projections

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
)

// traffic imports and changes users until stopped, and fails the test when it
// cannot.
type traffic struct {
	stop func()
	// imported is how many users there are at least.
	imported int
}

func (w *world) traffic(t testing.TB, from int) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{imported: from}
	var group sync.WaitGroup
	group.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2)) // #nosec G404 -- a test's
		for ctx.Err() == nil {
			if _, err := w.try(userID(tr.imported), "org1", person(tr.imported)...); err != nil {
				t.Errorf("importing: %v", err)
				return
			}
			tr.imported++
			old := userID(1 + rng.IntN(tr.imported-1))
			change := []domain.Event{domain.UserLocked{}, domain.UserUnlocked{}, domain.EmailChanged{Email: fmt.Sprintf("e%d@x.test", rng.IntN(1e6))},
				domain.PasswordChecked{}, domain.IDPLinked{ConfigID: "c", ExternalUserID: fmt.Sprint(rng.IntN(1e6))}}
			if _, err := w.try(old, "org1", change[rng.IntN(len(change))]); err != nil {
				t.Errorf("changing: %v", err)
				return
			}
			// The watched user counts upwards.
			if _, err := w.try(userID(0), "org1", domain.PasswordChecked{}); err != nil {
				t.Errorf("changing: %v", err)
				return
			}
			_ = sleep(ctx, 4*time.Millisecond)
		}
	})
	var once sync.Once
	tr.stop = func() { once.Do(func() { cancel(); group.Wait() }) }
	t.Cleanup(tr.stop)
	return tr
}

// watch polls as readers do, until stopped: an error, older data or a gap
// fails the test. Versions are those that answers came from.
func (w *world) watch(t testing.TB, e *Engine) (stop func() (versions map[int]bool)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	versions := make(map[int]bool)
	var group sync.WaitGroup
	group.Go(func() {
		var sequence, total int64
		var position eventstore.Position
		for n := 0; ctx.Err() == nil; n++ {
			u, at, err := e.UserByLoginName(ctx, InOrg("org1"), "user0")
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				t.Errorf("read %d: %v", n, err)
				return
			case u.Sequence < sequence || at.Position < position:
				t.Errorf("read %d went back: from sequence %d at %d to %d at %d", n, sequence, position, u.Sequence, at.Position)
				return
			}
			sequence, position = u.Sequence, at.Position
			found, err := e.SearchUsers(ctx, InOrg("org1"), Search{Filters: []Filter{{Text: &TextFilter{FieldUserName, "user", StartsWith}}}, Limit: 1})
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				t.Errorf("search %d: %v", n, err)
				return
			case found.Total < total || found.Position < position:
				t.Errorf("search %d went back: from %d users at %d to %d at %d", n, total, position, found.Total, found.Position)
				return
			}
			total, position = found.Total, found.Position
			e.mu.Lock()
			versions[e.live["users"]] = true
			e.mu.Unlock()
			_ = sleep(ctx, time.Millisecond)
		}
	})
	return func() map[int]bool { cancel(); group.Wait(); return versions }
}

// equal fails the test unless two versions, at the same position, are the same
// row for row.
func (w *world) equal(t testing.TB, a, b int) {
	t.Helper()
	var differ int64
	err := w.pool.QueryRow(t.Context(), fmt.Sprintf(`SELECT count(*) FROM read_models.users_v%d a FULL JOIN read_models.users_v%d b USING (id) WHERE a IS DISTINCT FROM b`, a, b)).Scan(&differ)
	if err != nil {
		t.Fatal(err)
	}
	if differ != 0 {
		t.Errorf("versions %d and %d differ in %d rows", a, b, differ)
	}
}

// kills is how often the proof of rebuilds breaks one off: ten times, or what
// MUSTER_PROOF_KILLS says.
func kills(t *testing.T) int {
	text := os.Getenv("MUSTER_PROOF_KILLS")
	if text == "" {
		return 10
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MUSTER_PROOF_KILLS=%s", text)
	}
	return n
}

// P2: rebuilt again and again under load, broken off at ten random moments,
// the new version equals the live one and readers notice nothing. Two
// instances share the live version meanwhile, so that its ranges stand at
// different positions whenever they are looked at.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	stop := run(t, w.Engine)
	other, _ := w.instance(t, "other", users)
	stopOther := run(t, other)
	w.do(t, userID(0), "org1", person(0)...)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	tr := w.traffic(t, 2)
	reader := w.engine(t, users)
	watched := w.watch(t, reader)
	// The engine that rebuilds has its own connections, to be cut.
	cfg := w.pool.Config()
	cfg.ConnConfig.RuntimeParams["application_name"] = "rebuilder"
	rng := rand.New(rand.NewPCG(3, 4)) // #nosec G404 -- a test's
	killed := 0
	for limit := kills(t); killed < limit; {
		pool, err := openPoolWith(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		e := New(w.store, pool, []Model{users}, Config{Instance: "rebuilder", Logger: testLog(t), Batch: 200})
		ctx, cancel := context.WithCancel(t.Context())
		dead := make(chan struct{})
		time.AfterFunc(time.Duration(5+rng.IntN(200))*time.Millisecond, func() {
			if rng.IntN(2) == 0 {
				cancel()
			}
			w.cut(t, `application_name = 'rebuilder'`)
			close(dead)
		})
		_, err = e.Rebuild(ctx, "users", nil)
		<-dead
		cancel()
		pool.Close()
		if err != nil {
			killed++
			// What the dead one held runs out, but not so long ago that the running
			// engine takes the rebuild up.
			if _, err := w.pool.Exec(t.Context(), `UPDATE projections SET lease_until = now() - interval '1 second' WHERE state = 'building'`); err != nil {
				t.Fatal(err)
			}
		}
	}
	result, err := w.Rebuild(t.Context(), "users", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !result.Compared || len(result.Differing) != 0 {
		t.Errorf("under load: %+v", result.Comparison)
	}
	w.settle(t, "users")
	versions := watched()
	tr.stop()
	if len(versions) < 2 {
		t.Errorf("the reader saw versions %v: no switch was watched", versions)
	}
	w.settle(t, "users")
	w.sound(t, "users")

	// Once more with nothing going on, to compare the tables themselves.
	again, err := w.Rebuild(t.Context(), "users", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.equal(t, again.From, again.Version)
	counts, _, err := w.Counts(t.Context(), Everywhere())
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, c := range counts {
		sum += c.Users
	}
	if sum != int64(tr.imported) {
		t.Errorf("%d users are counted, %d were imported", sum, tr.imported)
	}
	eventually(t, "the two share the last version", func() bool { return w.holds["users"].Load() == 4 && other.holds["users"].Load() == 4 })
	stopOther()
	stop()
}

// A reader that knows the old version only gets the new one's rows, and none
// of the old.
func TestReaderLearnsOfTheSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	run(t, w.Engine)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	reader := w.engine(t, users)
	if _, _, err := reader.UserByLoginName(t.Context(), Everywhere(), "user1"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time, the version that the reader knows is dropped
		if _, err := w.Rebuild(t.Context(), "users", nil); err != nil {
			t.Fatal(err)
		}
	}
	again := w.engine(t, users)
	if _, _, err := again.UserByLoginName(t.Context(), Everywhere(), "user1"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Rebuild(t.Context(), "users", nil); err != nil {
		t.Fatal(err)
	}
	w.do(t, userID(1), "org1", domain.UserLocked{})
	w.settle(t, "users")
	for name, e := range map[string]*Engine{"of a dropped version": reader, "of a retired version": again} {
		u, _, err := e.UserByLoginName(t.Context(), Everywhere(), "user1")
		if err != nil || u.Sequence != 5 || u.State != domain.StateLocked {
			t.Errorf("a reader %s got %+v, %v", name, u, err)
		}
	}
}

// A version that goes live by rollback has first caught up; readers notice
// nothing of that either.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	run(t, w.Engine)
	w.do(t, userID(0), "org1", person(0)...)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	if _, err := w.Rollback(t.Context(), "users", nil); !errors.Is(err, ErrNoRollback) {
		t.Fatalf("with one version only: %v", err)
	}
	if _, err := w.Rebuild(t.Context(), "users", nil); err != nil {
		t.Fatal(err)
	}
	tr := w.traffic(t, 2)
	watched := w.watch(t, w.Engine)
	time.Sleep(200 * time.Millisecond)
	result, err := w.Rollback(t.Context(), "users", nil)
	if err != nil || result.Version != 1 || result.From != 2 {
		t.Fatalf("rolling back: %+v, %v", result, err)
	}
	time.Sleep(200 * time.Millisecond)
	tr.stop()
	w.settle(t, "users")
	if versions := watched(); !versions[1] || !versions[2] {
		t.Errorf("the reader saw versions %v", versions)
	}
	w.sound(t, "users")
	if result, err = w.Rollback(t.Context(), "users", nil); err != nil || result.Version != 2 {
		t.Fatalf("and forward again: %+v, %v", result, err)
	}
	w.settle(t, "users")
	w.sound(t, "users")
}

// rebuilderEnv makes this test binary a process that rebuilds users, for
// TestRebuildSurvivesKill: database URL, a blank, and the key file.
const rebuilderEnv = "MUSTER_TEST_REBUILDER"

func TestMain(m *testing.M) {
	if args := os.Getenv(rebuilderEnv); args != "" {
		url, file, _ := strings.Cut(args, " ")
		if err := rebuilder(url, file); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func rebuilder(url, file string) error {
	ctx := context.Background()
	keys, err := eventstore.OpenKeyring(file)
	if err != nil {
		return err
	}
	store, err := eventstore.New(ctx, eventstore.Config{URL: pgtest.ServiceURL(url), Keys: keys})
	if err != nil {
		return err
	}
	e := New(store, store.Pool(), []Model{users}, Config{Instance: "child", Lease: time.Second})
	_, err = e.Rebuild(ctx, "users", func(s Step) { fmt.Println(s.Phase, s.Events) })
	return err
}

// A rebuild whose process is killed goes on where it was: the chunks that were
// done are not done again.
func TestRebuildSurvivesKill(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	file := filepath.Join(t.TempDir(), "keys")
	keys, err := eventstore.CreateKeyring(file)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{url: url, store: openStoreWith(t, url, keys), pool: openPool(t, url)}
	w.Engine = w.engine(t, users)
	run(t, w.Engine)
	for i := 0; i < 2000; i += 500 {
		as := make([]eventstore.Append, 500)
		for j := range as {
			as[j] = eventstore.Append{Stream: userID(i + j), Org: "org1", Actor: "a", Expected: eventstore.NoStream, At: epochTime, Events: encode(person(i + j)...)}
		}
		for _, o := range w.store.AppendMany(t.Context(), as) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
	}
	w.settle(t, "users")
	child := osexec.CommandContext(t.Context(), os.Args[0]) // #nosec G204 -- this very binary
	child.Env = append(os.Environ(), rebuilderEnv+"="+url+" "+file)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var events int
		if _, err := fmt.Sscanf(lines.Text(), PhaseBulk+" %d", &events); err != nil {
			t.Fatalf("the child said %q before it could be killed", lines.Text())
		}
		if events > 500 {
			break
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	type done struct {
		Chunk int
		At    time.Time
	}
	read := func() map[int]time.Time {
		t.Helper()
		rows, err := w.pool.Query(t.Context(), `SELECT chunk, done_at FROM projection_chunks WHERE name = 'users' AND version = 2`)
		if err != nil {
			t.Fatal(err)
		}
		list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[done])
		if err != nil {
			t.Fatal(err)
		}
		at := make(map[int]time.Time)
		for _, d := range list {
			at[d.Chunk] = d.At
		}
		return at
	}
	before := read()
	if len(before) == 0 || len(before) == chunks {
		t.Fatalf("%d chunks were done when the child was killed", len(before))
	}
	w.do(t, userID(9999), "org1", person(9999)...)
	var resumed int64
	result, err := w.Rebuild(t.Context(), "users", func(s Step) { resumed = s.Resumed })
	if err != nil || result.Version != 2 {
		t.Fatalf("resuming: %+v, %v", result, err)
	}
	after := read()
	for chunk, at := range before {
		if !after[chunk].Equal(at) {
			t.Errorf("chunk %d was done again", chunk)
		}
	}
	if !result.Elsewhere && resumed == 0 {
		t.Error("the rebuild did not tell what it found done")
	}
	w.settle(t, "users")
	w.sound(t, "users")
}

// A candidate that does not agree with the events never goes live; a live
// version that had drifted is mended, and that is reported.
func TestRebuildComparesBeforeItSwitches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	run(t, w.Engine)
	for i := range 20 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users")
	if _, err := w.pool.Exec(t.Context(), `UPDATE read_models.users_v1 SET email = 'tampered' WHERE id = $1`, userID(3)); err != nil {
		t.Fatal(err)
	}
	report, err := w.Verify(t.Context(), "users", 0)
	if err != nil || len(report.Drifts) != 1 || report.Drifts[0] != (Drift{Stream: userID(3), Column: "email", Kind: "differs"}) {
		t.Fatalf("verifying: %+v, %v", report, err)
	}
	result, err := w.Rebuild(t.Context(), "users", nil)
	if err != nil || len(result.Differing) != 1 || result.Differing[0] != eventstore.SliceOf(userID(3)) {
		t.Fatalf("rebuilding: %+v, %v", result, err)
	}
	w.sound(t, "users")

	// Tamper with a candidate between its phases.
	e := w.engine(t, users)
	once := false
	_, err = e.Rebuild(t.Context(), "users", func(s Step) {
		if s.Phase == PhaseCompare && !once {
			once = true
			if _, err := w.pool.Exec(t.Context(), `UPDATE read_models.users_v3 SET state = 4 WHERE id = $1`, userID(5)); err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, ErrUnequal) {
		t.Fatalf("a tampered candidate: %v", err)
	}
	if v, err := w.liveVersion(t.Context(), users); err != nil || v.version != 2 {
		t.Errorf("the live version is %+v, %v", v, err)
	}
}

// A worker that lost the lease while it filled a chunk cannot commit it.
func TestChunkIsFenced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	ctx := t.Context()
	if _, err := w.ensure(ctx, users); err != nil {
		t.Fatal(err)
	}
	w.do(t, userID(1), "org1", person(1)...)
	version, err := w.candidate(ctx, users)
	if err != nil {
		t.Fatal(err)
	}
	old, err := w.build(ctx, users, version, "old")
	if err != nil {
		t.Fatal(err)
	}
	old.yield(ctx)
	next, err := w.build(ctx, users, version, "next")
	if err != nil {
		t.Fatal(err)
	}
	chunk := eventstore.SliceOf(userID(1)) / slicesPerChunk
	work := func(s *session) error {
		return (&rebuild{e: w.Engine, m: users}).chunk(ctx, s, chunk, func(int) {})
	}
	if err := work(old); !errors.Is(err, errFenced) {
		t.Errorf("the old worker's chunk: %v", err)
	}
	if err := work(next); err != nil {
		t.Errorf("the new worker's chunk: %v", err)
	}
	var rows int
	if err := w.pool.QueryRow(ctx, `SELECT count(*) FROM read_models.users_v2`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// A program with another definition leaves the live version to the others,
// builds its own beside it, and switches.
func TestNewDefinitionIsBuiltBeside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	stop := run(t, w.Engine)
	for i := range 10 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users")
	stop()
	d := users.definition
	d.number++
	next := define(d)
	e := w.engine(t, next)
	if _, err := e.query(t.Context(), next, func(int, *[]any) (string, string) { return "", "" }, func([][]byte) error { return nil }); !errors.Is(err, errDefinition) {
		t.Errorf("reading the old definition with the new program: %v", err)
	}
	run(t, e)
	deadline := time.Now().Add(20 * time.Second)
	for {
		v, err := e.liveVersion(t.Context(), next)
		if err == nil && v.definition == d.number {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %+v, %v", v, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.do(t, userID(11), "org1", person(11)...)
	head := w.settle(t)
	if err := e.WaitFor(t.Context(), "users", head); err != nil {
		t.Fatal(err)
	}
	if r, err := e.Verify(t.Context(), "users", 0); err != nil || r.Drifted != 0 || r.Rows != 11 {
		t.Errorf("the new definition's rows: %+v, %v", r, err)
	}
	if _, _, err := w.UserByLoginName(t.Context(), InOrg("org1"), "user3"); !errors.Is(err, errDefinition) {
		t.Errorf("the old program reads the new definition: %v", err)
	}
}
