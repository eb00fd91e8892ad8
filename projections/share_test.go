package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// instance is another instance with connections of its own, and a lease short
// enough to wait for. After kill it can neither work nor give anything back.
func (w *world) instance(t testing.TB, name string, models ...Model) (e *Engine, kill func()) {
	t.Helper()
	cfg := w.pool.Config()
	cfg.ConnConfig.RuntimeParams["application_name"] = name
	var dead atomic.Bool
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if dead.Load() {
			return errors.New("dead")
		}
		return nil
	}
	pool, err := openPoolWith(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	e = New(w.store, pool, models, Config{Instance: name, Logger: testLog(t), Batch: 200, WaitLimit: time.Minute, Lease: 800 * time.Millisecond})
	return e, func() {
		dead.Store(true)
		w.cut(t, `application_name = '`+name+`'`)
	}
}

// eventually fails the test unless a condition comes to hold.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to be that %s", what)
		}
	}
}

// owned tells how many ranges of the live version of users each owner holds.
func (w *world) owned(t testing.TB) map[string]int {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), `SELECT split_part(r.owner, '/', 1), count(*) FROM projection_ranges r JOIN projections p USING (name, version)
		WHERE p.name = 'users' AND p.state = 'live' AND r.lease_until >= now() GROUP BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int{}
	var owner string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&owner, &n}, func() error { held[owner] = n; return nil }); err != nil {
		t.Fatal(err)
	}
	return held
}

// shares reports whether exactly these instances hold exactly so many ranges,
// and believe so themselves.
func (w *world) shares(t testing.TB, want map[*Engine]int) func() bool {
	return func() bool {
		held, sum := w.owned(t), 0
		for e, n := range want {
			sum += n
			if held[e.cfg.Instance] != n || e.holds["users"].Load() != int64(n) {
				return false
			}
		}
		return sum == users.ranges()
	}
}

// Instances share a read model: each range is one's, and as many are as any
// other's, whoever comes, goes or dies; nothing is applied twice or passed over.
func TestInstancesShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	a, _ := w.instance(t, "a", users)
	b, killB := w.instance(t, "b", users)
	c, _ := w.instance(t, "c", users)
	run(t, a)
	eventually(t, "the only instance has all", w.shares(t, map[*Engine]int{a: 8}))
	w.do(t, userID(0), "org1", person(0)...)
	w.do(t, userID(1), "org1", person(1)...)
	tr := w.traffic(t, 2)
	run(t, b)
	eventually(t, "two have half each", w.shares(t, map[*Engine]int{a: 4, b: 4}))
	stopC := run(t, c)
	eventually(t, "three share", w.shares(t, map[*Engine]int{a: 3, b: 3, c: 2}))
	stopC()
	eventually(t, "two are left", w.shares(t, map[*Engine]int{a: 4, b: 4}))
	killB()
	eventually(t, "the other has taken over from the dead", func() bool { return w.owned(t)["a"] == 8 })
	tr.stop()
	w.settle(t, "users")
	if r := w.sound(t, "users"); r.Rows != int64(tr.imported) {
		t.Errorf("%d users, %d were imported", r.Rows, tr.imported)
	}
}

// The shares of any number of instances are all of the ranges, each once, in
// order; none has two more than another, and who came first is not left out.
func TestShares(t *testing.T) {
	for _, ranges := range []int{1, 2, 8, 64} {
		for instances := 1; instances < 70; instances++ {
			next, fewest, most := 0, ranges, 0
			for rank := range instances {
				from, to := shareOf(ranges, instances, rank)
				if from != next || to < from {
					t.Fatalf("%d ranges, %d instances: number %d has %d to %d, the one before ended at %d", ranges, instances, rank, from, to, next)
				}
				if rank == 0 && to == 0 {
					t.Errorf("%d ranges, %d instances: the first one has none", ranges, instances)
				}
				next, fewest, most = to, min(fewest, to-from), max(most, to-from)
			}
			if next != ranges || most > fewest+1 {
				t.Errorf("%d ranges, %d instances: %d are given out, from %d to %d each", ranges, instances, next, fewest, most)
			}
		}
	}
}

// inSlices returns the numbers of n users whose slices are in a range.
func inSlices(first, last int16, n int) (list []int) {
	for i := 0; len(list) < n; i++ {
		if s := eventstore.SliceOf(userID(i)); s >= first && s <= last {
			list = append(list, i)
		}
	}
	return list
}

// apart makes a world whose users have events in the first and the last range,
// with a session that holds all ranges but the last, and one that holds that.
func apart(t *testing.T) (w *world, low, high *session, firsts, lasts []int) {
	t.Helper()
	w = newWorld(t, users)
	if _, err := w.ensure(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	low, high = w.session(users, 1, "low"), w.session(users, 1, "high")
	all, err := low.partition(t.Context())
	if err != nil || len(all) != 8 {
		t.Fatalf("ranges: %v, %v", all, err)
	}
	for s, ranges := range map[*session][]int16{low: all[:7], high: all[7:]} {
		if n, err := s.take(t.Context(), ranges); err != nil || n != len(ranges) {
			t.Fatalf("taking %v: %d, %v", ranges, n, err)
		}
	}
	return w, low, high, inSlices(0, 127, 5), inSlices(896, 1023, 5)
}

// through brings a session to a position.
func (s *session) through(t testing.TB, p eventstore.Position) {
	t.Helper()
	if err := s.catchUp(t.Context(), slices.Repeat([]eventstore.Position{p}, len(s.spans)), nil); err != nil {
		t.Fatal(err)
	}
}

// A model has come to a position when each of its ranges has: whoever waits for
// it waits for the last.
func TestWaitsForTheLastRange(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	w.do(t, userID(firsts[0]), "org1", person(firsts[0])...)
	r := w.do(t, userID(lasts[0]), "org1", person(lasts[0])...)
	last := w.do(t, userID(firsts[0]), "org1", domain.UserLocked{}).Position
	low.through(t, last)
	high.through(t, r.Position-2) // in the middle of the second import
	w.cfg.WaitLimit = 30 * time.Millisecond
	err := w.WaitFor(t.Context(), "users", r.Position)
	var lag *LagError
	if domain.AsError(err).Kind != domain.KindDeadlineExceeded || !errors.As(err, &lag) || lag.Reached != r.Position-2 {
		t.Errorf("with a range behind: %v", err)
	}
	found, err := w.SearchUsers(t.Context(), InOrg("org1"), Search{})
	if err != nil || found.Position != r.Position-2 {
		t.Errorf("the answer is said to be as of %d, %v", found.Position, err)
	}
	list, err := w.Status(t.Context())
	if err != nil || list[0].Position != r.Position-2 || list[0].Lag != 3 || list[0].Ranges != 8 || list[0].Held != 8 || list[0].Owner != "high, low" {
		t.Errorf("status: %+v, %v", list, err)
	}
	w.sound(t, "users") // each range at its own position
	high.through(t, last)
	if err := w.WaitFor(t.Context(), "users", last); err != nil {
		t.Errorf("with all ranges there: %v", err)
	}
	w.sound(t, "users")
}

// Who has lost one of its ranges can write nothing in that transaction, not
// even to those that it still holds.
func TestOneLostRangeFencesTheWholeBatch(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	ctx := t.Context()
	high.release(ctx, none)
	if n, err := low.take(ctx, []int16{896}); err != nil || n != 1 || len(low.spans) != 8 {
		t.Fatalf("taking what is free: %d, %v", n, err)
	}
	for _, n := range []int{firsts[0], lasts[0]} {
		w.do(t, userID(n), "org1", person(n)...)
	}
	b, err := low.read(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// It sleeps, its lease on one range runs out, and another takes that.
	if _, err := w.pool.Exec(ctx, `UPDATE projection_ranges SET lease_until = now() - interval '1 second' WHERE first_slice = 896`); err != nil {
		t.Fatal(err)
	}
	if n, err := high.take(ctx, []int16{0, 896}); err != nil || n != 1 {
		t.Fatalf("taking what has run out: %d, %v", n, err)
	}
	if err := low.commit(ctx, b, nil); !errors.Is(err, errFenced) {
		t.Errorf("the batch of who lost a range: %v", err)
	}
	if _, err := low.attend(ctx); !errors.Is(err, errFenced) {
		t.Errorf("its renewal: %v", err)
	}
	var rows, moved int
	if err := w.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM read_models.users_v1), (SELECT count(*) FROM projection_ranges WHERE position > 0)`).
		Scan(&rows, &moved); err != nil || rows != 0 || moved != 0 {
		t.Errorf("%d rows, %d ranges moved, %v", rows, moved, err)
	}
	low.release(ctx, none) // gives up what it still has, and nothing of the other's
	if held := w.owned(t); held["high"] != 1 || len(held) != 1 {
		t.Errorf("after that the ranges are %v", held)
	}
	// Whoever takes the rest applies each event once.
	if n, err := high.take(ctx, []int16{0, 128, 256, 384, 512, 640, 768}); err != nil || n != 7 {
		t.Fatalf("taking the rest: %d, %v", n, err)
	}
	if err := high.commit(ctx, b, nil); err != nil {
		t.Fatal(err)
	}
	if r := w.sound(t, "users"); r.Rows != 2 {
		t.Errorf("%d rows", r.Rows)
	}
}

// Ranges that an instance takes over stand where their last owner left them,
// ahead or behind: each event is applied where it is missing and only there.
func TestRangesJoinAtTheirOwnPositions(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	ctx := t.Context()
	var head eventstore.Position
	for i := range 5 {
		w.do(t, userID(firsts[i]), "org1", person(firsts[i])...)
		head = w.do(t, userID(lasts[i]), "org1", person(lasts[i])...).Position
	}
	low.through(t, 13)
	high.through(t, 30)
	for _, at := range []struct{ into, from *session }{{low, high}, {high, low}} {
		at.from.release(ctx, none)
		if _, err := at.into.take(ctx, []int16{0, 128, 256, 384, 512, 640, 768, 896}); err != nil || len(at.into.spans) != 8 {
			t.Fatalf("holding %d, %v", len(at.into.spans), err)
		}
		if p := at.into.position(); p != 13 {
			t.Fatalf("it goes on from %d", p)
		}
	}
	if err := high.commit(ctx, &batch{after: 20, through: 21}, nil); !errors.Is(err, errAstray) {
		t.Errorf("a batch that does not join all checkpoints: %v", err)
	}
	high.through(t, head)
	w.sound(t, "users")
}

// A rebuild meets a live version whose ranges are not level: it compares each
// range where that is, and what goes live is behind in none; the same again
// for the version that a rollback brings back.
func TestSwitchWithRangesApart(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	ctx := t.Context()
	add := func(i int) (p eventstore.Position) {
		for _, n := range []int{firsts[i], lasts[i]} {
			p = w.do(t, userID(n), "org1", person(n)...).Position
		}
		return p
	}
	add(0)
	low.through(t, 8)
	high.through(t, 8)
	e := w.engine(t, users)
	e.cfg.Batch = 3 // so that the way up takes several batches
	moved := false
	result, err := e.Rebuild(ctx, "users", func(s Step) {
		if s.Phase == PhaseIndex && !moved { // the bulk phase went up to 8
			moved = true
			for i := 1; i < 4; i++ {
				add(i)
			}
			low.through(t, 18)
			high.through(t, 31)
		}
	})
	if err != nil || !result.Compared || len(result.Differing) != 0 || result.From != 1 || result.Position != 18 {
		t.Fatalf("rebuilding: %+v, %v", result, err)
	}
	w.sound(t, "users")
	if err := low.commit(ctx, &batch{after: 18, through: 19}, nil); !errors.Is(err, errFenced) {
		t.Errorf("writing to a retired version: %v", err)
	}
	if n, err := w.session(users, 1, "late").take(ctx, []int16{0}); err != nil || n != 0 {
		t.Errorf("of a retired version %d ranges were had, %v", n, err)
	}
	// The new version moves on, unevenly too; the old one stays at 18 and 31.
	next := w.session(users, 2, "next")
	if n, err := next.take(ctx, []int16{0, 128}); err != nil || n != 2 {
		t.Fatalf("taking ranges of the new version: %d, %v", n, err)
	}
	head := add(4)
	next.through(t, head)
	result, err = e.Rollback(ctx, "users", nil)
	if err != nil || result.Version != 1 {
		t.Fatalf("rolling back: %+v, %v", result, err)
	}
	w.sound(t, "users")
	run(t, e)
	w.settle(t, "users")
	if r := w.sound(t, "users"); r.Rows != 10 {
		t.Errorf("%d rows", r.Rows)
	}
}

// A candidate with one range behind the live version's is not switched to,
// whatever its other ranges have.
func TestSwitchWantsEveryRange(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	ctx := t.Context()
	w.do(t, userID(firsts[0]), "org1", person(firsts[0])...)
	head := w.do(t, userID(lasts[0]), "org1", person(lasts[0])...).Position
	low.through(t, head)
	high.through(t, head)
	version, err := w.candidate(ctx, users)
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.build(ctx, users, version, "builder")
	if err != nil {
		t.Fatal(err)
	}
	targets := slices.Repeat([]eventstore.Position{head}, 8)
	targets[7] = head - 1
	if err := s.catchUp(ctx, targets, nil); err != nil {
		t.Fatal(err)
	}
	try := func(want int64) {
		t.Helper()
		tx, err := w.pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }()
		if _, err := tx.Exec(ctx, `UPDATE projections SET state = 'retired' WHERE name = 'users' AND version = 1`); err != nil {
			t.Fatal(err)
		}
		tag, err := tx.Exec(ctx, sqlSwitch, "users", version, s.token, 1, []int16{})
		if err != nil || tag.RowsAffected() != want {
			t.Errorf("%d versions are switched to, %v; want %d", tag.RowsAffected(), err, want)
		}
	}
	try(0)
	s.through(t, head)
	try(1)
}

// After a failover that lost some of the log, a range that is past the fork
// stands still and says why, and the others could go on. A rebuild puts a
// version of the present history in its place; the lost one does not come back.
func TestRangesOfALostHistory(t *testing.T) {
	t.Parallel()
	w, low, high, firsts, lasts := apart(t)
	ctx := t.Context()
	w.do(t, userID(firsts[0]), "org1", person(firsts[0])...)
	head := w.do(t, userID(lasts[0]), "org1", person(lasts[0])...).Position
	low.through(t, 4)
	high.through(t, head)
	low.release(ctx, none)
	high.release(ctx, none)
	// What is there from position 7 on is another history than what was.
	if _, err := w.pool.Exec(ctx, `INSERT INTO epochs (epoch, system_identifier, timeline, first_position)
		SELECT epoch + 1, system_identifier, timeline + 1, 7 FROM epochs ORDER BY epoch DESC LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log is known to have another history", func() bool { return w.store.Epoch() == 3 })
	var fork *eventstore.ForkError
	if _, err := high.take(ctx, []int16{896}); !errors.As(err, &fork) || fork.Fork != 7 {
		t.Errorf("going on past the fork: %v", err)
	}
	high.release(ctx, none)
	list, err := w.Status(ctx)
	if err != nil || !strings.Contains(list[0].Problem, "7") {
		t.Errorf("what stands still says: %+v, %v", list, err)
	}
	if n, err := low.take(ctx, []int16{0, 128, 256, 384, 512, 640, 768}); err != nil || n != 7 || low.spans[0].epoch != 3 {
		t.Errorf("going on from before the fork: %d, %v, %+v", n, err, low.spans)
	}
	low.through(t, head)
	// Its checkpoint says 8, of a history in which 8 was another event.
	w.cfg.WaitLimit = 30 * time.Millisecond
	var lag *LagError
	if err := w.WaitFor(ctx, "users", head); !errors.As(err, &lag) || lag.Reached != 6 {
		t.Errorf("waiting for what the lost history had there: %v", err)
	}
	if list, err = w.Status(ctx); err != nil || list[0].Lag != 2 {
		t.Errorf("status: %+v, %v", list, err)
	}
	w.cfg.WaitLimit = time.Minute
	low.release(ctx, none)

	// Nobody needs to come up with what is lost, even where that was further
	// than the log is now.
	if _, err := w.pool.Exec(ctx, `UPDATE projection_ranges SET position = 1000 WHERE first_slice = 896`); err != nil {
		t.Fatal(err)
	}
	result, err := w.Rebuild(ctx, "users", nil)
	if err != nil || result.Compared || result.Version != 2 || result.Position != head {
		t.Fatalf("rebuilding: %+v, %v", result, err)
	}
	if _, err := w.Rollback(ctx, "users", nil); !errors.As(err, &fork) {
		t.Errorf("going back to the lost history: %v", err)
	}
	// A candidate whose history was lost on the way is begun anew.
	version, err := w.candidate(ctx, users)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(ctx, `UPDATE projection_ranges SET epoch = 1, position = 8 WHERE version = $1`, version); err != nil {
		t.Fatal(err)
	}
	result, err = w.Rebuild(ctx, "users", nil)
	if err != nil || result.Version != version || result.From != 2 || result.Events != 8 {
		t.Errorf("rebuilding with a candidate of the lost history: %+v, %v", result, err)
	}
	run(t, w.Engine)
	w.do(t, userID(lasts[1]), "org1", person(lasts[1])...)
	w.settle(t, "users")
	if r := w.sound(t, "users"); r.Rows != 3 {
		t.Errorf("%d rows", r.Rows)
	}
}

// Two instances at work under load, one of them killed: nothing twice, nothing
// missing, in any model.
func TestKilledInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.instance(t, "a", Models()...)
	b, kill := w.instance(t, "b", Models()...)
	run(t, a)
	run(t, b)
	eventually(t, "both are at work", w.shares(t, map[*Engine]int{a: 4, b: 4}))
	const workers = 8
	each := imports(t) / 4 / workers
	var group sync.WaitGroup
	dying := sync.OnceFunc(func() { group.Go(kill) })
	for k := range workers {
		group.Go(func() {
			for i := range each {
				n := k*each + i
				if _, err := w.try(userID(n), "org1", person(n)...); err != nil {
					t.Errorf("user %d: %v", n, err)
				}
				if _, err := w.try(userID(n), "org1", domain.PasskeyAdded{CredentialID: []byte{1}}, domain.IDPLinked{ConfigID: "c", ExternalUserID: fmt.Sprint(n)}); err != nil {
					t.Errorf("user %d: %v", n, err)
				}
				if i == each/2 {
					dying()
				}
			}
		})
	}
	group.Wait()
	for _, m := range Models() {
		w.settle(t, m.Name())
		w.sound(t, m.Name())
	}
	var wrong int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM read_models.users_v1 WHERE passkeys <> 1 OR sequence <> 6`).Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d users have an event twice or not at all, %v", wrong, err)
	}
	if counts, _, err := w.Counts(t.Context(), Everywhere()); err != nil || len(counts) != 1 || counts[0].Users != int64(workers*each) {
		t.Errorf("counted: %v, %v", counts, err)
	}
	eventually(t, "the other has all ranges", func() bool { return w.owned(t)["a"] == 8 })
}

// unable is a model of a program that cannot write it.
type unable struct{ *model[userRow] }

func (*unable) apply(context.Context, *pgconn.PgConn, int, []fact, map[string]bool, bool) ([]failure, error) {
	return nil, errors.New("it cannot be done here")
}

// An instance that cannot do its share steps back, and the others do it.
func TestTheOthersDoWhatOneCannot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	a, _ := w.instance(t, "a", users)
	b, _ := w.instance(t, "b", &unable{users})
	b.cfg.Lease = time.Minute // so that it is not taken for dead
	run(t, a)
	run(t, b)
	eventually(t, "both are at work", w.shares(t, map[*Engine]int{a: 4, b: 4}))
	for i := range 40 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.cfg.WaitLimit = 20 * time.Second
	w.settle(t, "users")
	if r := w.sound(t, "users"); r.Rows != 40 {
		t.Errorf("%d rows", r.Rows)
	}
}
