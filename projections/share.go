package projections

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-id/muster/eventstore"
)

var (
	//go:embed sql/heartbeat.sql
	sqlHeartbeat string
	//go:embed sql/release.sql
	sqlRelease string
)

// eager is how often an instance looks for the ranges that are its share and
// that another one still holds.
const eager = 100 * time.Millisecond

// shareOf tells which of the ranges, in order, are the share of an instance:
// neighbours, so that one reading of the log serves them all, and as many as
// any other's or one less or more. With fewer ranges than instances those that
// came first have them, so that nothing changes hands when another one comes.
func shareOf(ranges, instances, rank int) (from, to int) {
	up := func(n int) int { return (n*ranges + instances - 1) / instances }
	return up(rank), up(rank + 1)
}

// partition reads which ranges the session's version has, by their first
// slices.
func (s *session) partition(ctx context.Context) ([]int16, error) {
	rows, err := s.e.pool.Query(ctx, `SELECT first_slice FROM projection_ranges WHERE name = $1 AND version = $2 ORDER BY first_slice`, s.m.Name(), s.version)
	if err != nil {
		return nil, fmt.Errorf("projections: reading ranges: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int16])
	if err != nil {
		return nil, fmt.Errorf("projections: reading ranges: %w", err)
	}
	return all, nil
}

// attend says that this instance is there, keeps its leases and returns all the
// instances that are there, in the order of their coming. errFenced when a
// lease is lost or the version is live no more.
func (s *session) attend(ctx context.Context) (members []string, err error) {
	var (
		live bool
		kept pgconn.CommandTag
	)
	b := &pgx.Batch{} // one transaction
	b.Queue(sqlHeartbeat, s.m.Name(), s.m.Definition(), s.owner, s.e.cfg.Lease.Seconds(), s.version).
		QueryRow(func(row pgx.Row) error { return row.Scan(&members, &live) })
	if len(s.spans) > 0 {
		firsts, tokens := s.leases()
		b.Queue(sqlRenew, s.m.Name(), s.version, firsts, tokens, s.e.cfg.Lease.Seconds()).
			Exec(func(tag pgconn.CommandTag) error { kept = tag; return nil })
	}
	err = s.e.pool.SendBatch(ctx, b).Close()
	switch {
	case err != nil:
		return nil, fmt.Errorf("projections: renewing leases: %w", err)
	case !live || kept.RowsAffected() != int64(len(s.spans)):
		return nil, errFenced
	}
	return members, nil
}

// share gives back what is beyond this instance's share and takes what of the
// share is free. It tells how many instances there are, whether what is held
// has changed, and whether some of the share is still another's.
func (s *session) share(ctx context.Context, all []int16) (instances int, changed, lacking bool, err error) {
	members, err := s.attend(ctx)
	if err != nil {
		return 0, false, false, err
	}
	from, to := shareOf(len(all), len(members), slices.Index(members, s.owner))
	ours := all[from:to]
	before := len(s.spans)
	s.release(ctx, func(first int16) bool { return slices.Contains(ours, first) })
	changed = len(s.spans) != before
	var wanted []int16
	for _, first := range ours {
		if !slices.ContainsFunc(s.spans, func(p span) bool { return p.first == first }) {
			wanted = append(wanted, first)
		}
	}
	if len(wanted) > 0 {
		taken, err := s.take(ctx, wanted)
		if err != nil {
			return len(members), true, true, err
		}
		changed, lacking = changed || taken > 0, taken < len(wanted)
	}
	if changed {
		s.e.holds[s.m.Name()].Store(int64(len(s.spans)))
		s.e.log.Info("working on a projection", "projection", s.m.Name(), "version", s.version, "ranges", len(s.spans), "of", len(all), "instances", len(members))
	}
	return len(members), changed, lacking, nil
}

// leave says that this instance cannot work on a model, so that nobody waits
// for it.
func (e *Engine) leave(ctx context.Context, m Model) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	// An error only means that the others wait until it is believed dead.
	_, _ = e.pool.Exec(ctx, `DELETE FROM projection_members WHERE name = $1 AND definition = $2 AND member = $3`, m.Name(), m.Definition(), e.owner)
}

// reading is one reading of the log for all that a session holds.
type reading struct {
	cancel  context.CancelFunc
	done    sync.WaitGroup
	batches chan *batch
	ended   chan error
}

// begin reads on from the last of the session's checkpoints.
func (s *session) begin(ctx context.Context) *reading {
	ctx, cancel := context.WithCancel(ctx)
	r := &reading{cancel: cancel, batches: make(chan *batch), ended: make(chan error, 1)}
	e, m, within, after := s.e, s.m, s.slices(), s.position()
	r.done.Go(func() { r.ended <- e.readAhead(ctx, m, within, after, r.batches) })
	return r
}

func (r *reading) stop() {
	r.cancel()
	r.done.Wait()
}

// follow works on this instance's share of the live version until ctx ends
// (nil) or the session does. The log is read once for all ranges that are held,
// and while one batch is being written the next is being read. It tells how
// many instances there were when it last looked.
func (s *session) follow(ctx context.Context, beat func()) (instances int, err error) {
	all, err := s.partition(ctx)
	if err != nil {
		return 0, err
	}
	var log *reading
	stop := func() {
		if log != nil {
			log.stop()
			log = nil
		}
	}
	defer func() {
		stop()
		s.release(ctx, none)
		s.e.holds[s.m.Name()].Store(0)
	}()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		beat()
		var (
			batches chan *batch
			ended   chan error
		)
		if log != nil {
			batches, ended = log.batches, log.ended
		}
		if len(s.spans) > 0 && s.e.store.Epoch() != s.spans[0].epoch {
			return instances, errFenced
		}
		select {
		case b := <-batches:
			if err := s.commit(ctx, b, nil); err != nil {
				return instances, err
			}
			s.e.moved(s.m.Name())
		case <-look.C:
			var changed, lacking bool
			if instances, changed, lacking, err = s.share(ctx, all); err != nil {
				return instances, err
			}
			if changed {
				stop()
				if len(s.spans) > 0 {
					log = s.begin(ctx)
				}
			}
			if err := s.retryDue(ctx); err != nil {
				return instances, err
			}
			look.Reset(s.e.cfg.Lease / 4)
			if lacking {
				look.Reset(eager)
			}
		case err := <-ended:
			if ctx.Err() != nil {
				return instances, nil
			}
			return instances, err
		case <-ctx.Done():
			return instances, nil
		}
	}
}

// readAhead sends the log's batches until ctx ends.
func (e *Engine) readAhead(ctx context.Context, m Model, within [2]int16, after eventstore.Position, to chan<- *batch) error {
	for {
		if err := e.store.Wait(ctx, after); err != nil {
			return err
		}
		b, err := e.read(ctx, m, within, after, 0)
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if len(b.facts) == 0 && m.ignores() != nil {
			// Look once more before moving over nothing.
			if err := sleep(ctx, linger); err != nil {
				return err
			}
			if b, err = e.read(ctx, m, within, after, 0); err != nil {
				return err
			}
			if b == nil {
				return errors.New("projections: the log has become shorter")
			}
		}
		select {
		case to <- b:
			after = b.through
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
