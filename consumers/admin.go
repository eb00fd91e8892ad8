package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

// StreamPrefix and a consumer's name make the system stream that records what
// operators did to the consumer.
const StreamPrefix = eventstore.SystemPrefix + "consumer-"

// TypeEventSkipped is the event that records a Skip. Its open part is JSON
// (see Skipped); the reason, which an operator wrote, is sealed.
const TypeEventSkipped = "EventSkipped"

// MaxReason is the length of a reason to skip, in characters.
const MaxReason = 500

var (
	// ErrNoConsumer says that there is no consumer of that name.
	ErrNoConsumer = errors.New("consumers: no such consumer")
	// ErrNotParked says that the stream is not parked (any more).
	ErrNotParked = errors.New("consumers: the stream is not parked")
	// ErrNoReason says that a Skip has no reason, or one that is too long.
	ErrNoReason = errors.New("consumers: skipping needs a reason of at most 500 characters")
)

// Admin looks at consumers and acts on them, from any process: those that run
// take notice within their Flush interval, or at the latest within a third of
// their LeaseTTL.
type Admin struct{ store *eventstore.Store }

// NewAdmin returns an Admin over a log.
func NewAdmin(store *eventstore.Store) *Admin { return &Admin{store: store} }

// Info is the state of one consumer.
type Info struct {
	Name string
	// Checkpoint is the lowest low-water mark of all its ranges, and Lag what
	// the log has beyond it.
	Checkpoint eventstore.Checkpoint
	Lag        int64
	// Ranges are the leases there are; Leased are held by Instances processes.
	Ranges, Leased, Instances int
	// Parked streams wait for an operator, Retrying ones for their next try.
	Parked, Retrying int
	// Uncertain effects may or may not have happened; see Mail.
	Uncertain int
	// UpdatedAt is when a checkpoint was last written.
	UpdatedAt time.Time
}

// List returns all consumers by name, or the one of a name; ErrNoConsumer when
// that does not exist.
func (a *Admin) List(ctx context.Context, name string) ([]Info, error) {
	head, err := a.store.Head(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := a.store.Pool().Query(ctx, sqlList, optional(name))
	if err != nil {
		return nil, fmt.Errorf("consumers: listing: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i Info, err error) {
		err = row.Scan(&i.Name, &i.Checkpoint.Position, &i.Checkpoint.Epoch, &i.Ranges, &i.Leased, &i.Instances, &i.UpdatedAt,
			&i.Parked, &i.Retrying, &i.Uncertain)
		i.Lag = max(0, int64(head.Position-i.Checkpoint.Position))
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("consumers: listing: %w", err)
	}
	if name != "" && len(list) == 0 {
		return nil, ErrNoConsumer
	}
	return list, nil
}

func optional(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// Lease is one range of slices and who works on it.
type Lease struct {
	FirstSlice, LastSlice int16
	Checkpoint            eventstore.Checkpoint
	// Owner is an instance's random id; "" when nobody holds the lease.
	Owner string
	// Token is the fencing token: how often the lease changed hands.
	Token     int64
	ExpiresAt time.Time
}

// Leases returns a consumer's ranges in order of slices.
func (a *Admin) Leases(ctx context.Context, name string) ([]Lease, error) {
	rows, err := a.store.Pool().Query(ctx, `
		SELECT first_slice, last_slice, epoch, position, token,
		       CASE WHEN expires_at >= now() THEN coalesce(owner, '') ELSE '' END,
		       CASE WHEN owner IS NULL THEN updated_at ELSE expires_at END
		FROM consumer_ranges WHERE consumer = $1 ORDER BY first_slice`, name)
	if err != nil {
		return nil, fmt.Errorf("consumers: leases: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Lease, err error) {
		return l, row.Scan(&l.FirstSlice, &l.LastSlice, &l.Checkpoint.Epoch, &l.Checkpoint.Position, &l.Token, &l.Owner, &l.ExpiresAt)
	})
	if err == nil && len(list) == 0 {
		err = ErrNoConsumer
	}
	return list, err
}

// Parked is a stream that was set aside.
type Parked struct {
	Consumer, Stream, Org string
	// Sequence is the stream's first event that is not handled; Type and
	// Position are those of the event that last failed.
	Sequence int64
	Position eventstore.Position
	Epoch    int32
	Type     string
	Attempts int
	// Class is why it last failed; see Failure.
	Class string
	// State is "parked", "retrying" or "released".
	State         string
	NextAttemptAt time.Time
	Since         time.Time
}

// Parked returns the streams that a consumer set aside, the longest first, at
// most limit of them (0: 1000); of all consumers when name is empty.
func (a *Admin) Parked(ctx context.Context, name string, limit int) ([]Parked, error) {
	if limit <= 0 {
		limit = 1000
	}
	rows, err := a.store.Pool().Query(ctx, `
		SELECT consumer, stream, org, sequence, position, epoch, type, attempts, error_class, state, next_attempt_at, since
		FROM consumer_parked WHERE $1::text IS NULL OR consumer = $1
		ORDER BY since, consumer, stream LIMIT $2`, optional(name), limit)
	if err != nil {
		return nil, fmt.Errorf("consumers: parked streams: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Parked, err error) {
		return p, row.Scan(&p.Consumer, &p.Stream, &p.Org, &p.Sequence, &p.Position, &p.Epoch, &p.Type, &p.Attempts, &p.Class,
			&p.State, &p.NextAttemptAt, &p.Since)
	})
}

// Release lets a parked stream go on, in order, with all its tries anew; all
// parked streams of the consumer when stream is empty. It returns how many.
func (a *Admin) Release(ctx context.Context, name, stream string) (int, error) {
	return a.release(ctx, name, stream, true)
}

// Retry gives a parked stream one more try; it is parked again when that fails.
// With an empty stream it does so for all of the consumer. It returns how many.
func (a *Admin) Retry(ctx context.Context, name, stream string) (int, error) {
	return a.release(ctx, name, stream, false)
}

func (a *Admin) release(ctx context.Context, name, stream string, anew bool) (int, error) {
	tag, err := a.store.Pool().Exec(ctx, `
		UPDATE consumer_parked
		SET state = 'released', next_attempt_at = now(), attempts = CASE WHEN $3 THEN 0 ELSE attempts END, started = 0, finished = 0
		WHERE consumer = $1 AND state <> 'released' AND ($2::text IS NULL OR stream = $2)`,
		name, optional(stream), anew)
	if err != nil {
		return 0, fmt.Errorf("consumers: releasing: %w", err)
	}
	if tag.RowsAffected() == 0 && stream != "" {
		return 0, ErrNotParked
	}
	return int(tag.RowsAffected()), nil
}

// Skipped is the open part of an EventSkipped.
type Skipped struct {
	Consumer string              `json:"consumer"`
	Stream   string              `json:"stream"`
	Sequence int64               `json:"sequence"`
	Position eventstore.Position `json:"position"`
	Class    string              `json:"class"`
	Attempts int                 `json:"attempts"`
}

// Skip gives up the event that parked a stream and lets the stream go on with
// the next. That is itself an event, EventSkipped, in the consumer's system
// stream: who, what, and why. It is appended first, so nothing is ever skipped
// without a record; a repetition after a crash appends nothing more.
func (a *Admin) Skip(ctx context.Context, name, stream, actor, reason string) error {
	if n := utf8.RuneCountInString(reason); n == 0 || n > MaxReason {
		return ErrNoReason
	}
	s := Skipped{Consumer: name, Stream: stream}
	var org string
	err := a.store.Pool().QueryRow(ctx, `
		SELECT sequence, position, error_class, attempts, org FROM consumer_parked
		WHERE consumer = $1 AND stream = $2 AND state = 'parked'`, name, stream).Scan(&s.Sequence, &s.Position, &s.Class, &s.Attempts, &org)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotParked
	}
	if err != nil {
		return fmt.Errorf("consumers: skipping: %w", err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	why, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return err
	}
	_, err = a.store.Append(ctx, eventstore.Append{
		Stream: StreamPrefix + name, Org: eventstore.SystemPrefix + "system", Actor: actor, Expected: eventstore.Any, At: time.Now(),
		Events: []eventstore.NewEvent{{Type: TypeEventSkipped, Schema: 1, Data: data, Personal: why}},
		Idempotency: &eventstore.Idempotency{
			Key:     fmt.Sprintf("skip\x00%s\x00%s\x00%d", name, stream, s.Sequence),
			Request: []byte("skip"),
		},
	})
	if err != nil {
		return fmt.Errorf("consumers: recording what is skipped: %w", err)
	}
	tag, err := a.store.Pool().Exec(ctx, `
		UPDATE consumer_parked
		SET sequence = sequence + 1, position = position + 1, state = 'released', next_attempt_at = now(), attempts = 0, started = 0, finished = 0
		WHERE consumer = $1 AND stream = $2 AND sequence = $3 AND state = 'parked'`, name, stream, s.Sequence)
	if err != nil {
		return fmt.Errorf("consumers: skipping: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotParked
	}
	return nil
}

// Reset makes a consumer begin again after a position, with nothing parked.
// Whatever it has handled beyond that, it handles again. Instances that run
// lose their leases at once and take them anew.
func (a *Admin) Reset(ctx context.Context, name string, after eventstore.Position) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	after = max(0, min(after, head.Position))
	return pgx.BeginFunc(ctx, a.store.Pool(), func(tx pgx.Tx) error {
		// In the order of the key, as nobody else locks more than their own.
		tag, err := tx.Exec(ctx, `SELECT FROM consumer_ranges WHERE consumer = $1 ORDER BY first_slice FOR UPDATE`, name)
		if err != nil {
			return fmt.Errorf("consumers: resetting: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return ErrNoConsumer
		}
		batch := &pgx.Batch{}
		batch.Queue(`
			UPDATE consumer_ranges SET epoch = $2, position = $3, dispatched = $3, owner = NULL, token = token + 1,
			       expires_at = '-infinity', updated_at = now() WHERE consumer = $1`, name, head.Epoch, after)
		batch.Queue(`DELETE FROM consumer_parked WHERE consumer = $1`, name)
		batch.Queue(`DELETE FROM consumer_attempts WHERE consumer = $1`, name)
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return fmt.Errorf("consumers: resetting: %w", err)
		}
		return nil
	})
}

// Delete forgets a consumer. Instances that run stop with an error; its
// effects stay on record, so that a new consumer of the same name does not
// have them a second time.
func (a *Admin) Delete(ctx context.Context, name string) error {
	tag, err := a.store.Pool().Exec(ctx, `DELETE FROM consumers WHERE name = $1`, name)
	if err != nil {
		return fmt.Errorf("consumers: deleting: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoConsumer
	}
	return nil
}
