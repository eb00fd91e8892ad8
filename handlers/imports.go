package handlers

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/projections"
)

// bindImports serves what is kept of imports of many: to whom may read the
// organisation's users, and undo to whom may write them.
func (s *server) bindImports() {
	if s.deps.Jobs == nil {
		return
	}
	read := func(path, summary string, answer any, fn func(echo.Context, *call) error) {
		s.serveOwn(endpoint{verb: http.MethodGet, path: "/v1/imports" + path, permission: access.UserRead, summary: summary, answer: answer}, fn)
	}
	type job struct {
		Import importer.Job `json:"import"`
	}
	lines := media{"application/x-ndjson"}
	read("", "The organisation's imports of many", listed[importer.Job]{}, s.listImports)
	read("/:id", "One import of many", job{}, s.getImport)
	read("/:id/failures", "The answers of the lines that failed", lines, func(e echo.Context, c *call) error { return s.importAnswers(e, c, true) })
	read("/:id/answers", "The answers of all lines", lines, func(e echo.Context, c *call) error { return s.importAnswers(e, c, false) })
	s.serveOwn(endpoint{
		verb: http.MethodPost, path: "/v1/imports/:id/_undo", permission: access.UserWrite, answer: importer.Undone{},
		summary: "Remove exactly the users that the import created and nobody has changed since",
	}, s.undoImport)
}

// plain is the way of a call that has no message of the wire's.
func (s *server) plain(perm access.Permission, fn func(echo.Context, *call) error) echo.HandlerFunc {
	return func(e echo.Context) error {
		ctx := e.Request().Context()
		c := callOf(ctx)
		if err := s.authenticate(ctx, c, perm); err != nil {
			return err
		}
		return fn(e, c)
	}
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the caller may be gone
	return nil
}

// An import's history is in the log, and the read model import_jobs has it from
// there. The importer's own rows have what is no history: the counters of a job
// that runs, its forecast, dry runs. together puts the two together: whichever
// is the younger says how the job is doing.
func together(fact projections.ImportJob, work importer.Job) importer.Job {
	if work.ID != "" && work.UpdatedAt.After(fact.Changed) {
		return work
	}
	work.ID, work.Org, work.Actor, work.StartedAt, work.UpdatedAt = fact.ID, fact.Org, fact.Actor, fact.Started, fact.Changed
	work.OnConflict, work.Notify, work.State = importer.Conflict(fact.OnConflict), importer.Notify(fact.Notify), fact.State
	if !fact.Finished.IsZero() {
		work.FinishedAt = &fact.Finished
		work.Created, work.Updated, work.Skipped, work.Failed = fact.Created, fact.Updated, fact.Skipped, fact.Failed
		work.Lines = max(work.Lines, fact.Created+fact.Updated+fact.Skipped+fact.Failed)
	}
	work.Removed = fact.Removed
	if work.Position == 0 {
		work.Position = int64(fact.Position)
	}
	return work
}

// unbuilt reports whether a read model is still being built. The importer's own
// rows answer meanwhile.
func unbuilt(err error) bool { return err != nil && domain.AsError(err).Kind == domain.KindUnavailable }

// mostImports is how many imports a list has at most.
const mostImports = 1000

func (s *server) listImports(e echo.Context, c *call) error {
	ctx := e.Request().Context()
	facts, _, err := s.deps.Projections.ImportJobs(ctx, projections.InOrg(c.org), mostImports)
	if err != nil && !unbuilt(err) {
		return err
	}
	working, err := s.deps.Jobs.List(ctx, c.org)
	if err != nil {
		return err
	}
	at := make(map[string]int, len(working))
	jobs := working
	for i := range jobs {
		at[jobs[i].ID] = i
	}
	for _, fact := range facts {
		if i, ok := at[fact.ID]; ok {
			jobs[i] = together(fact, jobs[i])
		} else {
			jobs = append(jobs, together(fact, importer.Job{}))
		}
	}
	slices.SortStableFunc(jobs, func(a, b importer.Job) int {
		return cmp.Or(b.StartedAt.Compare(a.StartedAt), cmp.Compare(a.ID, b.ID))
	})
	jobs = jobs[:min(len(jobs), mostImports)]
	if len(jobs) == 0 {
		jobs = []importer.Job{}
	}
	return writeJSON(e.Response(), map[string]any{"result": jobs})
}

func (s *server) getImport(e echo.Context, c *call) error {
	ctx := e.Request().Context()
	fact, known, err := s.deps.Projections.ImportJob(ctx, projections.InOrg(c.org), e.Param("id"))
	if err != nil && !unbuilt(err) {
		return err
	}
	job, err := s.deps.Jobs.Get(ctx, c.org, e.Param("id"))
	switch {
	case err != nil && !(known && errors.Is(err, importer.ErrJobNotFound)):
		return err
	case known:
		job = together(fact, job)
	}
	waiting, err := s.deps.Projections.Waiting(ctx)
	if err != nil {
		return err
	}
	return writeJSON(e.Response(), map[string]any{"import": struct {
		importer.Job
		// OldSystem is how many of the job's users wait for their first login,
		// at which the old system is asked for the password.
		OldSystem int64 `json:"waitingForOldSystem"`
	}{job, waiting[job.ID]}})
}

// importAnswers streams the answers that a job gave, as it gave them.
func (s *server) importAnswers(e echo.Context, c *call, failures bool) error {
	w := e.Response()
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
	}
	err := s.deps.Jobs.Answers(e.Request().Context(), c.org, e.Param("id"), failures, func(lines []byte) error {
		begin()
		_, err := w.Write(lines)
		return err
	})
	if err == nil {
		begin()
	}
	return err
}

// undoImport takes as long as it takes: the answer comes at its end, and
// repeating the call goes on where one broke off.
func (s *server) undoImport(e echo.Context, c *call) error {
	done, err := s.deps.Jobs.Undo(e.Request().Context(), importer.Caller{ID: c.token.ID, Org: c.org}, e.Param("id"))
	if err != nil {
		return err
	}
	return writeJSON(e.Response(), done)
}
