package consumers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/eventstore"
)

// create makes a consumer with its ranges, unless it exists.
func create(ctx context.Context, store *eventstore.Store, name string, cfg Config) error {
	err := pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO consumers (name) VALUES ($1) ON CONFLICT DO NOTHING`, name)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		head, err := store.Head(ctx)
		if err != nil {
			return err
		}
		start := min(cfg.Start.after, head.Position)
		switch {
		case cfg.Start.now:
			start = head.Position
		case !cfg.Start.at.IsZero():
			err := tx.QueryRow(ctx, `SELECT coalesce((SELECT min(base) - 1 FROM batches WHERE at >= $1), $2)`,
				cfg.Start.at, head.Position).Scan(&start)
			if err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO consumer_ranges (consumer, first_slice, last_slice, epoch, position, dispatched)
			SELECT $1, s, s + $2 - 1, $3, $4, $4 FROM generate_series(0, 1023, $2::int4) s`,
			name, eventstore.Slices/cfg.Ranges, head.Epoch, start)
		return err
	})
	if err != nil {
		return fmt.Errorf("consumers: creating %q: %w", name, err)
	}
	return nil
}

// margin is how much earlier than the others this instance considers its
// leases over.
func (g *group) margin() time.Duration { return g.cfg.LeaseTTL / 5 }

// lastRound bounds how long a round goes on after the group was told to end.
const lastRound = 5 * time.Second

// leaseLoop announces the instance, keeps its leases, takes its fair share of
// the free ones, and gives back what is beyond it.
func (g *group) leaseLoop(ctx, deliver context.Context) {
	// A round that has begun comes to its end: the server may carry out a
	// statement that was given up here, after leave, and then a lease or this
	// instance's share would be held by nobody until it runs out.
	round, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastRound, cancel) })()
	for ctx.Err() == nil {
		err := g.leaseRound(round, deliver)
		wait := g.cfg.LeaseTTL / 3
		switch {
		case err == nil || ctx.Err() != nil:
		case isFork(err):
			g.fail(err)
			return
		default:
			g.cfg.Log.Warn("a consumer cannot reach its leases", "consumer", g.name, "err", err)
			wait = min(wait, time.Second)
		}
		timer := make(chan struct{})
		stop := g.cfg.Clock.AfterFunc(wait, func() { close(timer) })
		select {
		case <-timer:
		case <-g.leaseWake:
		case <-ctx.Done():
		}
		stop()
	}
}

func isFork(err error) bool {
	var fork *eventstore.ForkError
	var ahead *eventstore.AheadError
	return errors.As(err, &fork) || errors.As(err, &ahead)
}

func (g *group) leaseRound(ctx, deliver context.Context) error {
	g.lapse()
	if err := g.giveBack(ctx); err != nil {
		return err
	}
	sent := g.cfg.Clock.Now()
	ttl := g.cfg.LeaseTTL.Seconds()
	var others, ranges int
	if err := g.store.Pool().QueryRow(ctx, sqlHeartbeat, g.name, g.instance, ttl).Scan(&others, &ranges); err != nil {
		return err
	}
	firsts, tokens := g.held()
	kept, err := g.renew(ctx, firsts, tokens)
	if err != nil {
		return err
	}
	g.keep(firsts, kept, sent.Add(g.cfg.LeaseTTL-g.margin()))

	share := (ranges + others) / (others + 1) // rounded up
	g.mu.Lock()
	for _, s := range g.spans {
		if len(g.spans) <= share {
			break
		}
		g.retire(s, true)
	}
	g.mu.Unlock()
	if err := g.giveBack(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	have := len(g.spans)
	busy := []int16{} // ranges whose old handlers are still at work here, too
	for first := range g.spans {
		busy = append(busy, first)
	}
	for s := range g.retired {
		busy = append(busy, s.first)
	}
	g.mu.Unlock()
	if have < share {
		return g.acquire(ctx, deliver, share-have, busy)
	}
	return nil
}

// renew returns those of the leases that are still held, prolonged.
func (g *group) renew(ctx context.Context, firsts []int16, tokens []int64) ([]int16, error) {
	g.writes.Lock()
	defer g.writes.Unlock()
	rows, err := g.store.Pool().Query(ctx, sqlRenew, g.name, g.instance, g.cfg.LeaseTTL.Seconds(), firsts, tokens)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int16])
}

// held returns the leases that this instance works under.
func (g *group) held() (firsts []int16, tokens []int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	firsts, tokens = []int16{}, []int64{}
	for _, s := range g.spans {
		firsts, tokens = append(firsts, s.first), append(tokens, s.token)
	}
	return firsts, tokens
}

// keep prolongs the leases that were renewed and retires those that others
// have taken.
func (g *group) keep(asked, kept []int16, until time.Time) {
	renewed := make(map[int16]bool, len(kept))
	for _, first := range kept {
		renewed[first] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, first := range asked {
		s := g.spans[first]
		switch {
		case s == nil:
		case renewed[first]:
			s.validUntil.Store(until.UnixNano())
		default:
			g.retire(s, false)
		}
	}
}

// lapse retires the spans whose leases could not be renewed in time.
func (g *group) lapse() {
	now := g.cfg.Clock.Now().UnixNano()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.spans {
		if now >= s.validUntil.Load() {
			g.retire(s, false)
		}
	}
}

// giveBack forgets retired spans that have come to rest, and releases those
// that are to be released.
func (g *group) giveBack(ctx context.Context) error {
	g.writes.Lock()
	defer g.writes.Unlock()
	g.mu.Lock()
	var rest []*span
	firsts, tokens, positions := []int16{}, []int64{}, []eventstore.Position{}
	for s := range g.retired {
		if s.running > 0 {
			continue
		}
		rest = append(rest, s)
		if s.release {
			firsts, tokens, positions = append(firsts, s.first), append(tokens, s.token), append(positions, s.low())
		}
	}
	epoch := g.epoch
	g.mu.Unlock()
	if len(firsts) > 0 {
		if _, err := g.store.Pool().Exec(ctx, sqlRelease, g.name, g.instance, epoch, firsts, tokens, positions); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range rest {
		s.cancel()
		delete(g.retired, s)
	}
	return nil
}

// leased is a row of acquire.sql.
type leased struct {
	first, last int16
	token       int64
	checkpoint  eventstore.Checkpoint
	dispatched  eventstore.Position
	asides      map[string]*aside
	started     map[eventstore.Position]int
}

// acquire takes up to n leases and starts to work on them.
func (g *group) acquire(ctx, deliver context.Context, n int, busy []int16) error {
	sent := g.cfg.Clock.Now()
	rows, err := g.store.Pool().Query(ctx, sqlAcquire, g.name, g.instance, g.cfg.LeaseTTL.Seconds(), n, busy)
	if err != nil {
		return err
	}
	got, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l leased, err error) {
		return l, row.Scan(&l.first, &l.last, &l.token, &l.checkpoint.Epoch, &l.checkpoint.Position, &l.dispatched)
	})
	if err != nil {
		return err
	}
	// All of them begin at once: the reader reads for those together that are
	// equally far.
	var ready []*span
	for i := range got {
		l := &got[i]
		if err = g.resume(ctx, l); err != nil {
			break
		}
		if err = g.loadAside(ctx, l); err != nil {
			break
		}
		s := &span{
			first: l.first, last: l.last, token: l.token,
			next: l.checkpoint.Position, saved: l.checkpoint.Position,
			dispatched: l.dispatched, savedDispatched: l.dispatched,
			started: l.started,
		}
		if l.dispatched > l.checkpoint.Position {
			s.suspects = l.dispatched
		}
		s.validUntil.Store(sent.Add(g.cfg.LeaseTTL - g.margin()).UnixNano())
		s.ctx, s.cancel = context.WithCancel(deliver)
		ready = append(ready, s)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range ready {
		g.spans[s.first] = s
		for slice := s.first; slice <= s.last; slice++ {
			g.bySlice[slice] = s
		}
		maps.Copy(g.aside, got[i].asides)
	}
	g.wakeReader()
	return err
}

// resume checks a checkpoint against the log's present history.
func (g *group) resume(ctx context.Context, l *leased) error {
	was := l.checkpoint
	now, err := g.store.Resume(ctx, was)
	rewound := false
	if isFork(err) && g.cfg.RewindOnFork {
		g.cfg.Log.Warn("a consumer goes back to where its history parted", "consumer", g.name, "err", err)
		rewound = true
		now, err = g.store.Rewind(ctx, was)
	}
	if err != nil {
		return err
	}
	l.checkpoint = now
	if now.Epoch == was.Epoch && !rewound {
		return nil
	}
	// Streams set aside, and attempts, in the part of the old history that is
	// gone: their events come again, or never happened.
	fork, err := g.store.Rewind(ctx, eventstore.Checkpoint{Epoch: was.Epoch, Position: math.MaxInt64})
	if err != nil {
		return err
	}
	l.dispatched = max(now.Position, min(l.dispatched, fork.Position))
	return pgx.BeginFunc(ctx, g.store.Pool(), func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE consumer_ranges SET epoch = $4, position = $5, dispatched = $6
			WHERE consumer = $1 AND first_slice = $2 AND token = $3`,
			g.name, l.first, l.token, now.Epoch, now.Position, l.dispatched)
		if err == nil && tag.RowsAffected() == 0 {
			err = errors.New("consumers: the lease was lost at once")
		}
		if err != nil {
			return err
		}
		for _, table := range []string{"consumer_parked", "consumer_attempts"} {
			_, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE consumer = $1 AND slice BETWEEN $2 AND $3 AND position > $4`,
				g.name, l.first, l.last, fork.Position)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// loadAside finds what the last owner left behind besides its checkpoint.
func (g *group) loadAside(ctx context.Context, l *leased) error {
	pool := g.store.Pool()
	if _, err := pool.Exec(ctx, sqlParkKillers, g.name, l.first, l.last, g.cfg.KillStarts, ClassKilledProcess); err != nil {
		return err
	}
	rows, err := pool.Query(ctx, `SELECT stream, sequence, position FROM consumer_parked WHERE consumer = $1 AND slice BETWEEN $2 AND $3`,
		g.name, l.first, l.last)
	if err != nil {
		return err
	}
	l.asides = map[string]*aside{}
	var stream string
	var a aside
	_, err = pgx.ForEachRow(rows, []any{&stream, &a.sequence, &a.position}, func() error {
		l.asides[stream] = &aside{sequence: a.sequence, position: a.position}
		return nil
	})
	if err != nil {
		return err
	}
	// Attempts on events that have been handled since mean nothing.
	_, err = pool.Exec(ctx, `DELETE FROM consumer_attempts WHERE consumer = $1 AND slice BETWEEN $2 AND $3 AND position <= $4`,
		g.name, l.first, l.last, l.checkpoint.Position)
	if err != nil {
		return err
	}
	rows, err = pool.Query(ctx, `SELECT position, started FROM consumer_attempts WHERE consumer = $1 AND slice BETWEEN $2 AND $3`,
		g.name, l.first, l.last)
	if err != nil {
		return err
	}
	l.started = map[eventstore.Position]int{}
	var position eventstore.Position
	var started int
	_, err = pgx.ForEachRow(rows, []any{&position, &started}, func() error {
		l.started[position] = started
		return nil
	})
	return err
}

// leave writes the last checkpoints and gives everything back. Handlers that
// still have not answered keep nothing: their events come again elsewhere.
func (g *group) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	g.mu.Lock()
	for _, s := range g.spans {
		g.retire(s, true)
	}
	for s := range g.retired {
		s.running = 0
	}
	g.mu.Unlock()
	err := g.giveBack(ctx)
	if err == nil { // what was taken and never worked on, after an error
		_, err = g.store.Pool().Exec(ctx, `
			UPDATE consumer_ranges SET owner = NULL, expires_at = '-infinity' WHERE consumer = $1 AND owner = $2`, g.name, g.instance)
	}
	if err == nil {
		_, err = g.store.Pool().Exec(ctx, `DELETE FROM consumer_members WHERE consumer = $1 AND instance = $2`, g.name, g.instance)
	}
	if err != nil {
		g.cfg.Log.Warn("a consumer could not give its leases back; they run out by themselves", "consumer", g.name, "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.retired {
		s.cancel()
	}
}
