package console_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/servicetest"
)

const (
	adminToken = servicetest.AdminToken
	hash       = "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"
)

// site is the service on a real port over a database of its own.
type site struct {
	t        testing.TB
	url      string
	store    *eventstore.Store
	tokens   *access.Tokens
	log      *logtest.Log
	shutdown func() // ends the service once what it accepted is finished
}

func start(t testing.TB, change func(*handlers.Deps)) *site {
	t.Helper()
	ctx := context.Background()
	s := &site{t: t, log: &logtest.Log{}, store: servicetest.Store(t)}
	s.tokens = access.NewTokens(s.store.Pool(), adminToken, "org-1", time.Now)
	orgs := access.NewOrganisations(s.store, time.Now)
	for id, name := range map[string]string{"org-1": "Nordlicht Books", "org-2": "Second & <b>Sons</b>"} {
		if _, err := orgs.Create(ctx, id, name, access.AdminID); err != nil {
			t.Fatal(err)
		}
	}
	engine := servicetest.Projections(t, s.store)
	log := s.log.Logger()
	stopping := make(chan struct{})
	rebuilds := handlers.NewRebuilds(engine, nil)
	t.Cleanup(rebuilds.Close)
	deps := handlers.Deps{
		Store: s.store, Projections: engine, Tokens: s.tokens, Organisations: orgs, Rebuilds: rebuilds, Stopping: stopping, Log: log,
		Importer: &importer.Importer{Store: s.store, Passwords: password.NewPool(2, rand.Reader), Policy: domain.DefaultPolicy(), Now: time.Now, Rand: rand.Reader},
	}
	deps.Jobs = importer.NewJobs(deps.Importer, log)
	deps.Bulk = handlers.ServeBulk(deps.Jobs, log)
	if change != nil {
		change(&deps)
	}
	l := servicetest.Listen(t)
	s.shutdown = servicetest.Serve(t, l, deps, stopping)
	s.url = "http://" + l.Addr().String()
	return s
}

// token makes a token and returns it with its secret.
func (s *site) token(org string, role access.Role) (access.Token, string) {
	s.t.Helper()
	token, secret, err := s.tokens.Create(context.Background(), "night shift", org, role, time.Time{}, access.AdminID)
	if err != nil {
		s.t.Fatal(err)
	}
	return token, secret
}

// importing streams an import of many, line by line as send is called with
// numbers; done ends it.
func (s *site) importing(job string) (send func(from, to int), done func()) {
	s.t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequest("POST", s.url+"/management/v1/users/human/_import?jobId="+job, r)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/x-ndjson")
	ended := make(chan string, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			ended <- err.Error()
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			ended <- fmt.Sprint(res.Status, err, string(b))
			return
		}
		ended <- ""
	}()
	send = func(from, to int) {
		for n := from; n <= to; n++ {
			credential := ""
			if n%4 != 0 { // the others have to complete their account
				credential = `,"hashedPassword":{"value":"` + hash + `"}`
			}
			fmt.Fprintf(w, `{"userName":"ada.lind%d","profile":{"firstName":"Ada","lastName":"Lind %d"},"email":{"email":"ada%d@example.org","isEmailVerified":true}%s}`+"\n", n, n, n, credential)
		}
	}
	done = func() {
		s.t.Helper()
		w.Close()
		if problem := <-ended; problem != "" {
			s.t.Fatalf("the import: %s", problem)
		}
	}
	return send, done
}

// agent is a browser without JavaScript.
type agent struct {
	s      *site
	client *http.Client
}

func (s *site) agent() *agent {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &agent{s, &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// in is an agent that has logged in.
func (s *site) in(secret string) *agent {
	s.t.Helper()
	a := s.agent()
	if r := a.post("/ui/admin/login", url.Values{"token": {secret}}); r.status != 200 || !strings.Contains(r.body, "Read models") {
		s.t.Fatalf("logging in: %d %s", r.status, r.body)
	}
	return a
}

type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request; headers come in pairs.
func (a *agent) ask(method, path, body string, headers ...string) reply {
	a.s.t.Helper()
	r, err := http.NewRequest(method, a.s.url+path, strings.NewReader(body))
	if err != nil {
		a.s.t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := a.client.Do(r)
	if err != nil {
		a.s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.s.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

func (a *agent) get(path string) reply { a.s.t.Helper(); return a.ask("GET", path, "") }
func (a *agent) post(path string, form url.Values) reply {
	a.s.t.Helper()
	return a.ask("POST", path, form.Encode(), "Origin", a.s.url, "Accept", "text/html")
}

// until polls until ok holds.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}
