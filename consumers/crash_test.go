package consumers_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// TestChild is not a test of its own: the tests below start this binary again
// with it, as a process that they can kill.
func TestChild(t *testing.T) {
	url := os.Getenv("MUSTER_TEST_CHILD")
	if url == "" {
		return
	}
	keys, err := eventstore.OpenKeyring(os.Getenv("MUSTER_TEST_KEYS"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(os.Getenv("MUSTER_TEST_OUT"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	killer, after := os.Getenv("MUSTER_TEST_KILLER"), os.Getenv("MUSTER_TEST_AFTER")
	dieAfter, _ := strconv.Atoi(after)
	var mu sync.Mutex
	handled := 0
	sub, err := consumers.NewSubscriber(store, consumers.Config{
		LeaseTTL: 600 * time.Millisecond, Flush: 20 * time.Millisecond, InFlight: 8, Window: 64,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), "crash")
	if err != nil {
		t.Fatal(err)
	}
	for msg := range messages {
		go func() {
			stream, seq := streamOf(msg)
			if stream == killer && seq == 2 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			if stream[len(stream)-1] < '4' {
				time.Sleep(60 * time.Millisecond) // still at work when checkpoints are written and the process dies
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(out, "%s %d\n", stream, seq)
			handled++
			if dieAfter > 0 && handled == dieAfter {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			msg.Ack()
		}()
	}
}

type child struct {
	*exec.Cmd
	done chan struct{}
}

// startChild starts a consumer in a process of its own.
func startChild(t *testing.T, url, keys, out string, env ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.count=1"), done: make(chan struct{})}
	c.Env = append(os.Environ(), append(env, "MUSTER_TEST_CHILD="+url, "MUSTER_TEST_KEYS="+keys, "MUSTER_TEST_OUT="+out)...)
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Wait(); close(c.done) }()
	t.Cleanup(func() { _ = c.Process.Kill(); <-c.done })
	return c
}

func readJournal(t *testing.T, path string) *journal {
	t.Helper()
	j := newJournal()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return j
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		stream, seq, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseInt(seq, 10, 64)
		if !ok || err != nil {
			continue
		}
		j.leave(stream, n, true)
	}
	return j
}

// crashStore is a log with its keys in a file, for children to open too.
func crashStore(t *testing.T) (store *eventstore.Store, url, keys string) {
	t.Helper()
	url, keys = pgtest.New(t), filepath.Join(t.TempDir(), "keys.json")
	ring, err := eventstore.CreateKeyring(keys)
	if err != nil {
		t.Fatal(err)
	}
	store, err = eventstore.New(t.Context(), eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close(t.Context()) })
	return store, url, keys
}

func TestNothingIsLostWhenTheProcessIsKilled(t *testing.T) {
	store, url, keys := crashStore(t)
	newUsers(t, store, 120, 4)
	out := filepath.Join(t.TempDir(), "out")
	for range 3 {
		c := startChild(t, url, keys, out, "MUSTER_TEST_AFTER=130")
		select {
		case <-c.done:
		case <-time.After(20 * time.Second):
			t.Fatal("the child does not come to its end")
		}
	}
	startChild(t, url, keys, out)
	until(t, "all events", func() bool { return readJournal(t, out).seen() == 600 })
	readJournal(t, out).inOrder(t)
}

func TestAMessageThatKillsTheProcessIsParked(t *testing.T) {
	store, url, keys := crashStore(t)
	ids := newUsers(t, store, 60, 2)
	killer := ids[30]
	out := filepath.Join(t.TempDir(), "out")
	deaths := 0
	admin := consumers.NewAdmin(store)
	for {
		c := startChild(t, url, keys, out, "MUSTER_TEST_KILLER="+killer)
		parked := func() bool {
			p, err := admin.Parked(t.Context(), "crash", 0)
			return err == nil && len(p) == 1 && p[0].State == "parked"
		}
		until(t, "a death, or the end", func() bool {
			select {
			case <-c.done:
				return true
			default:
				return parked() && readJournal(t, out).seen() == 60*3-2
			}
		})
		select {
		case <-c.done:
			if deaths++; deaths > 3 {
				t.Fatal("the killer is not recognised")
			}
			continue
		default:
		}
		break
	}
	if deaths < 2 {
		t.Errorf("parked after %d deaths: one alone proves nothing", deaths)
	}
	p, err := admin.Parked(t.Context(), "crash", 0)
	if err != nil {
		t.Fatal(err)
	}
	if p[0].Stream != killer || p[0].Class != consumers.ClassKilledProcess || p[0].Sequence != 2 {
		t.Errorf("parked: %+v", p[0])
	}
	readJournal(t, out).inOrder(t)
}

// suspected makes everything in the log look as if the consumer's last owner had
// died of it.
func suspected(t *testing.T, store *eventstore.Store, url, name string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	sub, err := consumers.NewSubscriber(store, consumers.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SubscribeInitialize(name); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `UPDATE consumer_ranges SET dispatched = (SELECT count(*) FROM events) WHERE consumer = $1`, name); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestSuspectsGoInGroups: people are imported with several events each, one
// behind the other in the log. Attempts on them are recorded many at a time, not
// one by one, and handled in order.
func TestSuspectsGoInGroups(t *testing.T) {
	t.Parallel()
	store, url := openStoreURL(t)
	newUsers(t, store, 50, 2)
	conn := suspected(t, store, url, "groups")
	entered, leave := make(chan struct{}, 150), make(chan struct{})
	j := newJournal()
	consume(t, store, "groups", consumers.Config{Backoff: quick}, func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		j.enter(stream)
		entered <- struct{}{}
		<-leave
		j.leave(stream, seq, true)
		return nil
	})
	<-entered
	var recorded int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM consumer_attempts`).Scan(&recorded); err != nil {
		t.Fatal(err)
	}
	if recorded != 128 {
		t.Errorf("%d attempts are on record while the first suspects are tried, want a group of 128", recorded)
	}
	close(leave)
	until(t, "all events", func() bool { return j.count() == 150 })
	j.inOrder(t)
	until(t, "no attempts on record", func() bool {
		return conn.QueryRow(t.Context(), `SELECT count(*) FROM consumer_attempts`).Scan(&recorded) == nil && recorded == 0
	})
}

// TestASuspectThatFailsHoldsUpNoOther: its stream's later events wait for it, and
// nobody waits for them.
func TestASuspectThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	store, url := openStoreURL(t)
	ids := newUsers(t, store, 100, 2)
	suspected(t, store, url, "failing")
	j := newJournal()
	cfg := consumers.Config{AsideAfter: 2 * time.Hour, Backoff: func(int) time.Duration { return time.Hour }}
	consume(t, store, "failing", cfg, func(msg *message.Message) error {
		stream, seq := streamOf(msg)
		if stream == ids[3] {
			return fmt.Errorf("not yet")
		}
		j.enter(stream)
		j.leave(stream, seq, true)
		return nil
	})
	until(t, "everybody else's events", func() bool { return j.count() == 99*3 })
	j.inOrder(t)
}

// pausable is the clock of a process that can be stopped like a virtual
// machine: no time passes, no timer fires.
type pausable struct {
	mu     sync.Mutex
	paused bool
	at     time.Time
	off    time.Duration
	held   []func()
}

func (p *pausable) Now() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		return p.at
	}
	return time.Now().Add(-p.off)
}

func (p *pausable) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, func() {
		p.mu.Lock()
		if p.paused {
			p.held = append(p.held, f)
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		f()
	}).Stop
}

func (p *pausable) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused, p.at = true, time.Now().Add(-p.off)
}

func (p *pausable) resume() {
	p.mu.Lock()
	p.paused = false
	p.off = time.Since(p.at)
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, f := range held {
		go f()
	}
}

func TestAnInstanceThatSleptThroughItsLeaseWritesNothing(t *testing.T) {
	store := openStore(t)
	newUsers(t, store, 1, 0)
	cfg := consumers.Config{Ranges: 1, LeaseTTL: 400 * time.Millisecond, Flush: 20 * time.Millisecond, Backoff: quick, Attempts: 1 << 20, AsideAfter: time.Hour}
	clock := &pausable{}
	slow := cfg
	slow.Clock = clock
	entered, wake := make(chan string, 100), make(chan struct{})
	consume(t, store, "fence", slow, func(msg *message.Message) error {
		entered <- msg.Metadata.Get(consumers.MetaPosition)
		<-wake
		return nil
	})
	first := <-entered
	clock.pause()
	// The other one takes over, and can't handle the event either.
	fails := make(chan struct{}, 1<<20)
	_, stopSecond := consume(t, store, "fence", cfg, func(msg *message.Message) error {
		if msg.Metadata.Get(consumers.MetaPosition) == first {
			fails <- struct{}{}
			return fmt.Errorf("not yet")
		}
		return nil
	})
	<-fails
	newUsers(t, store, 5, 0)
	admin := consumers.NewAdmin(store)
	before, err := admin.Leases(t.Context(), "fence")
	if err != nil {
		t.Fatal(err)
	}
	clock.resume()
	close(wake) // the first one's handler is done, its lease is not its own any more
	for range 200 {
		<-fails // meanwhile the first one has had its flushes
	}
	time.Sleep(4 * cfg.Flush)
	after, err := admin.Leases(t.Context(), "fence")
	if err != nil {
		t.Fatal(err)
	}
	if after[0].Checkpoint.Position != 0 || after[0].Token != before[0].Token || after[0].Owner != before[0].Owner {
		t.Errorf("the lease was %+v and is %+v: an event would be skipped", before[0], after[0])
	}
	stopSecond()
}

// TestAnInstanceThatLeavesIsNotHeardOfAgain: the server carries out a heartbeat
// that it has begun, even when the instance was told to end meanwhile; it is
// waited for, or the instance would count as one of those that share the work.
func TestAnInstanceThatLeavesIsNotHeardOfAgain(t *testing.T) {
	t.Parallel()
	store, url := openStoreURL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), `
		CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN new; END';
		CREATE TRIGGER wait BEFORE INSERT ON consumer_members FOR EACH ROW EXECUTE FUNCTION wait_for_the_test()`)
	if err != nil {
		t.Fatal(err)
	}
	const ttl = time.Minute
	_, stop := consume(t, store, "leaving", consumers.Config{LeaseTTL: ttl, Clock: restless(ttl / 3)}, func(*message.Message) error { return nil })
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(42)`); err != nil {
		t.Fatal(err)
	}
	count := func(query string) (n int) {
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const waiting = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	until(t, "a heartbeat under way", func() bool { return count(waiting) > 0 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	select {
	case <-stopped:
	case <-time.After(time.Second): // it rightly waits for us
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_unlock(42)`); err != nil {
		t.Fatal(err)
	}
	<-stopped
	until(t, "the heartbeat's end", func() bool { return count(waiting) == 0 })
	time.Sleep(50 * time.Millisecond) // for its commit, where nobody waits for it
	if n := count(`SELECT count(*) FROM consumer_members`); n > 0 {
		t.Error("an instance that has left counts on")
	}
	if n := count(`SELECT count(*) FROM consumer_ranges WHERE owner IS NOT NULL`); n > 0 {
		t.Errorf("an instance that has left holds %d ranges", n)
	}
}

// restless is a clock on which one wait, that between two looks at the leases, is
// a short one.
type restless time.Duration

func (restless) Now() time.Time { return time.Now() }

func (r restless) AfterFunc(d time.Duration, f func()) func() bool {
	if d == time.Duration(r) {
		d = 50 * time.Millisecond
	}
	return time.AfterFunc(d, f).Stop
}

func TestInstancesShareAndTakeOver(t *testing.T) {
	store := openStore(t)
	// Leases that outlast any pause of a busy machine: where one runs out, the
	// change of hands is not an orderly one and events may well come again.
	const ttl = time.Minute
	cfg := consumers.Config{Ranges: 8, LeaseTTL: ttl, Flush: 20 * time.Millisecond, Backoff: quick, Clock: restless(ttl / 3)}
	var mu sync.Mutex
	by := map[string]int{}
	j := newJournal()
	handler := func(who string) message.NoPublishHandlerFunc {
		return func(msg *message.Message) error {
			stream, seq := streamOf(msg)
			j.enter(stream)
			mu.Lock()
			by[who]++
			mu.Unlock()
			j.leave(stream, seq, true)
			return nil
		}
	}
	_, stopA := consume(t, store, "share", cfg, handler("a"))
	newUsers(t, store, 100, 1)
	until(t, "the first instance to do it all", func() bool { return j.seen() == 200 })
	_, stopB := consume(t, store, "share", cfg, handler("b"))
	admin := consumers.NewAdmin(store)
	until(t, "an equal share", func() bool {
		leases, err := admin.Leases(t.Context(), "share")
		if err != nil {
			t.Fatal(err)
		}
		held := map[string]int{}
		for _, l := range leases {
			held[l.Owner]++
		}
		return len(held) == 2 && held[""] == 0 && held[leases[0].Owner] == 4
	})
	newUsers(t, store, 100, 1)
	until(t, "both to do it", func() bool { return j.seen() == 400 })
	mu.Lock()
	if by["b"] == 0 {
		t.Error("the second instance did nothing")
	}
	mu.Unlock()
	stopA()
	newUsers(t, store, 100, 1)
	until(t, "the second one alone", func() bool { return j.seen() == 600 })
	stopB()
	j.inOrder(t)
	if j.count() != 600 {
		t.Errorf("orderly changes of hands made %d events come again", j.count()-600)
	}
}
