package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/projections"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	"github.com/muster-id/muster/proto/zitadel/management/v1/managementv1connect"
)

const (
	benchOrg   = "01HORG"
	benchToken = "the-bench's-token"
	importPath = "/management/v1/users/human/_import"
)

// served is the whole service but for its consumers, on a port of this
// process: HTTP, authentication, log and read models that keep up.
type served struct {
	url    string
	store  *eventstore.Store
	engine *projections.Engine
	close  func()
}

// serve runs the service on a database; fill puts into it what has to be there
// before the read models are built.
func (b *bench) serve(ctx context.Context, url string, fill func(*eventstore.Store) error) (*served, error) {
	store, err := b.store(ctx, url)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	orgs := access.NewOrganisations(store, time.Now)
	if _, err := orgs.Create(ctx, benchOrg, "Bench", access.AdminID); err != nil {
		return nil, errors.Join(err, store.Close(ctx))
	}
	if fill != nil {
		if err := fill(store); err != nil {
			return nil, errors.Join(err, store.Close(ctx))
		}
	}
	engine := projections.New(store, store.Pool(), projections.Models(), projections.Config{Logger: quiet})
	handler := handlers.New(handlers.Deps{
		Store: store, Projections: engine, Organisations: orgs,
		Tokens:   access.NewTokens(store.Pool(), benchToken, benchOrg, time.Now),
		Importer: &importer.Importer{Store: store, Passwords: password.NewPool(0, rand.Reader), Policy: policy, Now: time.Now, Rand: rand.Reader},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, store.Close(ctx))
	}
	server := handlers.NewHTTPServer("", handler, quiet)
	working, stop := context.WithCancel(ctx)
	ended := make(chan struct{}, 2)
	go func() { _ = engine.Run(working); ended <- struct{}{} }()
	go func() { _ = server.Serve(listener); ended <- struct{}{} }()
	return &served{url: "http://" + listener.Addr().String(), store: store, engine: engine, close: func() {
		_ = server.Close()
		stop()
		<-ended
		<-ended
		_ = store.Close(context.WithoutCancel(ctx))
	}}, nil
}

// caughtUp waits until the read model of users has come to the log's end.
func (s *served) caughtUp(ctx context.Context) error {
	head, err := s.store.Head(ctx)
	if err != nil {
		return err
	}
	for {
		if err = s.engine.WaitFor(ctx, "users", head.Position); err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// connections makes n clients, each with one connection that is kept alive.
func connections(n int) ([]*http.Client, func()) {
	clients := make([]*http.Client, n)
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, DisableCompression: true}}
	}
	return clients, func() {
		for _, c := range clients {
			c.CloseIdleConnections()
		}
	}
}

// do makes a REST call and expects 200.
func do(ctx context.Context, c *http.Client, method, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+benchToken)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return err
}

const benchHash = "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"

// benchHTTP measures single imports of hashed users over the wire, beside the
// limit of one ready-made transaction an import.
func benchHTTP(ctx context.Context, b *bench) error {
	const callers = 64
	example, err := human(0)
	if err != nil {
		return err
	}
	limitURL, drop, err := b.database(ctx, "httplimit")
	if err != nil {
		return err
	}
	defer drop()
	pool, err := pgxpool.New(ctx, limitURL+sep(limitURL)+fmt.Sprintf("pool_max_conns=%d", callers))
	if err != nil {
		return err
	}
	defer pool.Close()
	url, drop, err := b.database(ctx, "http")
	if err != nil {
		return err
	}
	defer drop()
	s, err := b.serve(ctx, url, nil)
	if err != nil {
		return err
	}
	defer s.close()
	restConns, closeRest, err := dial(s.url, callers)
	if err != nil {
		return err
	}
	defer closeRest()
	rest := make([]plain, callers)
	for i := range rest {
		rest[i] = plain{conn: restConns[i], r: bufio.NewReader(restConns[i])}
	}
	// gRPC clients share connections: with one of its own for each caller, and
	// with a few.
	const few = 4
	grpcConns, closeGRPC, err := dial(s.url, callers+few)
	if err != nil {
		return err
	}
	defer closeGRPC()
	grpc := make([]*grpcConn, len(grpcConns))
	for i := range grpc {
		if grpc[i], err = newGRPC(grpcConns[i], i < callers); err != nil {
			return err
		}
	}

	limit := &figure{name: "limit", measure: func(ctx context.Context) (sample, error) {
		return drive(ctx, callers, b.seconds, func(ctx context.Context, _ int) (int, error) {
			r := newRaw(&example)
			_, err := pool.Exec(ctx, limitImport, r.stream, r.slice, example.Org, r.key, r.claim, r.batch, r.id, time.Now(),
				r.data[0], r.sealed[0], r.data[2], r.sealed[2])
			return 1, err
		})
	}}
	// Between the rounds the read models come to rest, so that each figure
	// bears its own imports' work and no other's.
	driven := func(name string, one func(ctx context.Context, caller int, n int64) error) *figure {
		return &figure{name: name, measure: func(ctx context.Context) (sample, error) {
			out, err := drive(ctx, callers, b.seconds, func(ctx context.Context, caller int) (int, error) {
				return 1, one(ctx, caller, serial.Add(1))
			})
			return out, errors.Join(err, s.caughtUp(ctx))
		}}
	}
	overREST := driven("REST", func(ctx context.Context, caller int, n int64) error {
		return rest[caller].post(ctx, importPath, fmt.Appendf(nil,
			`{"userName":"person-%d@example.test","profile":{"firstName":"Ada","lastName":"Lind-%d","preferredLanguage":"sv"},"email":{"email":"person-%d@example.test","isEmailVerified":true},"hashedPassword":{"value":%q}}`,
			n, n, n, benchHash))
	})
	answered := make([]chan error, callers)
	for i := range answered {
		answered[i] = make(chan error, 1)
	}
	overGRPC := func(name string, conns []*grpcConn) *figure {
		return driven(name, func(ctx context.Context, caller int, n int64) error {
			name := fmt.Sprintf("person-%d@example.test", n)
			return conns[caller%len(conns)].call(ctx, managementv1connect.ManagementServiceImportHumanUserProcedure, &managementv1.ImportHumanUserRequest{
				UserName:       name,
				Profile:        &managementv1.ImportHumanUserRequest_Profile{FirstName: "Ada", LastName: fmt.Sprintf("Lind-%d", n), PreferredLanguage: "sv"},
				Email:          &managementv1.ImportHumanUserRequest_Email{Email: name, IsEmailVerified: true},
				HashedPassword: &managementv1.ImportHumanUserRequest_HashedPassword{Value: benchHash},
			}, answered[caller])
		})
	}
	apart, shared := overGRPC("gRPC", grpc[:callers]), overGRPC("gRPC, shared", grpc[callers:])
	if err := b.measure(ctx, limit, overREST, apart, shared); err != nil {
		return err
	}
	row := func(name string, f *figure, aim string) []string {
		return []string{name, perSecond(f.rate()), ratio(f.rate(), limit.rate()), aim, ms(f.percentile(.5)), ms(f.percentile(.99))}
	}
	table(fmt.Sprintf("Single imports of hashed users over HTTP, %d callers with connections kept alive, read models keeping up, beside the limit: the rows of one import, ready made, one transaction each", callers),
		[]string{"", "rate", "to the limit", "aim", "p50", "p99"},
		[][]string{row("the limit", limit, ""), row("REST", overREST, "1.0, p99 under 60 ms"), row("gRPC, a connection each", apart, ""), row(fmt.Sprintf("gRPC, %d connections", few), shared, "no slower than REST")})
	return nil
}

// benchRead measures reads of one user by id and searches by e-mail address in
// a full table, over HTTP.
func benchRead(ctx context.Context, b *bench) error {
	url, drop, err := b.database(ctx, "read")
	if err != nil {
		return err
	}
	defer drop()
	first := serial.Load() + 1
	s, err := b.serve(ctx, url, func(store *eventstore.Store) error { return fill(ctx, store, b.users) })
	if err != nil {
		return err
	}
	defer s.close()
	last := serial.Load()
	began := time.Now()
	if err := s.caughtUp(ctx); err != nil {
		return err
	}
	fmt.Printf("\nthe read models of %d users caught up in %.0f s\n", b.users, time.Since(began).Seconds())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// As a table of that age would be.
	if _, err := conn.Exec(ctx, `VACUUM (ANALYZE)`); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT stream FROM streams WHERE stream !~ '^\$' ORDER BY random() LIMIT 20000`)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}

	const most = 8
	clients, closeClients := connections(most)
	defer closeClients()
	byID := func(n int) *figure {
		return &figure{name: "by id", measure: func(ctx context.Context) (sample, error) {
			return drive(ctx, n, b.seconds, func(ctx context.Context, caller int) (int, error) {
				return 1, do(ctx, clients[caller], http.MethodGet, s.url+"/management/v1/users/"+ids[mathrand.IntN(len(ids))], nil)
			})
		}}
	}
	byEmail := func(n int) *figure {
		return &figure{name: "by e-mail", measure: func(ctx context.Context) (sample, error) {
			return drive(ctx, n, b.seconds, func(ctx context.Context, caller int) (int, error) {
				return 1, do(ctx, clients[caller], http.MethodPost, s.url+"/management/v1/users/_search", fmt.Appendf(nil,
					`{"queries":[{"emailQuery":{"emailAddress":"Person-%d@example.test","method":"TEXT_QUERY_METHOD_EQUALS_IGNORE_CASE"}}]}`,
					first+mathrand.Int64N(last-first+1)))
			})
		}}
	}
	id1, id8, mail1, mail8 := byID(1), byID(most), byEmail(1), byEmail(most)
	if err := b.measure(ctx, id1, id8, mail1, mail8); err != nil {
		return err
	}
	row := func(name string, callers int, f *figure, aim string) []string {
		return []string{name, fmt.Sprint(callers), perSecond(f.rate()), ms(f.percentile(.5)), ms(f.percentile(.99)), aim}
	}
	table(fmt.Sprintf("Reads over HTTP among %d users", b.users), []string{"", "callers", "rate", "p50", "p99", "aim for p99"},
		[][]string{row("one user by id", 1, id1, "5 ms"), row("one user by id", most, id8, ""),
			row("search by e-mail", 1, mail1, "10 ms"), row("search by e-mail", most, mail8, "")})
	return nil
}
