package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/migrations"
)

// human returns the import of the n-th person of a run: a hash and a verified
// e-mail address, the commonest migration.
func human(n int64) (eventstore.Append, error) {
	h, _, err := domain.ImportHuman{
		UserName:       fmt.Sprintf("person-%d@example.test", n),
		Profile:        domain.Profile{FirstName: "Ada", LastName: fmt.Sprintf("Lind-%d", n), PreferredLanguage: "sv"},
		Email:          domain.Email{Address: fmt.Sprintf("person-%d@example.test", n), Verified: true},
		HashedPassword: "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm",
	}.Normalise(policy)
	if err != nil {
		return eventstore.Append{}, err
	}
	d := h.Import(domain.Facts{UserID: ulid.Make().String(), Org: "01HORG", At: time.Now()})
	a := eventstore.Append{Stream: d.Stream, Org: d.Org, Actor: "bench", At: time.Now()}
	for _, e := range d.Events {
		data, personal := domain.Encode(e)
		a.Events = append(a.Events, eventstore.NewEvent{Type: e.Type(), Schema: e.Schema(), Data: data, Personal: personal})
	}
	for _, c := range d.Take {
		a.Take = append(a.Take, eventstore.Claim(c))
	}
	return a, nil
}

// ready returns an import like human's, decided beforehand but for what has to
// be its own: stream, claim, time. What the log itself does is done for each:
// event ids, a data key, sealing, hashing.
func ready(example *eventstore.Append) eventstore.Append {
	a := *example
	a.Stream, a.At = ulid.Make().String(), time.Now()
	a.Take = []eventstore.Claim{example.Take[0]}
	a.Take[0].Value = "person-" + strconv.FormatInt(serial.Add(1), 10) + "@example.test"
	return a
}

var policy = domain.DefaultPolicy()

// serial numbers the persons of all sections.
var serial atomic.Int64

func (b *bench) store(ctx context.Context, url string) (*eventstore.Store, error) {
	keys, err := eventstore.CreateKeyring(filepath.Join(b.tmp, fmt.Sprintf("keys-%d.json", serial.Add(1))))
	if err != nil {
		return nil, err
	}
	return eventstore.New(ctx, eventstore.Config{URL: url, Role: migrations.ServiceRole, Keys: keys})
}

// limitImport writes the rows of one import, ready made, in one statement and
// so in one transaction: what a service that does nothing else could reach at
// most, through the same driver.
const limitImport = `
WITH s AS (INSERT INTO streams VALUES ($1, $2, $3, 3, 'k1', $4)),
     c AS (INSERT INTO claims VALUES ($5, $1)),
     b AS (INSERT INTO batches (base, n, id) VALUES (3 * $6::int8 + 1, 3, $6))
INSERT INTO events (batch, idx, slice, stream, sequence, id, type, schema, org, actor, at, data, sealed) VALUES
	($6, 0, $2, $1, 1, $7, 'HumanAdded',    1, $3, 'bench', $8, $9, $10),
	($6, 1, $2, $1, 2, $7, 'EmailVerified', 1, $3, 'bench', $8, NULL, NULL),
	($6, 2, $2, $1, 3, $7, 'PasswordSet',   1, $3, 'bench', $8, $11, $12)`

// rows of one import, ready to be written, of the sizes that the log writes.
type rawImport struct {
	stream       string
	slice        int16
	batch        int64
	key, claim   []byte
	id           [16]byte
	data, sealed [3][]byte
}

func newRaw(sizes *eventstore.Append) rawImport {
	r := rawImport{stream: ulid.Make().String(), batch: serial.Add(1), key: make([]byte, 60), claim: make([]byte, 32)}
	r.slice = eventstore.SliceOf(r.stream)
	rand.Read(r.key)
	rand.Read(r.claim)
	rand.Read(r.id[:])
	for i, e := range sizes.Events {
		if e.Data != nil {
			r.data[i] = e.Data
		}
		if e.Personal != nil {
			r.sealed[i] = make([]byte, 12+len(e.Personal)+16)
			rand.Read(r.sealed[i])
		}
	}
	return r
}

func benchLog(ctx context.Context, b *bench) error {
	example, err := human(0)
	if err != nil {
		return err
	}
	limitURL, drop, err := b.database(ctx, "limit")
	if err != nil {
		return err
	}
	defer drop()
	limitPool, err := pgxpool.New(ctx, limitURL+sep(limitURL)+"pool_max_conns=64")
	if err != nil {
		return err
	}
	defer limitPool.Close()
	logURL, drop, err := b.database(ctx, "log")
	if err != nil {
		return err
	}
	defer drop()
	store, err := b.store(ctx, logURL)
	if err != nil {
		return err
	}
	defer store.Close(context.WithoutCancel(ctx))
	peer, closePeer, err := b.watermillSQL(ctx)
	if err != nil {
		return err
	}
	defer closePeer()

	limit := func(n int) *figure {
		return &figure{name: fmt.Sprintf("limit, %d", n), measure: func(ctx context.Context) (sample, error) {
			return drive(ctx, n, b.seconds, func(ctx context.Context, _ int) (int, error) {
				r := newRaw(&example)
				_, err := limitPool.Exec(ctx, limitImport, r.stream, r.slice, example.Org, r.key, r.claim, r.batch, r.id, time.Now(),
					r.data[0], r.sealed[0], r.data[2], r.sealed[2])
				return 1, err
			})
		}}
	}
	log := func(n int) *figure {
		return &figure{name: fmt.Sprintf("log, %d", n), measure: func(ctx context.Context) (sample, error) {
			return drive(ctx, n, b.seconds, appendOne(store, &example))
		}}
	}
	publish := &figure{name: "watermill-sql, 64", measure: func(ctx context.Context) (sample, error) {
		return drive(ctx, 64, b.seconds, func(ctx context.Context, _ int) (int, error) {
			a := ready(&example)
			msgs := make([]*message.Message, len(a.Events))
			for i, e := range a.Events {
				msgs[i] = message.NewMessage(watermill.NewULID(), fmt.Appendf(nil, `{"stream":%q,"type":%q,"data":"%x"}`, a.Stream, e.Type, e.Personal))
			}
			return 1, peer.Publish("events", msgs...)
		})
	}}
	copied := &figure{name: "COPY", measure: func(ctx context.Context) (sample, error) {
		return b.copyImports(ctx, limitPool, &example, 2)
	}}
	bulk := &figure{name: "log, bulk", measure: func(ctx context.Context) (sample, error) {
		return drive(ctx, 4, b.seconds, appendMany(store, 500, &example))
	}}

	l1, l8, l64, s1, s8, s64 := limit(1), limit(8), limit(64), log(1), log(8), log(64)
	if err := b.measure(ctx, l1, s1, l8, s8, l64, s64, publish, copied, bulk); err != nil {
		return err
	}
	row := func(name string, l, s *figure, aim string) []string {
		return []string{name, perSecond(l.rate()), perSecond(s.rate()), ratio(s.rate(), l.rate()), aim,
			ms(s.percentile(.5)), ms(s.percentile(.99))}
	}
	table("The log: imports of three sealed events and a claim, beside the limit: the same rows, one statement and transaction each",
		[]string{"callers", "limit", "log", "ratio", "aim", "p50", "p99"},
		[][]string{
			row("1", l1, s1, "0.7"),
			row("8", l8, s8, ""),
			row("64", l64, s64, "3"),
			row("64, beside watermill-sql's publisher", publish, s64, "2.5"),
			row("bulk: 4 × 500, beside raw COPY on 2 connections", copied, bulk, "0.6"),
		})
	fmt.Printf("\np99/p50 at 64 callers: %.1f (aim: under 4)\n", float64(s64.percentile(.99))/float64(s64.percentile(.5)))
	return b.disturbances(ctx, &example)
}

func sep(url string) string {
	for _, c := range url {
		if c == '?' {
			return "&"
		}
	}
	return "?"
}

func appendOne(store *eventstore.Store, example *eventstore.Append) func(context.Context, int) (int, error) {
	return func(ctx context.Context, _ int) (int, error) {
		_, err := store.Append(ctx, ready(example))
		return 1, err
	}
}

func appendMany(store *eventstore.Store, n int, example *eventstore.Append) func(context.Context, int) (int, error) {
	return func(ctx context.Context, _ int) (int, error) {
		as := make([]eventstore.Append, n)
		for i := range as {
			as[i] = ready(example)
		}
		for _, o := range store.AppendMany(ctx, as) {
			if o.Err != nil {
				return 0, o.Err
			}
		}
		return n, nil
	}
}

// copyImports loads ready-made rows with COPY, 5,000 imports a transaction.
func (b *bench) copyImports(ctx context.Context, pool *pgxpool.Pool, example *eventstore.Append, connections int) (sample, error) {
	const n = 5000
	return drive(ctx, connections, b.seconds, func(ctx context.Context, _ int) (int, error) {
		raws := make([]rawImport, n)
		first := serial.Add(n) - n
		for i := range raws {
			raws[i] = newRaw(example)
			raws[i].batch = first + int64(i)
		}
		now := time.Now()
		// One batch row for all of them, as a flush has.
		return n, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"streams"}, []string{"stream", "slice", "org", "sequence", "kek", "data_key"},
				pgx.CopyFromSlice(n, func(i int) ([]any, error) {
					r := &raws[i]
					return []any{r.stream, r.slice, example.Org, int64(3), "k1", r.key}, nil
				}))
			if err != nil {
				return err
			}
			_, err = tx.CopyFrom(ctx, pgx.Identifier{"claims"}, []string{"hash", "stream"},
				pgx.CopyFromSlice(n, func(i int) ([]any, error) { return []any{raws[i].claim, raws[i].stream}, nil }))
			if err != nil {
				return err
			}
			types := [3]string{"HumanAdded", "EmailVerified", "PasswordSet"}
			_, err = tx.CopyFrom(ctx, pgx.Identifier{"events"},
				[]string{"batch", "idx", "slice", "stream", "sequence", "id", "type", "schema", "org", "actor", "at", "data", "sealed"},
				pgx.CopyFromSlice(3*n, func(i int) ([]any, error) {
					r, k := &raws[i/3], i%3
					return []any{raws[0].batch, int32(i), r.slice, r.stream, int64(k + 1), r.id, types[k], int16(1), example.Org, "bench", now, r.data[k], r.sealed[k]}, nil
				}))
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `INSERT INTO batches (base, n, id) VALUES (3 * $1::int8 + 1, $2, $1)`, raws[0].batch, 3*n)
			return err
		})
	})
}

// watermillSQL opens the peer's publisher on a database of its own.
func (b *bench) watermillSQL(ctx context.Context) (message.Publisher, func(), error) {
	url, drop, err := b.database(ctx, "peer")
	if err != nil {
		return nil, nil, err
	}
	pool, err := pgxpool.New(ctx, url+sep(url)+"pool_max_conns=64")
	if err != nil {
		drop()
		return nil, nil, err
	}
	p, err := wsql.NewPublisher(wsql.BeginnerFromPgx(pool), wsql.PublisherConfig{
		SchemaAdapter:        wsql.DefaultPostgreSQLSchema{},
		AutoInitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		pool.Close()
		drop()
		return nil, nil, err
	}
	return p, func() { p.Close(); pool.Close(); drop() }, nil
}

// disturbances shows what does not disturb the log: a full table, and strangers.
func (b *bench) disturbances(ctx context.Context, example *eventstore.Append) error {
	emptyURL, dropEmpty, err := b.database(ctx, "empty")
	if err != nil {
		return err
	}
	defer dropEmpty()
	empty, err := b.store(ctx, emptyURL)
	if err != nil {
		return err
	}
	defer empty.Close(context.WithoutCancel(ctx))
	fullURL, dropFull, err := b.database(ctx, "full")
	if err != nil {
		return err
	}
	defer dropFull()
	full, err := b.store(ctx, fullURL)
	if err != nil {
		return err
	}
	defer full.Close(context.WithoutCancel(ctx))

	begin := time.Now()
	if err := fill(ctx, full, b.users); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("\nfilled a log with %d users in %.0f s: %.0f/s\n", b.users, took.Seconds(), float64(b.users)/took.Seconds())

	one := func(name string, s *eventstore.Store, n int, around func(context.Context) (func(), error)) *figure {
		return &figure{name: name, measure: func(ctx context.Context) (sample, error) {
			if around != nil {
				end, err := around(ctx)
				if err != nil {
					return sample{}, err
				}
				defer end()
			}
			return drive(ctx, n, b.seconds, appendOne(s, example))
		}}
	}
	transaction := func(statement string) func(context.Context) (func(), error) {
		return func(ctx context.Context) (func(), error) {
			conn, err := pgx.Connect(ctx, fullURL)
			if err != nil {
				return nil, err
			}
			_, err = conn.Exec(ctx, statement)
			return func() { conn.Close(context.WithoutCancel(ctx)) }, err
		}
	}
	slow := func(ctx context.Context) (func(), error) {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for after := eventstore.Position(0); ctx.Err() == nil; {
				events, err := full.Read(ctx, eventstore.Query{After: after, Limit: 10})
				if err == nil && len(events) > 0 {
					after = events[len(events)-1].Position
				}
				select {
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}()
		return func() { cancel(); <-done }, nil
	}
	var figures []*figure
	for _, n := range []int{1, 64} {
		figures = append(figures,
			one("empty log", empty, n, nil),
			one("full log", full, n, nil),
			one("full, an idle transaction that has written", full, n, transaction("BEGIN; CREATE TABLE IF NOT EXISTS stranger (n int); INSERT INTO stranger VALUES (1)")),
			one("full, an old snapshot", full, n, transaction("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM log")),
			one("full, a slow reader", full, n, slow),
		)
	}
	if err := b.measure(ctx, figures...); err != nil {
		return err
	}
	var rows [][]string
	half := len(figures) / 2
	for i := range half {
		f1, f64 := figures[i], figures[half+i]
		rows = append(rows, []string{f1.name,
			ms(f1.percentile(.5)), ratio(float64(f1.percentile(.5)), float64(figures[0].percentile(.5))),
			perSecond(f64.rate()), ms(f64.percentile(.5)), ratio(float64(f64.percentile(.5)), float64(figures[half].percentile(.5)))})
	}
	table(fmt.Sprintf("What changes nothing: %d users in the log, strangers' transactions, a slow reader", b.users),
		[]string{"", "p50, 1 caller", "to empty", "rate, 64 callers", "p50", "to empty"}, rows)
	return nil
}

// fill appends the imports of so many users, as fast as the log takes them.
func fill(ctx context.Context, store *eventstore.Store, users int) error {
	return fillWith(ctx, store, users, human)
}

func fillWith(ctx context.Context, store *eventstore.Store, users int, person func(int64) (eventstore.Append, error)) error {
	group, ctx := errgroup.WithContext(ctx)
	const callers, each = 4, 500
	for range callers {
		group.Go(func() error {
			for done := 0; done < users/callers; done += each {
				as := make([]eventstore.Append, each)
				for i := range as {
					var err error
					if as[i], err = person(serial.Add(1)); err != nil {
						return err
					}
				}
				for _, o := range store.AppendMany(ctx, as) {
					if o.Err != nil {
						return o.Err
					}
				}
			}
			return nil
		})
	}
	return group.Wait()
}
