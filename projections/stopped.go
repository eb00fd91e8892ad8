package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Stopped is a stream whose rows stand still because an event of it failed.
type Stopped struct {
	Projection string
	Version    int
	Stream     string
	// Sequence and Position are those of the event that failed; the rows are
	// as before it, or before the batch that it came in.
	Sequence, Position int64
	// Reason describes the error and holds no value of an event.
	Reason   string
	Attempts int
	// RetryAt is when the service tries again by itself; zero: it waits for
	// an operator.
	RetryAt, Since time.Time
}

// Inspection is what an operator may want to know of a stopped stream.
type Inspection struct {
	Stopped
	// Type, Schema, At and Actor are the failed event's.
	Type   string
	Schema int16
	At     time.Time
	Actor  string
	// Waiting counts the events of the stream that wait behind it.
	Waiting int
}

// ErrNotStopped says that a stream's rows do not stand still.
var ErrNotStopped = domain.NewError(domain.KindNotFound, "MUSTER-notstopped", "The stream is not stopped in this projection")

// stop writes down failures.
func stop(ctx context.Context, tx pgx.Tx, name string, version int, failures []failure) error {
	for _, f := range failures {
		if _, err := tx.Exec(ctx, sqlStop, name, version, f.stream, f.sequence, f.position, f.class); err != nil {
			return fmt.Errorf("projections: stopping a stream: %w", err)
		}
	}
	return nil
}

// stoppedAmong tells which of the facts' streams stand still. It is asked in
// the transaction that holds the ranges' rows, so no retry can come between.
func (e *Engine) stoppedAmong(ctx context.Context, tx pgx.Tx, name string, version int, facts []fact) (map[string]bool, error) {
	streams := make([]string, 0, len(facts)/3+1)
	last := ""
	for i := range facts {
		if s := facts[i].ev.Stream; s != last {
			streams = append(streams, s)
			last = s
		}
	}
	rows, err := tx.Query(ctx, `SELECT stream FROM projection_stopped WHERE name = $1 AND version = $2 AND stream = ANY ($3)`, name, version, streams)
	if err != nil {
		return nil, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	skip := make(map[string]bool, len(list))
	for _, s := range list {
		skip[s] = true
	}
	return skip, nil
}

const selectStopped = `SELECT name, version, stream, sequence, position, error, attempts, retry_at, since FROM projection_stopped `

func scanStopped(row pgx.CollectableRow) (s Stopped, err error) {
	var retry *time.Time
	err = row.Scan(&s.Projection, &s.Version, &s.Stream, &s.Sequence, &s.Position, &s.Reason, &s.Attempts, &retry, &s.Since)
	if retry != nil {
		s.RetryAt = *retry
	}
	return s, err
}

// Stopped lists the streams that stand still in the live version of one
// projection, or of all when name is empty; at most limit, oldest first.
func (e *Engine) Stopped(ctx context.Context, name string, limit int) ([]Stopped, error) {
	rows, err := e.pool.Query(ctx, selectStopped+`s WHERE ($1 = '' OR name = $1)
		AND EXISTS (SELECT FROM projections p WHERE p.name = s.name AND p.version = s.version AND p.state = 'live')
		ORDER BY since, stream LIMIT $2`, name, limit)
	if err != nil {
		return nil, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanStopped)
	if err != nil {
		return nil, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	return list, nil
}

// Inspect tells what stopped a stream and what waits behind it. ErrNotStopped.
func (e *Engine) Inspect(ctx context.Context, name, stream string) (Inspection, error) {
	m, err := e.model(name)
	if err != nil {
		return Inspection{}, err
	}
	v, err := e.liveVersion(ctx, m)
	if err != nil {
		return Inspection{}, err
	}
	rows, err := e.pool.Query(ctx, selectStopped+`WHERE name = $1 AND version = $2 AND stream = $3`, name, v.version, stream)
	if err != nil {
		return Inspection{}, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanStopped)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Inspection{}, ErrNotStopped
	case err != nil:
		return Inspection{}, fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	in := Inspection{Stopped: s}
	events, err := e.store.ReadStream(ctx, stream, s.Sequence-1)
	if err != nil {
		return Inspection{}, err
	}
	if len(events) > 0 {
		ev := &events[0]
		in.Type, in.Schema, in.At, in.Actor, in.Waiting = ev.Type, ev.Schema, ev.At, ev.Actor, len(events)-1
	}
	return in, nil
}

// Retry makes a stopped stream's rows anew from its events, up to the
// checkpoint of its range, and lets it go on from there. When an event fails
// again nothing changes but the count of attempts, and the error names the
// event. ErrNotStopped.
func (e *Engine) Retry(ctx context.Context, name, stream string) error {
	m, err := e.model(name)
	if err != nil {
		return err
	}
	v, err := e.liveVersion(ctx, m)
	if err != nil {
		return err
	}
	return e.retry(ctx, m, v.version, stream)
}

func (e *Engine) retry(ctx context.Context, m Model, version int, stream string) error {
	var again *failure
	err := pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		// The range's row keeps the range where it is meanwhile.
		var position int64
		err := tx.QueryRow(ctx, `SELECT position FROM projection_ranges
			WHERE name = $1 AND version = $2 AND $3 BETWEEN first_slice AND last_slice FOR UPDATE`, m.Name(), version, eventstore.SliceOf(stream)).Scan(&position)
		if err != nil {
			return fmt.Errorf("projections: reading a checkpoint: %w", err)
		}
		tag, err := tx.Exec(ctx, `SELECT FROM projection_stopped WHERE name = $1 AND version = $2 AND stream = $3`, m.Name(), version, stream)
		switch {
		case err != nil:
			return fmt.Errorf("projections: reading stopped streams: %w", err)
		case tag.RowsAffected() == 0:
			return ErrNotStopped
		}
		facts, err := e.streamFacts(ctx, m, stream, eventstore.Position(position))
		if err != nil {
			return err
		}
		if again, err = m.replace(ctx, tx.Conn().PgConn(), version, stream, facts); err != nil {
			return err
		}
		if again != nil {
			return stop(ctx, tx, m.Name(), version, []failure{*again})
		}
		_, err = tx.Exec(ctx, `DELETE FROM projection_stopped WHERE name = $1 AND version = $2 AND stream = $3`, m.Name(), version, stream)
		return err
	})
	switch {
	case err != nil:
		return err
	case again != nil:
		return domain.NewError(domain.KindFailedPrecondition, "MUSTER-stopped",
			fmt.Sprintf("Sequence %d fails again: %s", again.sequence, again.class))
	}
	e.log.Info("a stopped stream goes on", "projection", m.Name(), "stream", stream)
	return nil
}

// streamFacts returns what a model wants of a stream's events up to a position.
func (e *Engine) streamFacts(ctx context.Context, m Model, stream string, upTo eventstore.Position) ([]fact, error) {
	events, err := e.store.ReadStream(ctx, stream, 0)
	if err != nil {
		return nil, err
	}
	for len(events) > 0 && events[len(events)-1].Position > upTo {
		events = events[:len(events)-1]
	}
	return e.prepare(ctx, m, events)
}

// retryDue tries those stopped streams of the session's ranges again whose time
// has come, a few at a time so that the projection is not held up.
func (s *session) retryDue(ctx context.Context) error {
	if len(s.spans) == 0 {
		return nil
	}
	firsts, lasts := make([]int16, len(s.spans)), make([]int16, len(s.spans))
	for i := range s.spans {
		firsts[i], lasts[i] = s.spans[i].first, s.spans[i].last
	}
	rows, err := s.e.pool.Query(ctx, `SELECT p.stream FROM projection_stopped p JOIN streams s USING (stream)
		WHERE p.name = $1 AND p.version = $2 AND p.retry_at <= now()
		AND EXISTS (SELECT FROM unnest($3::int2[], $4::int2[]) h (first, last) WHERE s.slice BETWEEN h.first AND h.last)
		ORDER BY p.retry_at LIMIT 20`, s.m.Name(), s.version, firsts, lasts)
	if err != nil {
		return fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("projections: reading stopped streams: %w", err)
	}
	for _, stream := range due {
		var refused *domain.Error
		if err := s.e.retry(ctx, s.m, s.version, stream); err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}
