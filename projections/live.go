package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Scope says whose rows a query may see. The zero value sees none.
type Scope struct {
	org string
	all bool
}

// InOrg is the scope of one organisation.
func InOrg(org string) Scope { return Scope{org: org} }

// Everywhere is the scope of the whole service, for callers who own it.
func Everywhere() Scope { return Scope{all: true} }

// sees reports whether an organisation's rows are within the scope.
func (s Scope) sees(org string) bool { return s.all || s.org != "" && s.org == org }

// where returns the condition on a column and adds its argument.
func (s Scope) where(column string, args *[]any) string {
	if s.all {
		return "true"
	}
	*args = append(*args, s.org)
	return fmt.Sprintf("%s = $%d", column, len(*args))
}

// At says how far a read model was when it answered.
type At struct {
	Position eventstore.Position
	// Time is when it last moved.
	Time time.Time
}

// errDefinition says that the live version was made by a program with another
// definition: before a rebuild by this program, or after one by a newer one.
var errDefinition = domain.NewError(domain.KindUnavailable, "MUSTER-definition", "The read model is being rebuilt for another version of the service")

// query reads the live version of a model in one statement, and so in one
// snapshot: build gets the version to name in its SQL, and the statement
//
//	SELECT version, definition, position, updated_at, … WHERE name = $1 AND state = 'live'
//
// finds out whether that was the live one. If not, the answer is thrown away
// and asked for again. each gets the values of each row, in binary form,
// behind the first four; they are only good until it returns. build is called
// with $1 already in args, and returns what comes between "SELECT version,
// definition, position, updated_at" and "WHERE".
func (e *Engine) query(ctx context.Context, m Model, build func(version int, args *[]any) (columns, joins string), each func(values [][]byte) error) (At, error) {
	name := m.Name()
	e.mu.Lock()
	version := e.live[name]
	e.mu.Unlock()
	for range 10 {
		if version == 0 {
			v, err := e.liveVersion(ctx, m)
			if err != nil {
				return At{}, err
			}
			version = v.version
		}
		args := []any{pgx.QueryResultFormats{1}, name}
		params := args[1:]
		columns, joins := build(version, &params)
		sql := "SELECT p.version, p.definition, come.position, come.updated_at" + columns + " FROM projections p " + comeTo + " " + joins + " WHERE p.name = $1 AND p.state = 'live'"
		var (
			found, definition int
			at                At
		)
		rows, err := e.pool.Query(ctx, sql, append(args[:1:1], params...)...)
		if err == nil {
			found, definition, at, err = scanLive(rows, version, m.Definition(), each)
		}
		if dropped(err) {
			version = 0
			continue
		}
		switch {
		case err != nil:
			return At{}, fmt.Errorf("projections: reading %s: %w", name, err)
		case found == 0:
			return At{}, errNoVersion
		case definition != m.Definition():
			return At{}, errDefinition
		case found == version:
			e.mu.Lock()
			e.live[name] = version
			e.mu.Unlock()
			return at, nil
		}
		version = found
	}
	return At{}, errNoVersion
}

func scanLive(rows pgx.Rows, version, wanted int, each func([][]byte) error) (found, definition int, at At, err error) {
	defer rows.Close()
	for rows.Next() {
		v := rows.RawValues()
		if found == 0 {
			found, definition = int(readInt4(v[0])), int(readInt4(v[1]))
			at = At{eventstore.Position(readInt8(v[2])), micros(readInt8(v[3]) + postgresEpoch).time()}
		}
		if found != version || definition != wanted {
			return found, definition, at, nil // not this version's rows
		}
		if err := each(v[4:]); err != nil {
			return found, definition, at, err
		}
	}
	return found, definition, at, rows.Err()
}

// dropped reports whether a version's tables were gone when they were read.
func dropped(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "42P01"
}

// LagError is why WaitFor gave up; it is the cause of the *domain.Error.
type LagError struct {
	Projection string
	// Wanted is what was waited for, Reached how far the projection had come.
	Wanted, Reached eventstore.Position
}

// Error tells both positions.
func (e *LagError) Error() string {
	return fmt.Sprintf("projection %s is at position %d, position %d was asked for", e.Projection, e.Reached, e.Wanted)
}

// poll is how often WaitFor looks at a checkpoint that another instance moves.
const poll = 10 * time.Millisecond

// WaitFor returns once the live version of a read model has come to a position,
// as the database that this engine reads sees it: on a standby, the standby.
// It waits for Config.WaitLimit or until ctx ends, then fails with a
// *domain.Error of KindDeadlineExceeded that names both positions.
func (e *Engine) WaitFor(ctx context.Context, name string, position eventstore.Position) error {
	m, err := e.model(name)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, e.cfg.WaitLimit)
	defer cancel()
	var reached eventstore.Position
	for {
		moved := e.nextMove(name)
		v, err := e.liveVersion(limit, m)
		switch {
		case err == nil:
			if reached = v.position; reached >= position {
				return nil
			}
		case limit.Err() == nil && !errors.Is(err, errNoVersion):
			return err
		}
		t := time.NewTimer(poll)
		select {
		case <-moved:
		case <-t.C:
		case <-limit.Done():
			t.Stop()
			if err := ctx.Err(); errors.Is(err, context.Canceled) {
				return err
			}
			lag := &LagError{name, position, reached}
			return domain.NewError(domain.KindDeadlineExceeded, "MUSTER-lag", lag.Error()).Because(lag)
		}
		t.Stop()
	}
}
