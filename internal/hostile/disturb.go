package hostile

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/internal/pgtest"
)

// undo ends a disturbance when its time has come.
type undo struct {
	due time.Time // zero: at the end of the round
	run func()
}

// trouble is a kind of disturbance. Errors of the database are part of it.
type trouble struct {
	name   string
	weight int
	harsh  bool // kills a server
	cause  func(*trial) error
}

var troubles = []trouble{
	{"writer paused", 20, false, (*trial).pauseWriter},
	{"backend paused before its commit", 20, false, (*trial).pauseBackend},
	{"backends terminated", 14, false, (*trial).terminate},
	{"writer killed", 8, false, func(t *trial) error { return t.replace(t.writers) }},
	{"reader killed", 6, false, func(t *trial) error { return t.replace(t.readers) }},
	{"stranger idle in a transaction", 8, false, (*trial).strangerIdle},
	{"stranger with a prepared transaction", 6, false, (*trial).strangerPrepared},
	{"stranger with an old snapshot", 4, false, (*trial).strangerSnapshot},
	{"stranger with a lock on a table", 16, false, (*trial).strangerLock},
	{"primary killed", 4, true, func(t *trial) error { t.crash(t.primary); return nil }},
	{"standby killed", 2, true, func(t *trial) error { t.crash(t.standby); return nil }},
	{"standby killed and set back", 14, true, (*trial).setBack},
}

// disturb makes trouble until the round is over or a child has something to
// say. Each round that may kills the primary at least once.
func (t *trial) disturb() (*Failure, error) {
	began := time.Now()
	end := began.Add(t.cfg.Round)
	crashed, crashAt := t.cfg.Gentle, began.Add(t.cfg.Round/4+time.Duration(t.rng.Int64N(int64(t.cfg.Round/2))))
	total := 0
	for _, k := range troubles {
		total += k.weight
	}
	for {
		pause := time.NewTimer(time.Duration(5+t.rng.IntN(120)) * time.Millisecond)
		select {
		case <-t.ctx.Done():
			pause.Stop()
			return nil, t.ctx.Err()
		case c := <-t.fell:
			pause.Stop()
			if c.meant {
				continue
			}
			failure, err := c.verdict()
			if failure == nil && err == nil {
				err = fmt.Errorf("hostile: %s has ended by itself", c.name)
			}
			return failure, err
		case <-pause.C:
		}
		now := time.Now()
		t.undoDue(now)
		if crashed && now.After(end) {
			return nil, nil
		}
		if !crashed && now.After(crashAt) {
			crashed = true
			t.troubles["primary killed"]++
			t.crash(t.primary)
			end = end.Add(time.Since(now)) // nothing happened meanwhile
			continue
		}
		n := t.rng.IntN(total)
		for _, k := range troubles {
			if n -= k.weight; n >= 0 {
				continue
			}
			if k.harsh && (t.cfg.Gentle || t.rng.IntN(3) > 0) {
				break
			}
			if k.cause(t) == nil {
				t.troubles[k.name]++
			}
			if k.harsh {
				end = end.Add(time.Since(now))
			}
			break
		}
	}
}

func (t *trial) later(d time.Duration, run func()) {
	t.undo = append(t.undo, undo{time.Now().Add(d), run})
}

// undoDue ends what is due.
func (t *trial) undoDue(now time.Time) {
	rest := t.undo[:0]
	var due []undo
	for _, u := range t.undo {
		if !u.due.IsZero() && u.due.Before(now) {
			due = append(due, u)
		} else {
			rest = append(rest, u)
		}
	}
	t.undo = rest
	for _, u := range due {
		u.run()
	}
}

// resume wakes up whoever sleeps; strangers stay.
func (t *trial) resume() { t.undoDue(time.Now().Add(time.Hour)) }

// undoAll ends everything, strangers included.
func (t *trial) undoAll() {
	t.resume()
	all := t.undo
	t.undo = nil
	for _, u := range all {
		u.run()
	}
	// A crash may have parted a prepared transaction from who knew of it.
	ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
	defer cancel()
	for _, database := range []string{t.database, "elsewhere"} {
		conn, err := pgx.Connect(ctx, at(t.primary, database))
		if err != nil {
			continue
		}
		rows, err := conn.Query(ctx, `SELECT gid FROM pg_prepared_xacts WHERE database = current_database()`)
		if err == nil {
			gids, _ := pgx.CollectRows(rows, pgx.RowTo[string])
			for _, gid := range gids {
				_, _ = conn.Exec(ctx, `ROLLBACK PREPARED '`+gid+`'`)
			}
		}
		conn.Close(ctx)
	}
}

func (t *trial) between(low, high time.Duration) time.Duration {
	return low + time.Duration(t.rng.Int64N(int64(high-low)))
}

func (t *trial) pauseWriter() error {
	c := t.writers[t.rng.IntN(len(t.writers))]
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	t.later(t.between(10*time.Millisecond, 1500*time.Millisecond), func() { _ = c.cmd.Process.Signal(syscall.SIGCONT) })
	return nil
}

// pauseBackend stops a server process that has written events and has not
// committed them. Which one that is is known only once it stands still, so it
// may take some attempts.
func (t *trial) pauseBackend() error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, at(t.primary, t.database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for range 20 {
		var pid int
		err := conn.QueryRow(ctx, `
			SELECT coalesce((
				SELECT pid FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'muster' AND backend_xid IS NOT NULL
				ORDER BY random() LIMIT 1), 0)`).Scan(&pid)
		if err != nil {
			return err
		}
		if pid == 0 {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		goOn := func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		var writing bool
		err = conn.QueryRow(ctx, `
			SELECT EXISTS (
				SELECT FROM pg_locks
				WHERE pid = $1 AND relation = 'events'::regclass AND mode = 'RowExclusiveLock' AND granted)`, pid).Scan(&writing)
		if err != nil || !writing {
			goOn()
			if err != nil {
				return err
			}
			continue
		}
		d := t.between(5*time.Millisecond, 400*time.Millisecond)
		if t.rng.IntN(4) == 0 {
			d = t.between(time.Second, 2500*time.Millisecond)
		}
		t.later(d, goOn)
		return nil
	}
	return errNobody
}

var errNobody = errors.New("hostile: nobody is about to commit")

func (t *trial) terminate() error {
	_, err := t.ask(fmt.Sprintf(`
		SELECT count(pg_terminate_backend(pid))::int FROM (
			SELECT pid FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()
			ORDER BY random() LIMIT %d) victims`, 1+t.rng.IntN(4)))
	return err
}

// ask runs a query for one number on the log's database.
func (t *trial) ask(sql string) (n int, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, at(t.primary, t.database))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, sql).Scan(&n)
}

// replace kills one of the children with -9 and starts another in its place.
func (t *trial) replace(of []*child) error {
	i := t.rng.IntN(len(of))
	of[i].kill()
	c, err := t.spawn(of[i].kind, of[i].name, of[i].server)
	if err == nil {
		of[i] = c
	}
	return err
}

// crash kills a server with -9 and starts it again.
func (t *trial) crash(s *pgtest.Server) {
	t.resume() // a process that is stopped would outlive its postmaster
	s.Kill(t.frame)
	s.Start(t.frame)
}

// setBack kills the standby, which then shows nothing of the last moments for
// a while: what a reader there has seen is out of sight again.
func (t *trial) setBack() error {
	if err := t.onStandby(fmt.Sprintf(`ALTER SYSTEM SET recovery_min_apply_delay = '%d ms'`, t.between(2*time.Second, 6*time.Second).Milliseconds())); err != nil {
		return err
	}
	t.crash(t.standby)
	t.later(t.between(500*time.Millisecond, 1500*time.Millisecond), func() {
		_ = t.onStandby(`ALTER SYSTEM RESET recovery_min_apply_delay`, `SELECT pg_reload_conf()`)
	})
	return nil
}

func (t *trial) onStandby(statements ...string) error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, at(t.standby, "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// stranger opens a transaction in the log's database or in another one. Most
// end within the round, some not before its end.
func (t *trial) stranger(statements string, end func(context.Context, *pgx.Conn)) error {
	database, due := t.database, time.Time{}
	if t.rng.IntN(2) == 0 {
		database = "elsewhere"
	}
	if t.rng.IntN(4) > 0 {
		due = time.Now().Add(t.between(100*time.Millisecond, 3*time.Second))
	}
	return t.transaction(database, due, statements, end)
}

// transaction runs statements and, when it is due, end.
func (t *trial) transaction(database string, due time.Time, statements string, end func(context.Context, *pgx.Conn)) error {
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, at(t.primary, database))
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, statements); err != nil {
		conn.Close(ctx)
		return err
	}
	t.undo = append(t.undo, undo{due, func() {
		ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
		defer cancel()
		end(ctx, conn)
		conn.Close(ctx)
	}})
	return nil
}

func (t *trial) strangerIdle() error {
	return t.stranger(`CREATE TABLE IF NOT EXISTS strangers (x int); BEGIN; INSERT INTO strangers VALUES (1)`, t.finish("COMMIT", "ROLLBACK"))
}

func (t *trial) strangerPrepared() error {
	gid := fmt.Sprintf("stranger-%d", t.rng.Uint64())
	return t.stranger(`CREATE TABLE IF NOT EXISTS strangers (x int); BEGIN; INSERT INTO strangers VALUES (1); PREPARE TRANSACTION '`+gid+`'`,
		t.finish("COMMIT PREPARED '"+gid+"'", "ROLLBACK PREPARED '"+gid+"'"))
}

func (t *trial) strangerSnapshot() error {
	return t.stranger(`BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class`, t.finish("COMMIT", "ROLLBACK"))
}

// strangerLock holds up the appends that have an idempotency key after they
// have written their events, and no others.
func (t *trial) strangerLock() error {
	return t.transaction(t.database, time.Now().Add(t.between(200*time.Millisecond, 2500*time.Millisecond)),
		`BEGIN; LOCK TABLE idempotency IN SHARE MODE`, t.finish("COMMIT", "ROLLBACK"))
}

func (t *trial) finish(one, other string) func(context.Context, *pgx.Conn) {
	if t.rng.IntN(2) == 0 {
		one = other
	}
	return func(ctx context.Context, conn *pgx.Conn) { _, _ = conn.Exec(ctx, one) }
}
