package handlers_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
)

// delivery is what an endpoint got.
type delivery struct {
	id, kind, stream, org string
	sequence              int64
	signatures            int
	signers               int // how many of the endpoint's keys signed it
}

// endpoint is somebody's webhook receiver.
type endpoint struct {
	*httptest.Server
	mu   sync.Mutex
	keys []string
	fail map[string]bool // users whose events it refuses
	got  []delivery
}

func newEndpoint(t *testing.T) *endpoint {
	ep := &endpoint{fail: map[string]bool{}}
	ep.Server = httptest.NewServer(ep)
	t.Cleanup(ep.Close)
	return ep
}

// ServeHTTP checks a message as the Standard Webhooks specification has it.
func (ep *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var doc struct {
		Type     string `json:"type"`
		Stream   string `json:"stream"`
		Org      string `json:"org"`
		Sequence int64  `json:"sequence"`
	}
	if err != nil || json.Unmarshal(raw, &doc) != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	d := delivery{id: r.Header.Get("webhook-id"), kind: doc.Type, stream: doc.Stream, org: doc.Org, sequence: doc.Sequence}
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for s := range strings.FieldsSeq(r.Header.Get("webhook-signature")) {
		d.signatures++
		for _, key := range ep.keys {
			secret, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whsec_"))
			mac := hmac.New(sha256.New, secret)
			fmt.Fprintf(mac, "%s.%s.%s", d.id, r.Header.Get("webhook-timestamp"), raw)
			if s == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
				d.signers++
			}
		}
	}
	if ep.fail[doc.Stream] {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	ep.got = append(ep.got, d)
}

func (ep *endpoint) change(f func()) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	f()
}

// of returns what came for a user, and of a type.
func (ep *endpoint) of(stream, kind string) (list []delivery) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	for _, d := range ep.got {
		if d.stream == stream && (kind == "" || d.kind == kind) {
			list = append(list, d)
		}
	}
	return list
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

// withWebhooks starts a service whose webhooks are sent.
func withWebhooks(t *testing.T) *system {
	var hooks *consumers.Webhooks
	s := start(t, func(d *handlers.Deps) {
		hooks = consumers.NewWebhooks(d.Store, consumers.WebhooksConfig{
			AllowPrivate: true, Poll: 20 * time.Millisecond,
			Subscriber: consumers.Config{Attempts: 2, Flush: 20 * time.Millisecond, LeaseTTL: time.Second,
				Backoff: func(int) time.Duration { return 5 * time.Millisecond }},
		})
		d.Webhooks = hooks
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = hooks.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}

// made creates a webhook and returns its id and its secret.
func (s *system) hook(t *testing.T, token, body string, headers ...string) (id, secret string) {
	t.Helper()
	a := s.rest(t, "POST", "/v1/webhooks", body, append([]string{"Authorization", "Bearer " + token}, headers...)...)
	want(t, a, 200, 0, "")
	h, _ := a.raw["webhook"].(map[string]any)
	id, _ = h["id"].(string)
	secret, _ = a.raw["secret"].(string)
	if id == "" || !strings.HasPrefix(secret, "whsec_") {
		t.Fatalf("created: %s", a.Body)
	}
	return id, secret
}

func TestWebhooksOverHTTP(t *testing.T) {
	t.Parallel()
	s := withWebhooks(t)
	ep := newEndpoint(t)
	owner := s.token(t, "org-1", access.OrgOwner)
	auth := []string{"Authorization", "Bearer " + owner}
	early, _ := s.add(t, nil) // before the webhook: it begins now
	id, secret := s.hook(t, owner, fmt.Sprintf(`{"url":%q,"types":["HumanAdded","UserLocked","UserUnlocked"]}`, ep.URL))
	ep.change(func() { ep.keys = []string{secret} })
	path := "/v1/webhooks/" + id

	// The organisation's events of these types, in order for each user.
	user, _ := s.add(t, nil)
	other, _ := s.add(t, nil, "x-zitadel-orgid", "org-2")
	for _, verb := range []string{"_lock", "_unlock", "_lock"} {
		want(t, s.rest(t, "POST", "/management/v1/users/"+user+"/"+verb, "{}"), 200, 0, "")
	}
	eventually(t, "four events", func() bool { return len(ep.of(user, "")) == 4 })
	kinds, last := "", int64(0)
	for _, d := range ep.of(user, "") {
		kinds += d.kind + " "
		if d.signatures != 1 || d.signers != 1 || d.org != "org-1" || d.sequence <= last {
			t.Errorf("%+v after sequence %d", d, last)
		}
		last = d.sequence
	}
	if kinds != "HumanAdded UserLocked UserUnlocked UserLocked " {
		t.Errorf("got %s", kinds)
	}

	// A user whose events are refused is parked, and delays nobody.
	poison, _ := s.add(t, nil)
	ep.change(func() { ep.fail[poison] = true })
	want(t, s.rest(t, "POST", "/management/v1/users/"+poison+"/_lock", "{}"), 200, 0, "")
	after, _ := s.add(t, nil)
	eventually(t, "the next user", func() bool { return len(ep.of(after, "")) == 1 })
	eventually(t, "the parked user", func() bool {
		r := list(s.rest(t, "GET", path+"/parked", "", auth...), "result")
		return len(r) == 1 && r[0]["stream"] == poison && r[0]["state"] == "parked" && r[0]["class"] == "http_400" && r[0]["attempts"] == 2.0
	})
	target := fmt.Sprintf(`{"stream":%q}`, poison)
	want(t, s.rest(t, "POST", path+"/_retry", target, auth...), 200, 0, "")
	eventually(t, "it is parked again", func() bool {
		r := list(s.rest(t, "GET", path+"/parked", "", auth...), "result")
		return len(r) == 1 && r[0]["state"] == "parked"
	})
	want(t, s.rest(t, "POST", path+"/_skip", target, auth...), 400, 3, "MUSTER-reason")
	ep.change(func() { ep.fail[poison] = false })
	seen := len(ep.of(poison, "HumanAdded"))
	want(t, s.rest(t, "POST", path+"/_skip", fmt.Sprintf(`{"stream":%q,"reason":"the receiver cannot"}`, poison), auth...), 200, 0, "")
	eventually(t, "the event behind what was skipped", func() bool { return len(ep.of(poison, "UserLocked")) == 1 })
	if len(ep.of(poison, "HumanAdded")) > 1 || seen > 1 {
		t.Error("an event came twice")
	}
	want(t, s.rest(t, "POST", path+"/_release", target, auth...), 400, 9, "MUSTER-notparked")

	// Two keys sign, then one alone.
	a := s.rest(t, "POST", path+"/_rotate", `{"overlapSeconds":3600}`, auth...)
	want(t, a, 200, 0, "")
	second, _ := a.raw["secret"].(string)
	if until, _ := a.raw["webhook"].(map[string]any)["previousKeyUntil"].(string); until == "" || second == secret {
		t.Errorf("rotated: %s", a.Body)
	}
	ep.change(func() { ep.keys = []string{secret, second} })
	ping := func(signatures int) {
		t.Helper()
		before := len(ep.of("", "_ping"))
		a := s.rest(t, "POST", path+"/_ping", "", auth...)
		want(t, a, 200, 0, "")
		pings := ep.of("", "_ping")
		if a.raw["delivered"] != true || a.raw["status"] != 200.0 || len(pings) != before+1 {
			t.Fatalf("pinged: %s", a.Body)
		}
		if p := pings[before]; p.signatures != signatures || p.signers != signatures {
			t.Errorf("%d signatures, %d good, want %d", p.signatures, p.signers, signatures)
		}
	}
	ping(2)
	a = s.rest(t, "POST", path+"/_rotate", `{"overlapSeconds":0}`, auth...)
	third, _ := a.raw["secret"].(string)
	ep.change(func() { ep.keys = []string{third} })
	ping(1)
	want(t, s.rest(t, "POST", path+"/_rotate", `{"overlapSeconds":-1}`, auth...), 400, 3, "MUSTER-overlap")
	want(t, s.rest(t, "POST", path+"/_rotate", `{"overlapSeconds":2592001}`, auth...), 400, 3, "MUSTER-overlap")

	// A secret is shown once.
	for _, p := range []string{"/v1/webhooks", path} {
		if a := s.rest(t, "GET", p, "", auth...); strings.Contains(string(a.Body), "whsec_") || strings.Contains(string(a.Body), "secret") {
			t.Errorf("%s: %s", p, a.Body)
		}
	}

	// What happens while it is off is sent once it is on.
	a = s.rest(t, "POST", path+"/_disable", "", auth...)
	want(t, a, 200, 0, "")
	if a.raw["webhook"].(map[string]any)["enabled"] != false {
		t.Errorf("disabled: %s", a.Body)
	}
	missed, _ := s.add(t, nil)
	want(t, s.rest(t, "POST", path+"/_enable", "", auth...), 200, 0, "")
	eventually(t, "what happened while it was off", func() bool { return len(ep.of(missed, "")) == 1 })

	// A replay sends everything behind a position, under the ids of before.
	ids := map[string]bool{}
	for _, d := range ep.of(user, "") {
		ids[d.id] = true
	}
	want(t, s.rest(t, "POST", path+"/_replay", `{}`, auth...), 400, 3, "MUSTER-replay")
	want(t, s.rest(t, "POST", path+"/_replay", `{"after":-1}`, auth...), 400, 3, "MUSTER-replay")
	want(t, s.rest(t, "POST", path+"/_replay", `{"after":0}`, auth...), 200, 0, "")
	eventually(t, "the replay", func() bool { return len(ep.of(user, "")) == 8 && len(ep.of(early, "")) == 1 })
	for _, d := range ep.of(user, "") {
		if !ids[d.id] {
			t.Errorf("%+v has a new id", d)
		}
	}
	if len(ep.of(other, "")) > 0 {
		t.Error("another organisation's events came")
	}

	want(t, s.rest(t, "DELETE", path, "", auth...), 200, 0, "")
	want(t, s.rest(t, "GET", path, "", auth...), 404, 5, "MUSTER-nowebhook")
	want(t, s.rest(t, "GET", "/v1/consumers/webhook-"+id, ""), 404, 5, "MUSTER-noconsumer")
	if strings.Contains(s.log.String(), strings.TrimPrefix(third, "whsec_")) {
		t.Error("a secret is in the service's log")
	}
}

// TestWebhooksAreTheirOrganisations: nobody sees or touches another
// organisation's webhooks, but for the installation's owner.
func TestWebhooksAreTheirOrganisations(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.Webhooks = consumers.NewWebhooks(d.Store, consumers.WebhooksConfig{}) })
	one, two := s.token(t, "org-1", access.OrgOwner), s.token(t, "org-2", access.OrgOwner)
	body := `{"url":"https://hooks.example.org/muster"}`
	first, _ := s.hook(t, one, body)
	second, _ := s.hook(t, two, body)
	everywhere, _ := s.hook(t, adminToken, `{"url":"https://hooks.example.org/all","allOrganisations":true}`)
	admins, _ := s.hook(t, adminToken, body, "x-zitadel-orgid", "org-2")

	shown := func(token string, headers ...string) (ids []string) {
		for _, h := range list(s.rest(t, "GET", "/v1/webhooks", "", append([]string{"Authorization", "Bearer " + token}, headers...)...), "result") {
			ids = append(ids, h["id"].(string))
		}
		return ids
	}
	for _, c := range []struct {
		name  string
		token string
		org   string
		want  []string
	}{
		{"owner of 1", one, "", []string{first}},
		{"owner of 2", two, "", []string{second, admins}},
		{"installation's owner", adminToken, "", []string{first, second, everywhere, admins}},
		{"installation's owner in 1", adminToken, "org-1", []string{first}},
	} {
		if got := shown(c.token, "x-zitadel-orgid", c.org); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s sees %v, want %v", c.name, got, c.want)
		}
	}
	calls := []struct{ method, path, body string }{
		{"GET", "", ""}, {"DELETE", "", ""}, {"POST", "/_enable", ""}, {"POST", "/_disable", ""}, {"POST", "/_rotate", ""}, {"POST", "/_ping", ""},
		{"POST", "/_replay", `{"after":0}`}, {"GET", "/parked", ""}, {"POST", "/_retry", ""}, {"POST", "/_release", ""}, {"POST", "/_skip", `{"stream":"x","reason":"y"}`},
	}
	before, err := consumers.NewAdmin(s.store).Leases(t.Context(), "webhook-"+first)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		for _, id := range []string{first, everywhere, "none"} {
			a := s.rest(t, c.method, "/v1/webhooks/"+id+c.path, c.body, "Authorization", "Bearer "+two)
			if a.HTTP != 404 || a.id() != "MUSTER-nowebhook" {
				t.Errorf("%s %s of another organisation: %d %s", c.method, c.path, a.HTTP, a.Body)
			}
		}
		for _, role := range []access.Role{access.OrgUserManager, access.OrgUserViewer} {
			want(t, s.rest(t, c.method, "/v1/webhooks/"+first+c.path, c.body, "Authorization", "Bearer "+s.token(t, "org-1", role)), 403, 7, "AUTH-5mWD2")
		}
		want(t, s.rest(t, c.method, "/v1/webhooks/"+first+c.path, c.body, "Authorization", ""), 401, 16, "")
	}
	after, err := consumers.NewAdmin(s.store).Leases(t.Context(), "webhook-"+first)
	if err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("another organisation's calls changed something: %v, %v, %v", before, after, err)
	}
	want(t, s.rest(t, "POST", "/v1/webhooks", body, "Authorization", "Bearer "+two, "x-zitadel-orgid", "org-1"), 404, 5, "AUTHZ-cdgFk")
	want(t, s.rest(t, "POST", "/v1/webhooks", `{"url":"https://hooks.example.org/","allOrganisations":true}`, "Authorization", "Bearer "+two), 403, 7, "AUTH-5mWD2")

	for body, id := range map[string]string{
		`{}`:                                                  "MUSTER-webhookurl",
		`{"url":"ftp://example.org/"}`:                        "MUSTER-webhookurl",
		`{"url":"https://a:b@example.org/"}`:                  "MUSTER-webhookurl",
		`{"url":"http://127.0.0.1:9/"}`:                       "MUSTER-webhooktarget",
		`{"url":"http://[::ffff:10.0.0.1]/"}`:                 "MUSTER-webhooktarget",
		`{"url":"https://a.example/","types":1}`:              "MUSTER-body",
		`{"url":"https://a.example/","types":["HumanAded"]}`:  "MUSTER-webhooktype",
		`{"url":"https://a.example/","from":"then"}`:          "MUSTER-webhookstart",
		`{"url":"https://a.example/","after":-1}`:             "MUSTER-webhookstart",
		`{"url":"https://a.example/","after":1,"from":"now"}`: "MUSTER-webhookstart",
		`{"url":"https://a.example/","types":[` + strings.Repeat(`"x",`, 100) + `"x"]}`:    "MUSTER-types",
		`{"url":"https://a.example/` + strings.Repeat("x", consumers.MaxWebhookURL) + `"}`: "MUSTER-webhookurl",
	} {
		want(t, s.rest(t, "POST", "/v1/webhooks", body, "Authorization", "Bearer "+one), 400, 3, id)
	}
	// A name that leads to a loopback address is found out when it is called.
	local, _ := s.hook(t, one, `{"url":"http://localhost:9/"}`)
	if a := s.rest(t, "POST", "/v1/webhooks/"+local+"/_ping", "", "Authorization", "Bearer "+one); a.HTTP != 200 || a.raw["delivered"] != false || a.raw["failure"] != "target_refused" {
		t.Errorf("pinged: %d %s", a.HTTP, a.Body)
	}
	// Where it begins.
	head, err := s.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for body, position := range map[string]eventstore.Position{
		`,"from":"beginning"`: 0, `,"from":"now"`: head.Position, ``: head.Position, `,"after":1`: 1, `,"since":"2001-01-01T00:00:00Z"`: 0,
	} {
		id, _ := s.hook(t, one, `{"url":"https://a.example/"`+body+`}`)
		leases, err := consumers.NewAdmin(s.store).Leases(t.Context(), "webhook-"+id)
		if err != nil || leases[0].Checkpoint.Position != position {
			t.Errorf("%s begins at %+v, %v; want %d", body, leases, err, position)
		}
	}
	// There is an end to it.
	_, err = s.store.Pool().Exec(t.Context(), `
		INSERT INTO webhooks (id, org, url, types, open_sealed, secret_kek, secret)
		SELECT 'x' || n, 'org-1', 'https://a.example/', '{}', false, 'k1', '' FROM generate_series(1, $1) n`, consumers.MaxWebhooks)
	if err != nil {
		t.Fatal(err)
	}
	want(t, s.rest(t, "POST", "/v1/webhooks", body, "Authorization", "Bearer "+one), 400, 9, "MUSTER-webhookmany")
	s.hook(t, two, body)
}
