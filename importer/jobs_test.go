package importer

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/pgtest"
	"github.com/muster-id/muster/migrations"
)

// Processes that come to the end of a job at once, as they can when the job's
// lock went with its connection, say it once between them.
func TestConcludeSaysItOnce(t *testing.T) {
	t.Parallel()
	keys, err := eventstore.CreateKeyring(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: pgtest.New(t), Role: migrations.ServiceRole, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(t.Context())
	jobs := NewJobs(&Importer{Store: store, Now: time.Now}, nil)
	const processes = 6
	runs := make([]*Run, processes)
	for i := range runs {
		runs[i] = &Run{jobs: jobs, id: "j", caller: Caller{ID: "me", Org: "org-1"}}
	}
	if err := runs[0].event(t.Context(), eventstore.NoStream, domain.ImportStarted{OnConflict: "fail", Notify: "none"}); err != nil {
		t.Fatal(err)
	}
	for end, e := range []domain.Event{domain.ImportFinished{Created: 1}, domain.ImportFinished{Created: 2}, domain.ImportUndone{Removed: 2}} {
		var group sync.WaitGroup
		for _, r := range runs {
			group.Go(func() {
				if err := r.conclude(t.Context(), time.Now(), e); err != nil {
					t.Errorf("concluding: %v", err)
				}
			})
		}
		group.Wait()
		events, err := store.ReadStream(t.Context(), domain.ImportStream("j"), 0)
		if err != nil || len(events) != end+2 || events[end+1].Type != e.Type() {
			t.Fatalf("after %d ends the stream has %d events, %v", end+1, len(events), err)
		}
	}
}
