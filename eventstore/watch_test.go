package eventstore

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/pgtest"
)

func TestGrowth(t *testing.T) {
	t.Parallel()
	var g growth
	begin := time.Unix(1_000, 0)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	check := func(ms int, want float64) {
		t.Helper()
		if got := g.now(at(ms)); got != want {
			t.Errorf("after %d ms: %v events a second, want %v", ms, got, want)
		}
	}
	check(0, 0)
	g.reached(1_000_000, at(0)) // a process that comes to an old log
	check(0, 0)
	for ms := 10; ms <= 500; ms += 10 {
		g.reached(1_000_000+Position(20*ms), at(ms))
	}
	check(500, 20_000)
	check(900, 20_000) // a disk that takes its time
	g.reached(1_018_000, at(900))
	check(900, 20_000)
	check(1_401, 0) // it stands still
	g.reached(2_000_000, at(5_000))
	check(5_000, 0) // nobody looked: it may have grown at any time since
	for ms := 5_010; ms <= 5_250; ms += 10 {
		g.reached(2_000_000+Position(ms-5_000), at(ms))
	}
	check(5_250, 1_000)
}

// TestGrowthOfALog: a store knows what itself and others append, and forgets
// what it knew when the log turns out to be shorter.
func TestGrowthOfALog(t *testing.T) {
	t.Parallel()
	s := openLog(t, pgtest.New(t))
	for deadline := time.Now().Add(20 * time.Second); s.Growth() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the log grows and is not seen to")
		}
		appendEvents(t, s, 1)
	}
	s.watch.recede(0)
	if g := s.Growth(); g != 0 {
		t.Errorf("%v events a second of a log that is shorter than it was", g)
	}
}

// TestNews: an instance hears from another how far the log reaches, without
// looking for itself; and what it hears from a stranger does no harm.
func TestNews(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	writer, other := openLog(t, url), openLog(t, url) // they look once an hour
	appendEvents(t, writer, 1)
	wait := func(after Position) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := other.Wait(ctx, after); err != nil {
			t.Fatalf("it has not heard of what is beyond %d: %v", after, err)
		}
	}
	wait(1)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, payload := range []string{"", "'nothing to read'", "'-3'", "'9223372036854775807'"} {
		if payload != "" {
			payload = ", " + payload
		}
		if _, err := conn.Exec(t.Context(), "NOTIFY "+channelHead+payload); err != nil {
			t.Fatal(err)
		}
	}
	wait(1 << 40) // it believes the last one
	page, err := other.ReadPage(t.Context(), Query{After: 2})
	if err != nil || page.Through != 2 || len(page.Events) != 0 {
		t.Fatalf("behind the end it reads up to %d, %d events, %v", page.Through, len(page.Events), err)
	}
	if head := other.watch.head(); head != 2 {
		t.Errorf("having looked, it takes %d for the end", head)
	}
	appendEvents(t, writer, 2)
	wait(3)
	events, err := other.Read(t.Context(), Query{After: 2})
	if err != nil || len(events) == 0 || events[0].Position != 3 {
		t.Errorf("it reads %d events, %v", len(events), err)
	}
}

// TestALaneIsReadCommitted, whatever the database's default: a flush of one round
// trip begins no transaction that could say so.
func TestALaneIsReadCommitted(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	name := pgx.Identifier{conn.Config().Database}.Sanitize()
	if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+name+" SET default_transaction_isolation = 'serializable'"); err != nil {
		t.Fatal(err)
	}
	l := &lane{store: openLog(t, url)}
	defer l.disconnect()
	if err := l.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	var level string
	if err := l.conn.QueryRow(t.Context(), "SHOW transaction_isolation").Scan(&level); err != nil || level != "read committed" {
		t.Errorf("a lane's transactions are %q, %v", level, err)
	}
}
