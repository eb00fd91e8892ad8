package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// P1: whatever breaks off a batch, rows and checkpoint stay together.
func TestRowsAndCheckpointChangeTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	ctx := t.Context()
	if _, err := w.ensure(ctx, users); err != nil {
		t.Fatal(err)
	}
	s, err := w.acquire(ctx, users, 1, "a")
	if err != nil {
		t.Fatal(err)
	}
	state := func() (rows, position int64) {
		t.Helper()
		err := w.pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM read_models.users_v1), min(position) FROM projection_ranges WHERE name = 'users'`).Scan(&rows, &position)
		if err != nil {
			t.Fatal(err)
		}
		return rows, position
	}
	for i := range 3 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	b, err := s.read(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Break the transaction behind the checkpoint, and behind the rows.
	for _, table := range []string{"users_v1", "users_v1_counts"} {
		broken := []string{"ALTER TABLE read_models." + table + " RENAME TO away", "ALTER TABLE read_models.away RENAME TO " + table}
		if _, err := w.pool.Exec(ctx, broken[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.commit(ctx, b, nil); err == nil {
			t.Fatal("the batch went through without its table")
		}
		if _, err := w.pool.Exec(ctx, broken[1]); err != nil {
			t.Fatal(err)
		}
		if rows, position := state(); rows != 0 || position != 0 {
			t.Fatalf("without %s: %d rows at position %d", table, rows, position)
		}
	}
	if err := s.commit(ctx, b, nil); err != nil {
		t.Fatal(err)
	}
	if rows, position := state(); rows != 3 || position != 12 {
		t.Fatalf("%d rows at position %d", rows, position)
	}
	if err := s.commit(ctx, b, nil); err != nil { // nothing of it is left to do
		t.Fatal(err)
	}
	for i := range s.spans { // and who believes otherwise is stopped
		s.spans[i].position = 0
	}
	if err := s.commit(ctx, b, nil); !errors.Is(err, errFenced) {
		t.Fatalf("the same batch again: %v", err)
	}
	if rows, position := state(); rows != 3 || position != 12 {
		t.Fatalf("after that, %d rows at position %d", rows, position)
	}
	// A checkpoint of another history is not the one that was read.
	for i := range s.spans {
		s.spans[i].position, s.spans[i].epoch = 12, s.spans[i].epoch+1
	}
	if err := s.commit(ctx, &batch{after: 12, through: 13}, nil); !errors.Is(err, errFenced) {
		t.Fatalf("on a checkpoint of another history: %v", err)
	}
}

// Connections are cut at random moments while users come and change; nothing
// is applied twice or passed over.
func TestSurvivesCutConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users, idpLinks)
	run(t, w.Engine)
	ctx, cancel := context.WithCancel(t.Context())
	var cutter sync.WaitGroup
	cuts := 0
	cutter.Go(func() {
		for sleep(ctx, 40*time.Millisecond) == nil {
			// Only the projection's transactions: the store's own recovery is
			// tested where it lives.
			cuts += w.cut(t, `query ~ 'read_models|UPDATE projection_ranges|projection_stopped'`)
		}
	})
	for i := range 400 {
		w.do(t, userID(i), "org1", person(i)...)
		if i%3 == 0 {
			w.do(t, userID(i/2), "org1", domain.UserLocked{}, domain.IDPLinked{ConfigID: "c", ExternalUserID: fmt.Sprint(i)})
		}
	}
	cancel()
	cutter.Wait()
	if cuts == 0 {
		t.Error("no connection was cut")
	}
	t.Logf("%d connections were cut", cuts)
	w.settle(t, "users", "idp_links")
	w.sound(t, "users")
	w.sound(t, "idp_links")
}

// An event of a type that the program does not know, or of a schema, stops the
// rows of its stream in every model that has some of that stream, and says so:
// also where only a few types matter. Other models, and streams, go on.
func TestUnknownEventsStopEveryModelOfTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	run(t, w.Engine)
	org, job := domain.OrganisationStream("org1"), domain.ImportStream("j")
	w.do(t, org, "org1", domain.OrganisationAdded{Name: "One"})
	w.do(t, job, "org1", domain.ImportStarted{OnConflict: "fail", Notify: "none"})
	for i := range 3 {
		w.do(t, userID(i), "org1", append(person(i), domain.IDPLinked{ConfigID: "c", ExternalUserID: fmt.Sprint(i)})...)
	}
	stranger := func(stream, typ string, schema int16) {
		t.Helper()
		if _, err := w.store.Append(t.Context(), eventstore.Append{Stream: stream, Org: "org1", Actor: "a", Expected: eventstore.Any, At: epochTime,
			Events: []eventstore.NewEvent{{Type: typ, Schema: schema}}}); err != nil {
			t.Fatal(err)
		}
	}
	stranger(userID(0), "IDPLinkRenamed", 1)
	stranger(userID(1), domain.TypeIDPLinkRemoved, 2)
	stranger(userID(2), domain.TypeUserLocked, 2) // no link depends on it, whatever it says
	stranger(org, "OrganisationMerged", 1)
	stranger(job, domain.TypeImportFinished, 2)
	want := map[string][]string{"users": {userID(0), userID(1), userID(2)}, "idp_links": {userID(0), userID(1)}, "organisations": {org}, "import_jobs": {job}}
	for version := 1; version <= 2; version++ { // live, and rebuilt
		for _, m := range Models() {
			w.settle(t, m.Name())
			list, err := w.Stopped(t.Context(), m.Name(), 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range list {
				got = append(got, s.Stream)
				if !strings.Contains(s.Reason, "unknown event") || s.Version != version {
					t.Errorf("%s: stopped for %q in version %d", m.Name(), s.Reason, s.Version)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want[m.Name()]) {
				t.Errorf("%s, version %d: stopped are %v, want %v", m.Name(), version, got, want[m.Name()])
			}
			if _, err := w.Rebuild(t.Context(), m.Name(), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Who holds a stopped stream's range tries it again, and nobody else; after
// some attempts nobody does, until an operator says so.
func TestStoppedStreamsAreRetriedByTheirOwner(t *testing.T) {
	t.Parallel()
	w, low, high, _, lasts := apart(t)
	ctx := t.Context()
	id := userID(lasts[0])
	head := w.do(t, id, "org1", person(lasts[0])...).Position
	b, err := high.read(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.facts[2].err = errors.New("for once")
	if err := high.commit(ctx, b, nil); err != nil {
		t.Fatal(err)
	}
	low.through(t, head)
	due := func(s *session) int {
		t.Helper()
		if _, err := w.pool.Exec(ctx, `UPDATE projection_stopped SET retry_at = now() - interval '1 second' WHERE retry_at IS NOT NULL`); err != nil {
			t.Fatal(err)
		}
		if err := s.retryDue(ctx); err != nil {
			t.Fatal(err)
		}
		list, err := w.Stopped(ctx, "users", 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if due(low) != 1 {
		t.Error("another range's owner has retried the stream")
	}
	if due(high) != 0 {
		t.Error("the range's owner has not retried the stream")
	}
	w.sound(t, "users")
	// One that fails for good.
	if _, err := w.store.Append(ctx, eventstore.Append{Stream: id, Org: "org1", Actor: "a", Expected: eventstore.Any, At: epochTime,
		Events: []eventstore.NewEvent{{Type: "UserPromoted", Schema: 1}}}); err != nil {
		t.Fatal(err)
	}
	high.through(t, head+1)
	for attempts := 1; ; attempts++ {
		list, err := w.Stopped(ctx, "users", 10)
		if err != nil || len(list) != 1 || list[0].Attempts != attempts || list[0].RetryAt.IsZero() != (attempts == 5) {
			t.Fatalf("after %d attempts: %+v, %v", attempts, list, err)
		}
		if attempts == 5 {
			break
		}
		due(high)
	}
	due(high)
	if list, err := w.Stopped(ctx, "users", 10); err != nil || list[0].Attempts != 5 {
		t.Errorf("nobody was to try again: %+v, %v", list, err)
	}
}

// An event that nobody can read stops its stream and delays no other; once it
// can be read the stream goes on as if nothing had been.
func TestPoisonStopsOneStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	stop := run(t, w.Engine)
	w.do(t, userID(1), "org1", person(1)...)
	// A later program's event, in the middle of a batch with others.
	_, err := w.store.Append(t.Context(), eventstore.Append{Stream: userID(1), Org: "org1", Actor: "a", Expected: eventstore.Any, At: epochTime,
		Events: []eventstore.NewEvent{{Type: "UserPromoted", Schema: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	w.do(t, userID(1), "org1", domain.UserLocked{})
	// A row that the database refuses: only its own stream stops.
	w.do(t, userID(2), "org1", person(2)...)
	w.do(t, userID(2), "org1", domain.UsernameChanged{UserName: "nul\x00"})
	for i := 3; i < 40; i++ {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users")
	for i := 3; i < 40; i++ {
		if _, _, err := w.UserByLoginName(t.Context(), InOrg("org1"), fmt.Sprintf("user%d", i)); err != nil {
			t.Fatalf("user %d, beside the poison: %v", i, err)
		}
	}
	list, err := w.Stopped(t.Context(), "users", 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("stopped: %+v, %v", list, err)
	}
	in, err := w.Inspect(t.Context(), "users", userID(1))
	if err != nil || in.Sequence != 5 || in.Type != "UserPromoted" || in.Waiting != 1 {
		t.Fatalf("inspecting: %+v, %v", in, err)
	}
	got, _, err := w.UserByLoginName(t.Context(), InOrg("org1"), "user1")
	if err != nil || got.Sequence != 4 || got.State != domain.StateActive {
		t.Fatalf("the stopped user is %+v, %v", got, err)
	}
	if err := w.Retry(t.Context(), "users", userID(1)); domain.AsError(err).Kind != domain.KindFailedPrecondition {
		t.Fatalf("retrying too early: %v", err)
	}
	if err := w.Retry(t.Context(), "users", userID(9)); !errors.Is(err, ErrNotStopped) {
		t.Fatalf("retrying a stream that is well: %v", err)
	}
	// A rebuild stops at the same events, and says so.
	result, err := w.Rebuild(t.Context(), "users", nil)
	if err != nil || result.Stopped != 2 {
		t.Fatalf("rebuilding: %+v, %v", result, err)
	}
	stop()

	// The program that knows the event takes over.
	learned := *users
	learned.fold = func(rows []userRow, ev *eventstore.Event, e domain.Event) ([]userRow, error) {
		if ev.Type == "UserPromoted" {
			rows[0].sequence++
			return rows, nil
		}
		return foldUser(rows, ev, e)
	}
	e := w.engine(t, &knowing{&learned})
	run(t, e)
	if err := e.Retry(t.Context(), "users", userID(1)); err != nil {
		t.Fatalf("retrying with a program that knows the event: %v", err)
	}
	w.do(t, userID(1), "org1", domain.UserUnlocked{}, domain.UserDeactivated{})
	w.settle(t, "users")
	got, _, err = w.UserByLoginName(t.Context(), InOrg("org1"), "user1")
	if err != nil || got.Sequence != 8 || got.State != domain.StateInactive {
		t.Fatalf("after the retry the user is %+v, %v", got, err)
	}
}

// knowing is a model of a program that knows one more event.
type knowing struct{ *model[userRow] }

func (k *knowing) apply(ctx context.Context, conn *pgconn.PgConn, version int, facts []fact, skip map[string]bool, isolate bool) ([]failure, error) {
	return k.model.apply(ctx, conn, version, k.know(facts), skip, isolate)
}

func (k *knowing) replace(ctx context.Context, conn *pgconn.PgConn, version int, stream string, facts []fact) (*failure, error) {
	return k.model.replace(ctx, conn, version, stream, k.know(facts))
}

func (k *knowing) know(facts []fact) []fact {
	for i := range facts {
		if facts[i].ev.Type == "UserPromoted" {
			facts[i].err = nil
		}
	}
	return facts
}

// Two instances: one works, the other takes over when it dies; whoever was
// pushed out cannot write any more.
func TestOneOwnerAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	ctx := t.Context()
	if _, err := w.ensure(ctx, users); err != nil {
		t.Fatal(err)
	}
	old, err := w.acquire(ctx, users, 1, "old")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.acquire(ctx, users, 1, "new"); !errors.Is(err, errBusy) {
		t.Fatalf("a held lease: %v", err)
	}
	w.do(t, userID(1), "org1", person(1)...)
	b, err := old.read(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The old owner falls silent, and wakes up when another has the lease.
	if _, err := w.pool.Exec(ctx, `UPDATE projection_ranges SET lease_until = now() - interval '1 second'`); err != nil {
		t.Fatal(err)
	}
	next, err := w.acquire(ctx, users, 1, "new")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.commit(ctx, b, nil); !errors.Is(err, errFenced) {
		t.Errorf("the old owner's batch: %v", err)
	}
	if _, err := old.attend(ctx); !errors.Is(err, errFenced) {
		t.Errorf("the old owner's renewal: %v", err)
	}
	if err := next.commit(ctx, b, nil); err != nil {
		t.Errorf("the new owner's batch: %v", err)
	}
	w.sound(t, "users")
}

// A retry applies a stream up to the checkpoint and no further: what lies
// beyond comes with the next batch, once.
func TestRetryStopsAtTheCheckpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	ctx := t.Context()
	if _, err := w.ensure(ctx, users); err != nil {
		t.Fatal(err)
	}
	s, err := w.acquire(ctx, users, 1, "a")
	if err != nil {
		t.Fatal(err)
	}
	w.do(t, userID(1), "org1", person(1)...)
	b, err := s.read(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.facts[1].err = errors.New("for once")
	if err := s.commit(ctx, b, nil); err != nil {
		t.Fatal(err)
	}
	w.do(t, userID(1), "org1", domain.UserLocked{}, domain.PasskeyAdded{CredentialID: []byte{1}})
	if err := w.Retry(ctx, "users", userID(1)); err != nil {
		t.Fatal(err)
	}
	if u, _, err := w.UserByLoginName(ctx, Everywhere(), "user1"); err != nil || u.Sequence != 4 {
		t.Fatalf("after the retry: %+v, %v", u, err)
	}
	if err := s.catchUp(ctx, slices.Repeat([]eventstore.Position{6}, len(s.spans)), nil); err != nil {
		t.Fatal(err)
	}
	if u, _, err := w.UserByLoginName(ctx, Everywhere(), "user1"); err != nil || u.Sequence != 6 || u.Passkeys != 1 {
		t.Fatalf("after the next batch: %+v, %v", u, err)
	}
	w.sound(t, "users")
}

func TestTakesOverFromTheDead(t *testing.T) {
	w := newWorld(t, users)
	dying, cancel := context.WithCancel(t.Context())
	// An owner whose process dies gives nothing back: its lease has to run out.
	if _, err := w.ensure(dying, users); err != nil {
		t.Fatal(err)
	}
	if _, err := w.acquire(dying, users, 1, "dying"); err != nil {
		t.Fatal(err)
	}
	cancel()
	died := time.Now()
	a, b := w.engine(t, users), w.engine(t, users)
	stopA, stopB := run(t, a), run(t, b)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	if took := time.Since(died); took > 5*time.Second {
		t.Errorf("nobody took over for %v", took)
	}
	// Whichever it is, the other one goes on when it stops.
	for i, stop := range []func(){stopA, stopB} {
		if i == 1 {
			run(t, w.engine(t, users))
		}
		stop()
		w.do(t, userID(10+i), "org1", person(10+i)...)
		w.settle(t, "users")
	}
	w.sound(t, "users")
}

// A read by id sees what was just appended, however far behind the rows are;
// other reads do once they have waited for the position.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	if _, err := w.UserByID(t.Context(), InOrg("org1"), userID(1)); !errors.Is(err, ErrUserNotFound) {
		t.Fatalf("before anything: %v", err)
	}
	w.do(t, userID(1), "org1", person(1)...)
	got, err := w.UserByID(t.Context(), InOrg("org1"), userID(1)) // nothing runs, no table is there
	if err != nil || got.Sequence != 4 || got.UserName != "user1" {
		t.Fatalf("without a read model: %+v, %v", got, err)
	}
	stop := run(t, w.Engine)
	for i := 2; i < 100; i++ {
		r := w.do(t, userID(i), "org1", person(i)...)
		if got, err := w.UserByID(t.Context(), InOrg("org1"), userID(i)); err != nil || got.Sequence != 4 {
			t.Fatalf("user %d by id: %+v, %v", i, got, err)
		}
		if err := w.WaitFor(t.Context(), "users", r.Position); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.UserByLoginName(t.Context(), InOrg("org1"), fmt.Sprintf("USER%d", i)); err != nil {
			t.Fatalf("user %d by login name: %v", i, err)
		}
	}
	stop()
	r := w.do(t, userID(50), "org1", domain.UserLocked{})
	if got, err := w.UserByID(t.Context(), InOrg("org1"), userID(50)); err != nil || got.State != domain.StateLocked {
		t.Fatalf("behind: %+v, %v", got, err)
	}
	w.cfg.WaitLimit = 50 * time.Millisecond
	err = w.WaitFor(t.Context(), "users", r.Position)
	var lag *LagError
	if domain.AsError(err).Kind != domain.KindDeadlineExceeded || !errors.As(err, &lag) || lag.Wanted != r.Position || lag.Reached != r.Position-1 {
		t.Errorf("waiting for what does not come: %v", err)
	}
}

func TestTimeTravel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	first := w.do(t, userID(1), "org1", person(1)...)
	second := w.do(t, userID(1), "org1", domain.UsernameChanged{UserName: "renamed"}, domain.UserLocked{})
	w.do(t, userID(1), "org1", domain.UserRemoved{})
	if _, err := w.UserByID(t.Context(), InOrg("org1"), userID(1)); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("now: %v", err)
	}
	if _, err := w.UserAsOf(t.Context(), InOrg("org1"), userID(1), first.Position-4); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("before the import: %v", err)
	}
	if u, err := w.UserAsOf(t.Context(), InOrg("org1"), userID(1), first.Position); err != nil || u.UserName != "user1" {
		t.Errorf("after the import: %+v, %v", u, err)
	}
	if u, err := w.UserAsOf(t.Context(), InOrg("org1"), userID(1), second.Position-1); err != nil || u.UserName != "renamed" || u.State != domain.StateActive {
		t.Errorf("within the second append: %+v, %v", u, err)
	}
	if u, err := w.UserAtTime(t.Context(), InOrg("org1"), userID(1), second.At); err != nil || u.State != domain.StateLocked {
		t.Errorf("at the time of the second append: %+v, %v", u, err)
	}
	if _, err := w.UserAsOf(t.Context(), InOrg("org2"), userID(1), first.Position); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("another organisation: %v", err)
	}
}
