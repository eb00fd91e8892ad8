package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// jobRow is a row of the read model "import_jobs": what the log says of an
// import of many. What a job is doing at the moment is not in the log, and
// dry runs never are.
type jobRow struct {
	stream     string
	id         string
	slice      int16
	org        string
	actor      string
	onConflict string
	notify     string
	state      string
	created    int64
	updated    int64
	skipped    int64
	failed     int64
	removed    int64
	kept       int64
	sequence   int64
	position   int64
	started    micros
	changed    micros
	finished   micros
}

var importJobs = define(definition[jobRow]{
	name:   "import_jobs",
	number: 1,
	only:   []string{domain.TypeImportStarted, domain.TypeImportFinished, domain.TypeImportUndone},
	// Where a job came from is sealed, and stays so.
	ours:  func(stream string) bool { return strings.HasPrefix(stream, domain.ImportStream("")) },
	split: 1, // it could be more, but there are too few to share them
	key:   "stream",
	columns: []column[jobRow]{
		text("stream", func(r *jobRow) *string { return &r.stream }),
		text("id", func(r *jobRow) *string { return &r.id }),
		smallint("slice", func(r *jobRow) *int16 { return &r.slice }),
		text("org", func(r *jobRow) *string { return &r.org }),
		text("actor", func(r *jobRow) *string { return &r.actor }),
		text("on_conflict", func(r *jobRow) *string { return &r.onConflict }),
		text("notify", func(r *jobRow) *string { return &r.notify }),
		text("state", func(r *jobRow) *string { return &r.state }),
		bigint("created", func(r *jobRow) *int64 { return &r.created }),
		bigint("updated", func(r *jobRow) *int64 { return &r.updated }),
		bigint("skipped", func(r *jobRow) *int64 { return &r.skipped }),
		bigint("failed", func(r *jobRow) *int64 { return &r.failed }),
		bigint("removed", func(r *jobRow) *int64 { return &r.removed }),
		bigint("kept", func(r *jobRow) *int64 { return &r.kept }),
		bigint("sequence", func(r *jobRow) *int64 { return &r.sequence }),
		bigint("position", func(r *jobRow) *int64 { return &r.position }),
		moment("started_at", func(r *jobRow) *micros { return &r.started }),
		moment("changed_at", func(r *jobRow) *micros { return &r.changed }),
		moment("finished_at", func(r *jobRow) *micros { return &r.finished }),
	},
	indexes: []index{{suffix: "id", on: "(id)"}, {suffix: "recent", on: "(org, started_at)"}},
	fold:    foldJob,
})

// The states of a job, in the words that the wire has for them.
const (
	jobRunning  = "running"
	jobFinished = "finished"
	jobUndone   = "undone"
)

var errJobNotStarted = errors.New("the job's first event is not ImportStarted")

func foldJob(rows []jobRow, ev *eventstore.Event, e domain.Event) ([]jobRow, error) {
	if len(rows) == 0 {
		started, ok := e.(domain.ImportStarted)
		if !ok {
			return rows, errJobNotStarted
		}
		rows = append(rows, jobRow{stream: ev.Stream, id: strings.TrimPrefix(ev.Stream, domain.ImportStream("")), slice: ev.Slice,
			org: ev.Org, actor: ev.Actor, onConflict: started.OnConflict, notify: started.Notify, state: jobRunning, started: microsOf(ev.At)})
	}
	r := &rows[0]
	switch e := e.(type) {
	case domain.ImportFinished: // once more, with other counts, when a job is given more lines
		r.state, r.finished = jobFinished, microsOf(ev.At)
		r.created, r.updated, r.skipped, r.failed = e.Created, e.Updated, e.Skipped, e.Failed
	case domain.ImportUndone:
		r.state, r.removed, r.kept = jobUndone, e.Removed, e.Kept
	}
	r.sequence, r.position, r.changed = ev.Sequence, int64(ev.Position), microsOf(ev.At)
	return rows, nil
}

// ImportJob is an import of many as the log has it.
type ImportJob struct {
	ID, Org string
	// Actor is the id of the token that began it.
	Actor              string
	OnConflict, Notify string
	// State is running, finished or undone: running is also what a job is whose
	// call broke off.
	State string
	// The counts are zero until the job has come to the end of its lines.
	Created, Updated, Skipped, Failed int64
	// Removed and Kept are what an undo came to.
	Removed, Kept    int64
	Position         eventstore.Position
	Started, Changed time.Time
	// Finished is zero until it has come to the end of its lines.
	Finished time.Time
}

func (r *jobRow) job() ImportJob {
	return ImportJob{ID: r.id, Org: r.org, Actor: r.actor, OnConflict: r.onConflict, Notify: r.notify, State: r.state,
		Created: r.created, Updated: r.updated, Skipped: r.skipped, Failed: r.failed, Removed: r.removed, Kept: r.kept,
		Position: eventstore.Position(r.position), Started: r.started.time(), Changed: r.changed.time(), Finished: r.finished.time()}
}

// ImportJobs returns the latest imports of many in a scope, the latest first,
// at most limit: 0 for 100, and no more than MaxLimit.
func (e *Engine) ImportJobs(ctx context.Context, scope Scope, limit int) ([]ImportJob, At, error) {
	return e.importJobs(ctx, func(table string, args *[]any) string {
		*args = append(*args, clampLimit(limit))
		where := scope.where("org", args)
		return fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s WHERE %s ORDER BY started_at DESC, id LIMIT $2) j ON true", table, where)
	})
}

// ImportJob returns one import of many; ok is false when the scope has none of
// that id, or the read model has not come to it.
func (e *Engine) ImportJob(ctx context.Context, scope Scope, id string) (job ImportJob, ok bool, err error) {
	list, _, err := e.importJobs(ctx, func(table string, args *[]any) string {
		*args = append(*args, id)
		where := scope.where("org", args)
		return fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s WHERE id = $2 AND %s) j ON true", table, where)
	})
	if err != nil || len(list) == 0 {
		return ImportJob{}, false, err
	}
	return list[0], true, nil
}

func (e *Engine) importJobs(ctx context.Context, join func(table string, args *[]any) string) (list []ImportJob, at At, err error) {
	at, err = e.query(ctx, importJobs, func(version int, args *[]any) (string, string) {
		return importJobs.columnsOf("j"), join(importJobs.table(version), args)
	}, func(v [][]byte) error {
		if v[0] != nil {
			var r jobRow
			importJobs.decode(v, &r)
			list = append(list, r.job())
		}
		return nil
	})
	return list, at, err
}
