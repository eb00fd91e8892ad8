package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/projections"
)

func init() { sections = append(sections, section{"rebuild", benchRebuild}) }

// linked returns the import of the n-th person with a link to a provider: four
// sealed events.
func linked(n int64) (eventstore.Append, error) {
	a, err := human(n)
	if err != nil {
		return a, err
	}
	link := domain.IDPLinked{ConfigID: "google", ExternalUserID: fmt.Sprintf("1100000000%012d", n)}
	data, personal := domain.Encode(link)
	a.Events = append(a.Events, eventstore.NewEvent{Type: link.Type(), Schema: link.Schema(), Data: data, Personal: personal})
	return a, nil
}

// benchRebuild measures a rebuild of the users read model from -users people,
// beside the limit: the same rows from table to table, with the same indexes,
// in one INSERT … SELECT. Nothing else is going on then; the time that the
// switch holds the writer is measured in a second rebuild, with imports going
// on.
func benchRebuild(ctx context.Context, b *bench) error {
	url, drop, err := b.database(ctx, "rebuild")
	if err != nil {
		return err
	}
	defer drop()
	store, err := b.store(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close(context.WithoutCancel(ctx))
	engine := projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: slog.New(slog.DiscardHandler), WaitLimit: time.Hour})
	working, stop := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { _ = engine.Run(working) })
	defer ended.Wait()
	defer stop()

	began := time.Now()
	if err := fillWith(ctx, store, b.users, linked); err != nil {
		return err
	}
	took := time.Since(began)
	head, err := store.Head(ctx)
	if err != nil {
		return err
	}
	if err := engine.WaitFor(ctx, "users", head.Position); err != nil {
		return err
	}
	behind := time.Since(began) - took

	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var table1 string
	var rows int64
	err = conn.QueryRow(ctx, `SELECT max(tablename) FROM pg_tables WHERE schemaname = $1 AND tablename ~ '^users_v\d+$'`, projections.Schema).Scan(&table1)
	if err != nil {
		return err
	}
	table1 = projections.Schema + "." + table1
	if _, err := conn.Exec(ctx, `CREATE TABLE the_limit (LIKE `+table1+` INCLUDING ALL); CHECKPOINT`); err != nil {
		return err
	}
	began = time.Now()
	tag, err := conn.Exec(ctx, `INSERT INTO the_limit SELECT * FROM `+table1)
	if err != nil {
		return err
	}
	limit := time.Since(began)
	rows = tag.RowsAffected()
	if _, err := conn.Exec(ctx, `DROP TABLE the_limit; CHECKPOINT`); err != nil {
		return err
	}

	phases := map[string]time.Duration{}
	phase, since := "", time.Now()
	began = since
	result, err := engine.Rebuild(ctx, "users", func(s projections.Step) {
		if s.Phase != phase {
			phases[phase] += time.Since(since)
			phase, since = s.Phase, time.Now()
		}
	})
	if err != nil {
		return err
	}
	rebuilt := time.Since(began)
	memory := highWater(os.Getpid())

	// Again, with imports going on.
	var wg sync.WaitGroup
	importing, enough := context.WithCancel(ctx)
	var failed error
	wg.Go(func() {
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-importing.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			a, err := linked(serial.Add(1))
			if err == nil {
				_, err = store.Append(ctx, a)
			}
			if err != nil {
				failed = err
				return
			}
		}
	})
	again, err := engine.Rebuild(ctx, "users", nil)
	enough()
	wg.Wait()
	if err = errors.Join(err, failed); err != nil {
		return err
	}

	events := float64(result.Events)
	rate := func(d time.Duration) string { return perSecond(events / d.Seconds()) }
	table(fmt.Sprintf("Rebuilding users from %d people, %d sealed events", rows, result.Events), []string{"", "events", "to the limit", "aim", "time"},
		[][]string{
			{"INSERT … SELECT of the same rows", rate(limit), "1.00", "", fmt.Sprintf("%.1f s", limit.Seconds())},
			{"rebuild, from first event to switch", rate(rebuilt), ratio(limit.Seconds(), rebuilt.Seconds()), "100,000/s, 0.5", fmt.Sprintf("%.1f s", rebuilt.Seconds())},
			{"of which: events to rows", "", "", "", fmt.Sprintf("%.1f s", phases[projections.PhaseBulk].Seconds())},
			{"of which: indexes", "", "", "", fmt.Sprintf("%.1f s", phases[projections.PhaseIndex].Seconds())},
			{"of which: comparing with the live version", "", "", "", fmt.Sprintf("%.1f s", phases[projections.PhaseCompare].Seconds())},
			{"the switch held the writer, with 500 imports a second", "", "", "50 ms", ms(again.Held)},
			{"live, while people came in at " + perSecond(float64(b.users)/took.Seconds()), "", "", "5 s", fmt.Sprintf("%.1f s behind at the end", behind.Seconds())},
			{"memory of service and load at its highest", "", "", "", fmt.Sprintf("%d MB", memory>>20)},
		})
	return nil
}
