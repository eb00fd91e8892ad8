package handlers_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/importer"
)

// importEvents are the types of a job's events, in order.
func (s *system) importEvents(t *testing.T, job string) string {
	t.Helper()
	events, err := s.store.ReadStream(t.Context(), domain.ImportStream(job), 0)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for i := range events {
		types = append(types, events[i].Type)
	}
	return strings.Join(types, " ")
}

// imports waits until the read model has all that is in the log, and returns
// the jobs of an organisation by id, as the list has them.
func (s *system) imports(t *testing.T, headers ...string) map[string]map[string]any {
	t.Helper()
	if err := s.deps.Projections.WaitFor(t.Context(), "import_jobs", s.head(t)); err != nil {
		t.Fatal(err)
	}
	list, _ := s.rest(t, "GET", "/v1/imports", "", headers...).raw["result"].([]any)
	jobs := map[string]map[string]any{}
	for _, e := range list {
		job, _ := e.(map[string]any)
		id, _ := job["id"].(string)
		jobs[id] = job
		one, _ := s.rest(t, "GET", "/v1/imports/"+id, "", headers...).raw["import"].(map[string]any)
		delete(one, "waitingForOldSystem")
		for k, v := range job {
			if k != "forecast" && one[k] != v {
				t.Errorf("job %s: %s is %v in the list and %v by id", id, k, v, one[k])
			}
		}
	}
	if len(jobs) != len(list) {
		t.Errorf("the list has %d jobs, of %d ids", len(list), len(jobs))
	}
	return jobs
}

func (s *system) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.store.Pool().Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// What the log has of an import is in the list; what it is doing at the moment
// comes from the importer's own rows, and whatever is the younger counts.
func TestImportsAreListedFromTheLog(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	lines := people(1, 3) + "{}\n"
	s.bulk(t, s.http, "jobId=real", strings.NewReader(lines))
	s.bulk(t, s.http, "jobId=dry&dryRun=true", strings.NewReader(people(4, 5)))
	s.bulk(t, s.http, "jobId=theirs", strings.NewReader(people(6, 6)), "x-zitadel-orgid", "org-2")
	want := func(job map[string]any, state string, created, failed float64) {
		t.Helper()
		if job["state"] != state || job["created"] != created || job["failed"] != failed || job["resourceOwner"] != "org-1" || job["startedAt"] == "" {
			t.Errorf("the job is %v", job)
		}
	}
	jobs := s.imports(t)
	if len(jobs) != 2 || jobs["dry"]["dryRun"] != true {
		t.Errorf("the jobs are %v", jobs)
	}
	want(jobs["real"], "finished", 3, 1)
	if j := jobs["real"]; j["lines"] != 4.0 || j["finishedAt"] == nil || j["actor"] == "" || j["seconds"] == 0.0 || j["remoteAddress"] == "" {
		t.Errorf("the job is %v", j)
	}
	if a := s.rest(t, "GET", "/v1/imports/theirs", ""); a.HTTP != 404 {
		t.Errorf("another organisation's job: %s", a.Body)
	}

	// It goes on with more lines: what it has come to is not in the log yet.
	s.exec(t, `UPDATE import_jobs SET state = 'running', created = 7, lines = 8, updated_at = updated_at + interval '1 second' WHERE id = 'real'`)
	want(s.imports(t)["real"], "running", 7, 1)
	// Or its row is older than the log, since the process died before it wrote
	// the row, or the row was restored from before.
	s.exec(t, `UPDATE import_jobs SET state = 'running', created = 1, lines = 1, finished_at = NULL, updated_at = updated_at - interval '1 hour' WHERE id = 'real'`)
	want(s.imports(t)["real"], "finished", 3, 1)
	// Or it has no row: its history stays.
	s.exec(t, `DELETE FROM import_chunks WHERE job = 'real'`)
	s.exec(t, `UPDATE import_jobs SET id = 'other', org = 'org-3' WHERE id = 'real'`)
	jobs = s.imports(t)
	want(jobs["real"], "finished", 3, 1)
	if j := jobs["real"]; j["lines"] != 4.0 || j["onConflict"] != "fail" || len(jobs) != 2 {
		t.Errorf("from the log alone: %v", jobs)
	}
}

// The end of a job is in the log once, wherever its process died: before the
// log had it or the job's row.
func TestTheEndOfAnImportIsSaidOnce(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	lines := people(1, 2)
	finished := "ImportStarted ImportFinished"
	s.bulk(t, s.http, "jobId=a", strings.NewReader(lines))
	for _, died := range []string{
		``, // it did not: the call is just repeated
		`UPDATE import_jobs SET state = 'running', finished_at = NULL WHERE id = 'a'`,                                                    // before the row had it
		`UPDATE import_jobs SET state = 'running', finished_at = NULL, lines = 0, created = 0 WHERE id = 'a'; DELETE FROM import_chunks`, // and without its answers
	} {
		s.exec(t, died)
		s.bulk(t, s.http, "jobId=a", strings.NewReader(lines))
		if got := s.importEvents(t, "a"); got != finished {
			t.Errorf("after %q: %s", died, got)
		}
		if j := s.imports(t)["a"]; j["state"] != "finished" || j["created"] != 2.0 {
			t.Errorf("after %q: %v", died, j)
		}
	}
	// Other lines behind it are a second end.
	s.bulk(t, s.http, "jobId=a", strings.NewReader(people(1, 3)))
	if got := s.importEvents(t, "a"); got != finished+" ImportFinished" {
		t.Errorf("after one more line: %s", got)
	}

	// A program that wrote the row first died before the log had it.
	jobs := importer.NewJobs(s.deps.Importer, nil)
	begin := func() *importer.Run {
		t.Helper()
		run, err := jobs.Begin(t.Context(), importer.Caller{ID: "me", Org: "org-1"}, importer.Options{JobID: "b"})
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	broken, cut := context.WithCancel(t.Context())
	var out bytes.Buffer
	r, w := io.Pipe()
	run := begin()
	go func() {
		io.WriteString(w, people(11, 12))
		for job, err := jobs.Get(t.Context(), "org-1", "b"); err == nil && job.Lines < 2; job, err = jobs.Get(t.Context(), "org-1", "b") {
			time.Sleep(5 * time.Millisecond)
		}
		cut()
		w.CloseWithError(io.ErrUnexpectedEOF)
	}()
	_ = run.Stream(broken, r, &out, func() {}) // it is cut
	run.Close()
	if got := s.importEvents(t, "b"); got != "ImportStarted" {
		t.Fatalf("of a call that broke off: %s", got)
	}
	s.exec(t, `UPDATE import_jobs SET state = 'finished' WHERE id = 'b'`)
	for range 2 {
		if err := begin().Stream(t.Context(), strings.NewReader(people(11, 12)), &out, func() {}); err != nil {
			t.Fatal(err)
		}
		if got := s.importEvents(t, "b"); got != finished {
			t.Errorf("of a job whose end was lost: %s", got)
		}
	}

	// An undo died before the row had it: the job stays undone.
	if a := s.rest(t, "POST", "/v1/imports/a/_undo", ""); a.raw["removed"] != 3.0 {
		t.Fatalf("undoing: %s", a.Body)
	}
	s.exec(t, `UPDATE import_jobs SET state = 'finished', removed = 0, updated_at = updated_at - interval '1 second' WHERE id = 'a'`)
	if j := s.imports(t)["a"]; j["state"] != "undone" || j["removed"] != 3.0 {
		t.Errorf("after an undo: %v", j)
	}
	if a := s.rest(t, "POST", importPath+"?jobId=a", people(1, 9), "Content-Type", "application/x-ndjson"); a.id() != "MUSTER-jobundone" {
		t.Errorf("more lines for a job that has been undone: %s", a.Body)
	}
	if a := s.rest(t, "POST", "/v1/imports/a/_undo", ""); a.raw["removed"] != 3.0 {
		t.Errorf("undoing again: %s", a.Body)
	}
	if got := s.importEvents(t, "a"); got != finished+" ImportFinished ImportUndone" {
		t.Errorf("after an undo: %s", got)
	}

	// All of that is what the events add up to, and a rebuild finds the same.
	for range 2 {
		s.imports(t)
		if r, err := s.deps.Projections.Verify(t.Context(), "import_jobs", 0); err != nil || r.Drifted != 0 || r.Rows != 2 {
			t.Errorf("verifying: %+v, %v", r, err)
		}
		if r, err := s.deps.Projections.Rebuild(t.Context(), "import_jobs", nil); err != nil || len(r.Differing) != 0 {
			t.Errorf("rebuilding: %+v, %v", r, err)
		}
	}
}
