package projections

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

//go:embed sql/changes.sql
var sqlChanges string

// Change says who did what to a user, and when. It holds nothing personal.
type Change struct {
	Sequence int64
	Position eventstore.Position
	// Type is the event's name, such as "UserLocked".
	Type   string
	Schema int16
	Org    string
	// Actor is the id of who caused it.
	Actor string
	At    time.Time
}

// Changes is a query for a user's history.
type Changes struct {
	// From is the sequence to go on from, inclusive; 0 begins at the newest,
	// or at the oldest when Ascending.
	From      int64
	Ascending bool
	// Limit is at most MaxLimit; 0 for 100.
	Limit int
}

// UserChanges returns a page of what happened to a user, removed ones too.
// ErrUserNotFound when nothing did within the scope.
//
// This read model has no table of its own: what it would hold is exactly what
// the log's index by stream holds, so it is read there. It is never behind and
// never has to be rebuilt, and an import is spared a row for each event.
func (e *Engine) UserChanges(ctx context.Context, scope Scope, user string, q Changes) ([]Change, error) {
	if !isUser(user) {
		return nil, ErrUserNotFound
	}
	var org *string
	if !scope.all {
		org = &scope.org
	}
	rows, err := e.pool.Query(ctx, sqlChanges, eventstore.SliceOf(user), user, org, max(0, q.From), q.Ascending, clampLimit(q.Limit))
	if err != nil {
		return nil, fmt.Errorf("projections: reading changes: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Change, err error) {
		return c, row.Scan(&c.Sequence, &c.Position, &c.Type, &c.Schema, &c.Org, &c.Actor, &c.At)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("projections: reading changes: %w", err)
	case len(list) == 0 && q.From == 0:
		return nil, ErrUserNotFound
	}
	for i := range list {
		list[i].At = list[i].At.UTC()
	}
	return list, nil
}
