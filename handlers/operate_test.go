package handlers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// until asks again and again until what is waited for has come.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	for began := time.Now(); !come(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

func list(a answer, key string) []map[string]any {
	var out []map[string]any
	all, _ := a.raw[key].([]any)
	for _, v := range all {
		m, _ := v.(map[string]any)
		out = append(out, m)
	}
	return out
}

func TestReadModelsOverHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id, position := s.add(t, nil)
	for _, name := range []string{"users", "organisations", "idp_links"} { // each is made when its worker starts
		for s.rest(t, "GET", "/v1/projections/"+name, "").HTTP != 200 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	a := s.rest(t, "GET", "/v1/projections", "")
	names := map[string]bool{}
	for _, v := range list(a, "result") {
		names[v["name"].(string)] = true
		if v["state"] != "live" || v["version"] != 1.0 || v["head"].(float64) < 5 {
			t.Errorf("version: %v", v)
		}
	}
	if !names["users"] || !names["organisations"] {
		t.Errorf("read models: %s", a.Body)
	}
	want(t, s.rest(t, "GET", "/v1/projections/nothing", ""), 404, 5, "MUSTER-noprojection")
	want(t, s.rest(t, "POST", "/v1/projections/nothing/_rebuild", ""), 404, 5, "MUSTER-noprojection")

	rebuild := func(verb string) map[string]any {
		t.Helper()
		a := s.rest(t, "POST", "/v1/projections/users/"+verb, "")
		want(t, a, 200, 0, "")
		var p map[string]any
		until(t, verb, func() bool {
			a = s.rest(t, "GET", "/v1/projections/users", "")
			p, _ = a.raw["rebuild"].(map[string]any)
			return p["running"] == false
		})
		return p
	}
	if p := rebuild("_rebuild"); p["version"] != 2.0 || p["from"] != 1.0 || p["error"] != nil || p["ended"] == nil {
		t.Errorf("rebuilt: %v", p)
	}
	// Another read asks the new version.
	found := s.rest(t, "POST", "/management/v1/users/_search", "{}", "Muster-Min-Position", position)
	if r := list(found, "result"); len(r) != 1 || r[0]["id"] != id {
		t.Errorf("after the rebuild: %s", found.Body)
	}
	if p := rebuild("_rollback"); p["version"] != 1.0 || p["rollback"] != true || p["error"] != nil {
		t.Errorf("rolled back: %v", p)
	}
	// There is nothing to go back to where there was no rebuild.
	want(t, s.rest(t, "POST", "/v1/projections/organisations/_rollback", ""), 200, 0, "")
	until(t, "the refusal", func() bool {
		p, _ := s.rest(t, "GET", "/v1/projections/organisations", "").raw["rebuild"].(map[string]any)
		text, _ := p["error"].(string)
		return strings.HasSuffix(text, "(MUSTER-norollback)")
	})

	// All of them at once.
	want(t, s.rest(t, "POST", "/v1/projections/_rebuild", ""), 200, 0, "")
	for _, name := range []string{"users", "idp_links", "organisations"} {
		until(t, "the rebuild of "+name, func() bool {
			p, _ := s.rest(t, "GET", "/v1/projections/"+name, "").raw["rebuild"].(map[string]any)
			return p["running"] == false && p["error"] == nil && p["from"] == 1.0
		})
	}

	// An event of a later program stops its user's rows, and nobody else's.
	_, err := s.store.Append(t.Context(), eventstore.Append{Stream: id, Org: "org-1", Actor: "test", Expected: eventstore.Any, At: time.Now(),
		Events: []eventstore.NewEvent{{Type: "UserLocked", Schema: 99}}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the stopped stream", func() bool {
		a = s.rest(t, "GET", "/v1/projections/users/stopped", "")
		return len(list(a, "result")) == 1
	})
	if r := list(a, "result")[0]; r["stream"] != id || r["sequence"] != 4.0 || r["reason"] == "" {
		t.Errorf("stopped: %v", r)
	}
	one := s.rest(t, "GET", "/v1/projections/users/stopped?stream="+id, "").raw["stopped"].(map[string]any)
	if one["type"] != "UserLocked" || one["actor"] != "test" {
		t.Errorf("inspection: %v", one)
	}
	want(t, s.rest(t, "POST", "/v1/projections/users/_retry", fmt.Sprintf(`{"stream":%q}`, id)), 400, 9, "MUSTER-stopped")
	want(t, s.rest(t, "POST", "/v1/projections/users/_retry", `{"stream":"nobody"}`), 404, 5, "MUSTER-notstopped")
	want(t, s.rest(t, "POST", "/v1/projections/users/_retry", `{}`), 400, 3, "MUSTER-body")
	want(t, s.rest(t, "POST", "/v1/projections/users/_retry", `{"stream":1}`), 400, 3, "MUSTER-body")
	want(t, s.rest(t, "GET", "/v1/projections/nothing/stopped", ""), 404, 5, "MUSTER-noprojection")
	want(t, s.rest(t, "GET", "/v1/projections/users/stopped?limit=x", ""), 400, 3, "MUSTER-query")

	owner := "Bearer " + s.token(t, "org-1", access.OrgOwner)
	for _, c := range [][2]string{{"GET", "/v1/projections"}, {"GET", "/v1/projections/users"}, {"POST", "/v1/projections/users/_rebuild"},
		{"GET", "/v1/projections/users/stopped"}, {"POST", "/v1/projections/users/_retry"}, {"GET", "/v1/consumers"}, {"POST", "/v1/consumers/x/_reset"}} {
		want(t, s.rest(t, c[0], c[1], "", "Authorization", owner), 403, 7, "AUTH-5mWD2")
	}
}

func TestTimeTravel(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id, imported := s.add(t, with("hashedPassword", hash))
	between := time.Now()
	locked := s.rest(t, "POST", "/management/v1/users/"+id+"/_lock", "{}")
	want(t, locked, 200, 0, "")
	state := func(asOf string) any {
		t.Helper()
		a := s.rest(t, "GET", "/management/v1/users/"+id+"?asOf="+asOf, "")
		want(t, a, 200, 0, "")
		user, _ := a.raw["user"].(map[string]any)
		return user["state"]
	}
	for asOf, want := range map[string]string{
		"":                                   "USER_STATE_LOCKED",
		imported:                             "USER_STATE_ACTIVE",
		locked.Header.Get("Muster-Position"): "USER_STATE_LOCKED",
		s.store.LogID().String() + ".1." + imported:                   "USER_STATE_ACTIVE",
		between.UTC().Format(time.RFC3339Nano):                        "USER_STATE_ACTIVE",
		between.In(time.FixedZone("", 3600)).Format(time.RFC3339Nano): "USER_STATE_ACTIVE",
		time.Now().Add(time.Minute).UTC().Format(time.RFC3339):        "USER_STATE_LOCKED",
	} {
		if got := state(asOf); got != want {
			t.Errorf("as of %q: %v, want %s", asOf, got, want)
		}
		for i, p := range protocols {
			res, a := rpc[managementv1.GetUserByIDRequest, managementv1.GetUserByIDResponse](t, s, i, "/zitadel.management.v1.ManagementService/GetUserByID",
				&managementv1.GetUserByIDRequest{Id: id}, "Muster-As-Of", asOf)
			if got := res.GetUser().GetState().String(); a.Code != 0 || got != want {
				t.Errorf("as of %q over %s: %v %s, want %s", asOf, p.name, a, got, want)
			}
		}
	}
	if _, a := rpc[managementv1.GetUserByIDRequest, managementv1.GetUserByIDResponse](t, s, 0, "/zitadel.management.v1.ManagementService/GetUserByID",
		&managementv1.GetUserByIDRequest{Id: id}, "Muster-As-Of", "yesterday"); a.Code != 3 || a.id() != "MUSTER-asof" {
		t.Errorf("as of nonsense: %v", a)
	}
	path := "/management/v1/users/" + id + "?asOf="
	want(t, s.rest(t, "GET", path+"1", ""), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "GET", path+"2001-01-01T00:00:00Z", ""), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "GET", path+"yesterday", ""), 400, 3, "MUSTER-asof")
	want(t, s.rest(t, "GET", path+imported, "", "x-zitadel-orgid", "org-2"), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "GET", path+s.store.LogID().String()+".2."+imported, ""), 400, 9, "MUSTER-history")
}

func TestConsumersOverHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id, _ := s.add(t, nil)
	other, _ := s.add(t, nil)
	sub, err := consumers.NewSubscriber(s.store, consumers.Config{Attempts: 1, Flush: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, "crm")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for m := range messages {
			if m.Metadata.Get(consumers.MetaStream) == id && m.Metadata.Get(consumers.MetaType) == "EmailVerified" {
				m.Nack()
				continue
			}
			m.Ack()
		}
	}()
	t.Cleanup(func() { sub.Close(); cancel(); <-ended })

	var a answer
	parked := func() bool {
		a = s.rest(t, "GET", "/v1/consumers/crm/parked", "")
		r := list(a, "result")
		return len(r) == 1 && r[0]["state"] == "parked"
	}
	until(t, "the parked stream", parked)
	if r := list(a, "result")[0]; r["stream"] != id || r["sequence"] != 2.0 || r["type"] != "EmailVerified" || r["org"] != "org-1" {
		t.Errorf("parked: %v", r)
	}
	info := func() map[string]any {
		a := s.rest(t, "GET", "/v1/consumers/crm", "")
		i, _ := a.raw["consumer"].(map[string]any)
		return i
	}
	until(t, "the checkpoint", func() bool { return info()["lag"] == 0.0 })
	if i := info(); i["name"] != "crm" || i["parked"] != 1.0 || i["instances"] != 1.0 {
		t.Errorf("consumer: %v", i)
	}
	if r := list(s.rest(t, "GET", "/v1/consumers", ""), "result"); len(r) != 1 || r[0]["name"] != "crm" {
		t.Errorf("consumers: %v", r)
	}
	for verb, target := range map[string]string{"_retry": fmt.Sprintf(`{"stream":%q}`, id), "_release": ""} {
		a = s.rest(t, "POST", "/v1/consumers/crm/"+verb, target)
		want(t, a, 200, 0, "")
		if a.raw["streams"] != 1.0 {
			t.Errorf("%s: %s", verb, a.Body)
		}
		until(t, "the stream to be parked again", parked)
	}
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_release", fmt.Sprintf(`{"stream":%q}`, other)), 400, 9, "MUSTER-notparked")
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_skip", fmt.Sprintf(`{"stream":%q}`, id)), 400, 3, "MUSTER-reason")
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_skip", fmt.Sprintf(`{"stream":%q,"reason":"known"}`, other)), 400, 9, "MUSTER-notparked")
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_skip", fmt.Sprintf(`{"stream":%q,"reason":"known"}`, id)), 200, 0, "")
	until(t, "nothing parked", func() bool { return info()["parked"] == 0.0 && info()["retrying"] == 0.0 })
	facts, err := s.store.ReadStream(t.Context(), consumers.StreamPrefix+"crm", 0)
	if err != nil || len(facts) != 1 || facts[0].Type != consumers.TypeEventSkipped || facts[0].Actor != access.AdminID {
		t.Errorf("the record of the skip: %v, %v", facts, err)
	}
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_reset", `{"after":0}`), 400, 3, "MUSTER-yes")
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_reset", `{"yes":true}`), 400, 3, "MUSTER-yes")
	want(t, s.rest(t, "POST", "/v1/consumers/crm/_reset", `{"after":0,"yes":true}`), 200, 0, "")
	until(t, "the poison after the reset", parked)
	for _, c := range [][2]string{{"GET", "/v1/consumers/none"}, {"GET", "/v1/consumers/none/parked"}, {"POST", "/v1/consumers/none/_retry"}} {
		want(t, s.rest(t, c[0], c[1], ""), 404, 5, "MUSTER-noconsumer")
	}
	want(t, s.rest(t, "POST", "/v1/consumers/none/_reset", `{"after":0,"yes":true}`), 404, 5, "MUSTER-noconsumer")
}

// document is the part of an event's document that the tests look at.
type document struct {
	Position int64          `json:"position"`
	Stream   string         `json:"stream"`
	Type     string         `json:"type"`
	Org      string         `json:"org"`
	Sealed   bool           `json:"sealed"`
	Data     map[string]any `json:"data"`
}

func documents(t *testing.T, a answer) []document {
	t.Helper()
	want(t, a, 200, 0, "")
	if a.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("Content-Type %q", a.Header.Get("Content-Type"))
	}
	var out []document
	for line := range strings.Lines(string(a.Body)) {
		var d document
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, d)
	}
	return out
}

func TestEventsInPages(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var mine []string
	for range 3 {
		id, _ := s.add(t, with("hashedPassword", hash))
		mine = append(mine, id)
		s.add(t, with("hashedPassword", hash), "x-zitadel-orgid", "org-2")
	}
	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	page := func(query string, headers ...string) answer {
		return s.rest(t, "GET", "/v1/events?"+query, "", append([]string{"Authorization", viewer}, headers...)...)
	}
	var seen []document
	after := "0"
	for {
		a := page("limit=4&after=" + after)
		got := documents(t, a)
		if len(got) > 4 {
			t.Fatalf("a page of %d", len(got))
		}
		if through := a.Header.Get("Muster-Through"); through != after {
			after = through
		} else {
			break
		}
		seen = append(seen, got...)
		for _, d := range got {
			if strings.Contains(string(a.Body), "mouse") || d.Data["hash"] != nil || d.Data["email"] != nil {
				t.Fatalf("a person's data: %s", a.Body)
			}
		}
	}
	if head, err := s.store.Head(t.Context()); err != nil || after != fmt.Sprint(head.Position) {
		t.Errorf("read through %s of %v, %v", after, head, err)
	}
	if len(seen) != 1+3*3 { // the organisation, and three facts of each user
		t.Errorf("%d events", len(seen))
	}
	last := int64(0)
	for _, d := range seen {
		if d.Org != "org-1" || d.Position <= last || (d.Type == "HumanAdded") != (d.Sealed && d.Type != "PasswordSet" && d.Type != "OrganisationAdded") {
			t.Errorf("event: %+v", d)
		}
		last = d.Position
	}
	added := documents(t, page("types=HumanAdded,%20UserLocked&types=UserRemoved"))
	if len(added) != 3 || added[0].Stream != mine[0] || added[2].Stream != mine[2] {
		t.Errorf("added: %+v", added)
	}
	all := s.rest(t, "GET", "/v1/events?allOrganisations=true&limit=1000", "")
	if got := documents(t, all); len(got) != 2+6*3 || got[len(got)-1].Position != int64(len(got)) {
		t.Errorf("all: %d events", len(got))
	}
	want(t, page("allOrganisations=true"), 403, 7, "AUTH-5mWD2")
	want(t, page("", "x-zitadel-orgid", "org-2"), 404, 5, "AUTHZ-cdgFk")
	want(t, page("limit=1001"), 400, 3, "QUERY-4M0fs")
	want(t, page("limit=0"), 400, 3, "MUSTER-query")
	want(t, page("after=x"), 400, 3, "MUSTER-position")
	want(t, page("after="+s.store.LogID().String()+".9.1"), 400, 9, "MUSTER-history")
	want(t, page("types="+strings.Repeat("HumanAdded,", 101)), 400, 3, "MUSTER-types")
	for typ, named := range map[string]string{"HumanAded": "HumanAded", "EventSkipped2": "EventSkipped2", "%27%20OR%201": "?", "b%00": "?"} {
		a := page("types=HumanAdded," + typ)
		want(t, a, 400, 3, "MUSTER-type")
		if text := "There is no such type of event: " + named + " (MUSTER-type)"; a.Message != text {
			t.Errorf("message %q, want %q", a.Message, text)
		}
	}
	if a := page("types=HumanAded", "Accept-Language", "de"); a.Message != "Diese Art von Ereignis gibt es nicht: HumanAded (MUSTER-type)" {
		t.Errorf("in German: %q", a.Message)
	}
	want(t, s.rest(t, "GET", "/v1/events", "", "Authorization", ""), 401, 16, "")
}

// events reads a stream of Server-Sent Events until stop wants no more or the
// stream ends.
func (s *system) events(t *testing.T, bearer, query, lastID string, stop func(id, typ string, d document) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/events?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	var id, typ, data string
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			typ = value
		case "data":
			data = value
		case "":
			if data == "" {
				continue
			}
			var d document
			if err := json.Unmarshal([]byte(data), &d); err != nil {
				t.Fatal(err)
			}
			data = ""
			if stop(id, typ, d) {
				return
			}
		}
	}
	if err := ctx.Err(); err != nil {
		t.Fatalf("the stream did not end: %v", err)
	}
}

func TestEventsAsTheyCome(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	first, _ := s.add(t, nil)
	token, secret, err := s.tokens.Create(t.Context(), "reader", "org-1", access.OrgUserViewer, time.Time{}, access.AdminID)
	if err != nil {
		t.Fatal(err)
	}
	var lastID, second string
	s.events(t, secret, "types=HumanAdded", "", func(id, typ string, d document) bool {
		lastID = id
		if typ != "HumanAdded" || d.Org != "org-1" || !strings.HasSuffix(id, "."+strconv.FormatInt(d.Position, 10)) {
			t.Errorf("%s %s: %+v", id, typ, d)
		}
		switch d.Stream {
		case first: // what was there; now something comes, of others too
			s.add(t, nil, "x-zitadel-orgid", "org-2")
			second, _ = s.add(t, nil)
			return false
		case second:
			return true
		}
		t.Errorf("%+v", d)
		return true
	})
	third, _ := s.add(t, nil)
	s.events(t, secret, "types=HumanAdded&after=0", lastID, func(_, _ string, d document) bool {
		if d.Stream != third {
			t.Errorf("went on with %+v", d)
		}
		return true
	})

	// A token that is revoked gets no more after a second.
	fourth, revokedAt, added := "", time.Time{}, make(chan struct{})
	s.events(t, secret, "types=HumanAdded", lastID, func(_, _ string, d document) bool {
		switch {
		case d.Stream == third:
			if _, err := s.tokens.Revoke(t.Context(), token.ID); err != nil {
				t.Error(err)
			}
			revokedAt = time.Now()
			go func() {
				defer close(added)
				time.Sleep(time.Second)
				s.rest(t, "POST", importPath, body(nil))
			}()
		default:
			fourth = d.Stream
		}
		return false
	})
	<-added
	if fourth != "" || revokedAt.IsZero() || time.Since(revokedAt) > 5*time.Second {
		t.Errorf("after the revocation came %q, and the end after %v", fourth, time.Since(revokedAt))
	}

	a := s.rest(t, "GET", "/v1/events", "", "Accept", "text/event-stream", "Last-Event-ID", s.store.LogID().String()+".7.1")
	want(t, a, 400, 9, "MUSTER-history")
	// An open stream does not hold a shutdown up.
	opened, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		first := sync.OnceFunc(func() { close(opened) })
		s.events(t, adminToken, "", "", func(string, string, document) bool { first(); return false })
	}()
	<-opened
	s.shutdown()
	<-closed
}

// TestRebuildsEnd: what Close breaks off has ended when it returns, and
// nothing begins after.
func TestRebuildsEnd(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.deps.Rebuilds
	if err := r.Start("users", false); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if p := r.Progress("users"); p == nil || p.Running {
		t.Errorf("after Close: %+v", p)
	}
	err := r.Start("users", false)
	var e *domain.Error
	if !errors.As(err, &e) || e.Kind != domain.KindUnavailable {
		t.Errorf("after Close a rebuild began: %v", err)
	}
}
