package handlers

import (
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
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

func (s *server) listImports(e echo.Context, c *call) error {
	jobs, err := s.deps.Jobs.List(e.Request().Context(), c.org)
	if err != nil {
		return err
	}
	if jobs == nil {
		jobs = []importer.Job{}
	}
	return writeJSON(e.Response(), map[string]any{"result": jobs})
}

func (s *server) getImport(e echo.Context, c *call) error {
	job, err := s.deps.Jobs.Get(e.Request().Context(), c.org, e.Param("id"))
	if err != nil {
		return err
	}
	waiting, err := s.deps.Projections.Waiting(e.Request().Context())
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
