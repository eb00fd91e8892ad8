package handlers_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/servicetest"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

const adminToken = servicetest.AdminToken

// system is the service on a real port over a real database of its own.
type system struct {
	url    string
	deps   handlers.Deps
	store  *eventstore.Store
	tokens *access.Tokens
	orgs   *access.Organisations
	log    *logtest.Log
	http   *http.Client // HTTP/1.1
	h2     *http.Client // HTTP/2 in clear text, as gRPC needs it
	// shutdown ends the service once what it accepted is finished; the test
	// fails when that takes long.
	shutdown func()
}

// start runs a service with two organisations, org-1 (the administrator's) and
// org-2. change may adjust what it is made of.
func start(t testing.TB, change func(*handlers.Deps)) *system {
	t.Helper()
	ctx := context.Background()
	store := servicetest.Store(t)
	s := &system{store: store, log: &logtest.Log{}}
	s.tokens = access.NewTokens(store.Pool(), adminToken, "org-1", time.Now)
	s.orgs = access.NewOrganisations(store, time.Now)
	for _, org := range []string{"org-1", "org-2"} {
		if _, err := s.orgs.Create(ctx, org, "Organisation "+org, access.AdminID); err != nil {
			t.Fatal(err)
		}
	}
	policy := domain.DefaultPolicy()
	engine := servicetest.Projections(t, store)
	s.deps = handlers.Deps{
		Projections: engine,
		Store:       store, Tokens: s.tokens, Organisations: s.orgs,
		Importer: &importer.Importer{Store: store, Passwords: password.NewPool(2, rand.Reader), Policy: policy, Reserved: s.orgs.Reserved, Now: time.Now, Rand: rand.Reader},
		Log:      s.log.Logger(),
	}
	stopping := make(chan struct{})
	rebuilds := handlers.NewRebuilds(engine, nil)
	t.Cleanup(rebuilds.Close)
	s.deps.Rebuilds, s.deps.Stopping = rebuilds, stopping
	if change != nil {
		change(&s.deps)
	}
	l := servicetest.Listen(t)
	s.shutdown = servicetest.Serve(t, l, s.deps, stopping)
	s.url = "http://" + l.Addr().String()
	s.http = &http.Client{Transport: &http.Transport{}}
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	s.h2 = &http.Client{Transport: &http.Transport{Protocols: &p}}
	t.Cleanup(func() { s.http.CloseIdleConnections(); s.h2.CloseIdleConnections() })
	return s
}

// token makes a token and returns its secret.
func (s *system) token(t *testing.T, org string, role access.Role) string {
	t.Helper()
	_, secret, err := s.tokens.Create(context.Background(), "test", org, role, time.Time{}, access.AdminID)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// answer is what a call came to, whichever protocol carried it.
type answer struct {
	Code    int // gRPC; 0 is success
	Message string
	Details []errorDetail
	HTTP    int // REST only
	Header  http.Header
	Body    []byte // REST only
	raw     map[string]any
}

type errorDetail struct {
	Type    string `json:"@type"`
	ID      string `json:"id"`
	Message string `json:"message"`
}

func (a answer) id() string {
	if len(a.Details) == 1 {
		return a.Details[0].ID
	}
	return ""
}

// rest makes a REST call. Headers come in pairs; "Authorization" defaults to
// the administrator's and is left out when given as "".
func (s *system) rest(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	setHeaders(req.Header, headers)
	res, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{HTTP: res.StatusCode, Header: res.Header, Body: b}
	if len(b) > 0 && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &a.raw); err != nil {
			t.Fatalf("answer is not JSON: %v: %s", err, b)
		}
	}
	if res.StatusCode >= 400 && a.raw != nil {
		var e struct {
			Code    int           `json:"code"`
			Message string        `json:"message"`
			Details []errorDetail `json:"details"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatalf("error body: %v: %s", err, b)
		}
		a.Code, a.Message, a.Details = e.Code, e.Message, e.Details
		if _, there := a.raw["details"]; there && len(e.Details) == 0 {
			t.Errorf("details is there and empty: %s", b)
		}
	}
	return a
}

func setHeaders(h http.Header, pairs []string) {
	h.Set("Authorization", "Bearer "+adminToken)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			h.Del(pairs[i])
			continue
		}
		h.Set(pairs[i], pairs[i+1])
	}
}

// protocols are the ways to call a method beside REST.
var protocols = []struct {
	name string
	h2   bool
	path string // instead of the procedure's own
	opts []connect.ClientOption
}{
	{"gRPC", true, "", []connect.ClientOption{connect.WithGRPC()}},
	{"gRPC-Web", false, "", []connect.ClientOption{connect.WithGRPCWeb()}},
	{"Connect", false, "", nil},
	{"Connect JSON", true, "", []connect.ClientOption{connect.WithProtoJSON()}},
}

// rpc makes one unary call.
func rpc[Req, Resp any](t *testing.T, s *system, protocol int, procedure string, req *Req, headers ...string) (*Resp, answer) {
	t.Helper()
	p := protocols[protocol]
	client := s.http
	if p.h2 {
		client = s.h2
	}
	c := connect.NewClient[Req, Resp](client, s.url+procedure, p.opts...)
	r := connect.NewRequest(req)
	setHeaders(r.Header(), headers)
	res, err := c.CallUnary(context.Background(), r)
	if err == nil {
		return res.Msg, answer{Header: res.Header()}
	}
	var e *connect.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v", p.name, err)
	}
	a := answer{Code: int(e.Code()), Message: e.Message(), Header: e.Meta()}
	for _, d := range e.Details() {
		v, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		own, ok := v.(*zitadelv1.ErrorDetail)
		if !ok {
			t.Fatalf("%s: detail is a %T", p.name, v)
		}
		a.Details = append(a.Details, errorDetail{"type.googleapis.com/" + d.Type(), own.GetId(), own.GetMessage()})
	}
	return nil, a
}

// fromJSON reads a message as leniently as the service does.
func fromJSON(t testing.TB, body string, m proto.Message) {
	t.Helper()
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(body), m); err != nil {
		t.Fatal(err)
	}
}
