package eventstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/pgtest"
)

func openLog(t *testing.T, url string) *Store {
	t.Helper()
	keys, err := CreateKeyring(filepath.Join(t.TempDir(), "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Config{URL: url, Keys: keys, Poll: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func appendEvents(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		_, err := s.Append(t.Context(), Append{
			Stream: fmt.Sprintf("user-%d", i), Org: "org", At: time.Unix(0, 0),
			Expected: Any, Events: []NewEvent{{Type: "A", Schema: 1}, {Type: "B", Schema: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestKnownHeadIsOutOfSight gives a store the head that a standby had shown
// before it was restarted and fell behind. No page may pass what is visible.
func TestKnownHeadIsOutOfSight(t *testing.T) {
	t.Parallel()
	s := openLog(t, pgtest.New(t))
	appendEvents(t, s, 10) // 20 events
	for name, c := range map[string]struct {
		q       Query
		through Position
	}{
		"the end":              {Query{After: 15, Limit: 3}, 18},
		"beyond the end":       {Query{After: 18, Limit: 3}, 20},
		"nothing there":        {Query{After: 20, Limit: 3}, 20},
		"ahead of what it has": {Query{After: 25, Limit: 3}, 25},
		"filtered":             {Query{After: 3, Types: []string{"A"}}, 20},
		"filtered, nothing":    {Query{After: 20, Types: []string{"A"}}, 20},
		"filtered, ahead":      {Query{After: 25, Types: []string{"A"}}, 25},
		"filtered, cut":        {Query{After: 3, Types: []string{"A"}, Limit: 2}, 7},
	} {
		s.watch.saw(30_000)
		page, err := s.ReadPage(t.Context(), c.q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Through != c.through {
			t.Errorf("%s: a page goes through %d, want %d", name, page.Through, c.through)
		}
	}
	s.watch.saw(30_000)
	if _, err := s.ReadPage(t.Context(), Query{After: 15}); err != nil {
		t.Fatal(err)
	}
	if known := s.watch.head(); known != 20 {
		t.Errorf("the log is still thought to reach to %d", known)
	}
}

// TestHoleStopsReaders takes an event away, as only a broken disk could.
func TestHoleStopsReaders(t *testing.T) {
	t.Parallel()
	url := pgtest.New(t)
	s := openLog(t, url)
	appendEvents(t, s, 10)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `ALTER TABLE events DISABLE TRIGGER ALL; DELETE FROM events WHERE (batch, idx) IN (
		SELECT e.batch, e.idx FROM events e JOIN batches b ON b.id = e.batch WHERE b.base + e.idx = 8)`); err != nil {
		t.Fatal(err)
	}
	if page, err := s.ReadPage(t.Context(), Query{Limit: 7}); err != nil || len(page.Events) != 7 {
		t.Errorf("before the hole: %d events, %v", len(page.Events), err)
	}
	if _, err := s.ReadPage(t.Context(), Query{After: 5, Limit: 10}); !errors.Is(err, ErrHole) {
		t.Errorf("a reader comes past a hole: %v", err)
	}
	if _, err := s.ReadPage(t.Context(), Query{After: 7, Limit: 1}); !errors.Is(err, ErrHole) {
		t.Errorf("a reader stands at a hole and is not told: %v", err)
	}
}
