package eventstore

import (
	"context"
	"fmt"
	"sort"

	"github.com/jackc/pgx/v5"
)

// epoch is one history of the log: positions from first on belong to it.
type epoch struct {
	number int32
	first  Position
}

// identify compares the cluster that conn writes to with the latest epoch and
// begins a new one when the system identifier or the timeline differs: after a
// failover or a restore. The log's lock makes that happen once, between two
// batches. It also brings the store's list of epochs up to date.
func (s *Store) identify(ctx context.Context, conn *pgx.Conn) error {
	var system, timeline int64
	if err := conn.QueryRow(ctx, sqlIdentify).Scan(&system, &timeline); err != nil {
		return fmt.Errorf("eventstore: identifying the cluster: %w", err)
	}
	var known bool
	err := conn.QueryRow(ctx, `
		SELECT coalesce((SELECT system_identifier = $1 AND timeline = $2 FROM epochs ORDER BY epoch DESC LIMIT 1), false)`,
		system, timeline).Scan(&known)
	if err != nil {
		return fmt.Errorf("eventstore: reading epochs: %w", err)
	}
	if !known {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sqlLockLog); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, sqlBeginEpoch, system, timeline)
			if err == nil && tag.RowsAffected() == 1 {
				s.cfg.Log.Info("a new epoch of the log begins", "system_identifier", system, "timeline", timeline)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("eventstore: beginning an epoch: %w", err)
		}
	}
	return s.loadEpochs(ctx)
}

func (s *Store) loadEpochs(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT epoch, first_position FROM epochs ORDER BY epoch`)
	if err != nil {
		return fmt.Errorf("eventstore: reading epochs: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e epoch, err error) {
		return e, row.Scan(&e.number, &e.first)
	})
	if err != nil {
		return fmt.Errorf("eventstore: reading epochs: %w", err)
	}
	if len(list) == 0 {
		list = []epoch{{number: 1, first: 1}} // a standby of a log that has not been opened yet
	}
	s.epochs.Store(&list)
	return nil
}

// Epoch returns the present epoch.
func (s *Store) Epoch() int32 {
	list := *s.epochs.Load()
	return list[len(list)-1].number
}

// epochOf returns the epoch that an existing position belongs to: the last one
// that began at or before it. (An epoch that ended without an event shares its
// first position with the next.)
func epochOf(list []epoch, p Position) int32 {
	i := sort.Search(len(list), func(i int) bool { return list[i].first > p })
	if i == 0 {
		return list[0].number
	}
	return list[i-1].number
}

// Resume checks a checkpoint before its owner goes on from it, and returns the
// checkpoint to go on from, in the present epoch.
//
// A checkpoint of an older epoch is good as long as it is not past the fork:
// its owner has handled nothing that the present history lacks. Past the fork
// Resume fails with a *ForkError that names the positions in doubt. A
// checkpoint beyond the end of the log in the present epoch, or of an epoch
// that this log has never had, fails with an *AheadError.
func (s *Store) Resume(ctx context.Context, c Checkpoint) (Checkpoint, error) {
	if c.Position == 0 {
		return Checkpoint{Epoch: s.Epoch()}, nil
	}
	if err := s.loadEpochs(ctx); err != nil {
		return Checkpoint{}, err
	}
	head, err := s.Head(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	list := *s.epochs.Load()
	for _, e := range list {
		if e.number > c.Epoch && c.Position >= e.first {
			return Checkpoint{}, &ForkError{Checkpoint: c, Fork: e.first, Current: head.Epoch}
		}
	}
	if c.Position > head.Position || c.Epoch > head.Epoch {
		return Checkpoint{}, &AheadError{Checkpoint: c, Head: head}
	}
	return Checkpoint{Epoch: head.Epoch, Position: c.Position}, nil
}

// Rewind returns the checkpoint at which a checkpoint's history and the present
// one part: the last position that both have.
func (s *Store) Rewind(ctx context.Context, c Checkpoint) (Checkpoint, error) {
	if err := s.loadEpochs(ctx); err != nil {
		return Checkpoint{}, err
	}
	head, err := s.Head(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	back := Checkpoint{Epoch: head.Epoch, Position: min(c.Position, head.Position)}
	for _, e := range *s.epochs.Load() {
		if e.number > c.Epoch {
			back.Position = min(back.Position, e.first-1)
		}
	}
	return back, nil
}
