package consumers_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/logtest"
)

// receiver is an endpoint that checks what it gets.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	secrets []string // any of them must have signed
	answer  func(doc consumers.Document) int
	j       *journal
	ids     map[string]int
	bad     []string
	signed  int // the most signatures seen on one message
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{j: newJournal(), ids: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.receive))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) receive(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	id, at := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
	signatures := strings.Fields(req.Header.Get("webhook-signature"))
	r.signed = max(r.signed, len(signatures))
	valid := false
	for _, s := range r.secrets {
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
		h := hmac.New(sha256.New, key)
		io.WriteString(h, id+"."+at+"."+string(body))
		for _, sig := range signatures {
			valid = valid || sig == "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil))
		}
	}
	if !valid {
		r.bad = append(r.bad, id)
	}
	if strings.Contains(string(body), `"_ping"`) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	doc, err := consumers.ParseDocument(body)
	if err != nil {
		r.bad = append(r.bad, err.Error())
	}
	status := http.StatusOK
	if r.answer != nil {
		status = r.answer(doc)
	}
	if status == http.StatusOK {
		r.ids[id]++
		r.j.leave(doc.Event.Stream, doc.Event.Sequence, true)
		r.j.active[doc.Event.Stream]++
	}
	w.WriteHeader(status)
}

func TestWebhooksAreSignedOrderedAndParked(t *testing.T) {
	store := openStore(t)
	r := newReceiver(t)
	cfg := consumers.WebhooksConfig{AllowPrivate: true, Poll: 50 * time.Millisecond, Timeout: 2 * time.Second,
		Subscriber: consumers.Config{Attempts: 3, Backoff: quick, AsideAfter: time.Hour, Flush: 20 * time.Millisecond, LeaseTTL: 300 * time.Millisecond}}
	if testing.Verbose() {
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	hooks := consumers.NewWebhooks(store, cfg)
	hook, secret, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: r.URL, Types: []string{"UserLocked"}}, consumers.FromBeginning())
	if err != nil {
		t.Fatal(err)
	}
	r.secrets = []string{secret}
	ids := newUsers(t, store, 20, 3) // sequences 2, 3 and 4 are UserLocked
	appendAll(t, store, eventstore.Append{Stream: "other", Org: "org2", Actor: "test", Expected: eventstore.NoStream, At: time.Now(), Events: encode(locked)})
	outage := 5
	r.answer = func(doc consumers.Document) int {
		switch {
		case outage > 0:
			outage--
			return http.StatusServiceUnavailable
		case doc.Event.Stream == ids[3] && doc.Event.Sequence == 3:
			return http.StatusBadRequest
		}
		return http.StatusOK
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = hooks.Run(ctx) }()
	defer func() { cancel(); <-done }()

	admin := consumers.NewAdmin(store)
	locked := func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.ids)
	}
	until(t, "all but two", func() bool { return locked() == 58 })
	until(t, "the parked user", func() bool {
		p, err := admin.Parked(t.Context(), hook.Consumer(), 0)
		return err == nil && len(p) == 1 && p[0].Class == "http_400" && p[0].Stream == ids[3] && p[0].Attempts == 3
	})
	// A second key, and both sign.
	second, err := hooks.Rotate(t.Context(), "org1", hook.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hooks.Rotate(t.Context(), "org2", hook.ID, time.Hour); !errors.Is(err, consumers.ErrNoWebhook) {
		t.Errorf("another organisation rotates: %v", err)
	}
	if status, err := hooks.Ping(t.Context(), "org1", hook.ID); status != 204 || err != nil {
		t.Errorf("ping: %d, %v", status, err)
	}
	r.mu.Lock()
	if r.signed != 2 || len(r.bad) > 0 {
		t.Errorf("%d signatures, bad: %v", r.signed, r.bad)
	}
	r.secrets = []string{second}
	r.answer = nil
	r.mu.Unlock()
	if n, err := admin.Release(t.Context(), hook.Consumer(), ids[3]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	until(t, "all of them", func() bool { return locked() == 60 })
	// Replay: everything again, under the same ids.
	if err := admin.Reset(t.Context(), hook.Consumer(), 0); err != nil {
		t.Fatal(err)
	}
	until(t, "everything twice", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, n := range r.ids {
			if n < 2 {
				return false
			}
		}
		return true
	})
	r.mu.Lock()
	if len(r.ids) != 60 || len(r.bad) > 0 {
		t.Errorf("%d ids, bad: %v", len(r.ids), r.bad)
	}
	r.answer = func(consumers.Document) int { return http.StatusGone }
	r.mu.Unlock()
	newUsers(t, store, 1, 1)
	until(t, "a disabled endpoint", func() bool {
		h, err := hooks.Get(t.Context(), "org1", hook.ID)
		return err == nil && !h.Enabled
	})
	// The secret is nowhere in clear.
	var found bool
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(second, "whsec_"))
	if err := store.Pool().QueryRow(t.Context(), `SELECT position($1::bytea IN secret) > 0 FROM webhooks`, key).Scan(&found); err != nil || found {
		t.Errorf("the secret is stored in clear: %v, %v", found, err)
	}
}

func TestWebhooksRefuseTargetsThatAreNotPublic(t *testing.T) {
	store := openStore(t)
	r := newReceiver(t)
	hooks := consumers.NewWebhooks(store, consumers.WebhooksConfig{})
	for _, u := range []string{
		r.URL, "http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[fd00::1]/", "http://0.0.0.0/", "http://100.64.0.1/", "http://192.168.1.1:8080/",
	} {
		if _, _, err := hooks.Create(t.Context(), consumers.Webhook{URL: u}, consumers.FromNow()); !errors.Is(err, consumers.ErrTargetRefused) {
			t.Errorf("%s: %v", u, err)
		}
	}
	for _, u := range []string{"", "ftp://example.test/", "/path", "http://user:pass@example.test/"} {
		if _, _, err := hooks.Create(t.Context(), consumers.Webhook{URL: u}, consumers.FromNow()); !errors.Is(err, consumers.ErrWebhookURL) {
			t.Errorf("%s: %v", u, err)
		}
	}
	// A name tells nothing until it is resolved: the dialled address decides,
	// whatever other spellings of it there are.
	_, port, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), ":")
	for _, host := range []string{"localhost", "127.1", "0x7f000001"} {
		hook, _, err := hooks.Create(t.Context(), consumers.Webhook{URL: "http://" + host + ":" + port}, consumers.FromNow())
		if err != nil {
			t.Fatal(err)
		}
		if status, err := hooks.Ping(t.Context(), "", hook.ID); err == nil {
			t.Errorf("%s: answered %d", host, status)
		} else if host == "localhost" && !errors.Is(err, consumers.ErrTargetRefused) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(r.ids)+len(r.bad)+r.signed > 0 {
		t.Error("something reached the endpoint")
	}
}

// quickHooks are settings with which a test need not wait.
func quickHooks() consumers.WebhooksConfig {
	return consumers.WebhooksConfig{AllowPrivate: true, Poll: 20 * time.Millisecond, Timeout: 300 * time.Millisecond,
		Subscriber: consumers.Config{Attempts: 2, Backoff: quick, AsideAfter: time.Hour, Flush: 20 * time.Millisecond, LeaseTTL: time.Second}}
}

func runHooks(t *testing.T, hooks *consumers.Webhooks) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = hooks.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// TestAWebhookThatHangs: an endpoint that falls silent over one user parks that
// user and nobody else; one that is silent altogether parks nobody.
func TestAWebhookThatHangs(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	var (
		mu     sync.Mutex
		poison string
		down   = true
		got    = map[string]int64{}
		calls  int
	)
	ep := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		doc, err := consumers.ParseDocument(body)
		mu.Lock()
		calls++
		hangs := err != nil || down || doc.Event.Stream == poison
		if last := got[doc.Event.Stream]; !hangs && doc.Event.Sequence > last+1 {
			t.Errorf("%s: %d follows %d", doc.Event.Stream, doc.Event.Sequence, last)
		} else if !hangs {
			got[doc.Event.Stream] = max(last, doc.Event.Sequence)
		}
		mu.Unlock()
		if hangs {
			<-r.Context().Done()
			return
		}
		// The head of the answer at once, the rest slowly: it counts all the same.
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
	}))
	t.Cleanup(ep.Close)
	cfg := quickHooks()
	cfg.Subscriber.Attempts = 4
	var log logtest.Log
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	hooks := consumers.NewWebhooks(store, cfg)
	hook, _, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: ep.URL}, consumers.FromBeginning())
	if err != nil {
		t.Fatal(err)
	}
	ids := newUsers(t, store, 10, 2)
	mu.Lock()
	poison = ids[4]
	mu.Unlock()
	runHooks(t, hooks)
	admin := consumers.NewAdmin(store)
	until(t, "calls without an answer", func() bool { mu.Lock(); defer mu.Unlock(); return calls >= 9 })
	until(t, "a pause for the whole endpoint", func() bool {
		return strings.Contains(log.String(), "destination fails") && strings.Contains(log.String(), "class=no_answer")
	})
	mu.Lock()
	down = false
	mu.Unlock()
	until(t, "everybody else's events, and the one who is parked", func() bool {
		mu.Lock()
		n := 0
		for _, last := range got {
			if last == 3 {
				n++
			}
		}
		mu.Unlock()
		p, err := admin.Parked(t.Context(), hook.Consumer(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p {
			if s.Stream != poison {
				t.Fatalf("%s is parked: %+v", s.Stream, s)
			}
		}
		return n == 9 && len(p) == 1 && p[0].State == "parked" && p[0].Class == "no_answer"
	})
}

// TestAWebhookIsNotRedirected: an answer that points elsewhere is a failure of
// the event, and nobody is called there.
func TestAWebhookIsNotRedirected(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	elsewhere := newReceiver(t)
	ep := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusPermanentRedirect))
	t.Cleanup(ep.Close)
	hooks := consumers.NewWebhooks(store, quickHooks())
	hook, _, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: ep.URL}, consumers.FromBeginning())
	if err != nil {
		t.Fatal(err)
	}
	newUsers(t, store, 1, 0)
	if status, err := hooks.Ping(t.Context(), "", hook.ID); status != http.StatusPermanentRedirect || err != nil {
		t.Errorf("ping: %d, %v", status, err)
	}
	runHooks(t, hooks)
	admin := consumers.NewAdmin(store)
	until(t, "the parked user", func() bool {
		p, err := admin.Parked(t.Context(), hook.Consumer(), 0)
		return err == nil && len(p) == 1 && p[0].Class == "http_308"
	})
	elsewhere.mu.Lock()
	defer elsewhere.mu.Unlock()
	if len(elsewhere.ids)+len(elsewhere.bad)+elsewhere.signed > 0 {
		t.Error("the redirect was followed")
	}
}

// TestWebhookSecretsFollowTheKeys: a rotation of the key-encryption key takes
// the webhooks' secrets along, both of them, and until it has they are counted.
func TestWebhookSecretsFollowTheKeys(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := newReceiver(t)
	hooks := consumers.NewWebhooks(store, quickHooks())
	hook, first, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: r.URL}, consumers.FromNow())
	if err != nil {
		t.Fatal(err)
	}
	second, err := hooks.Rotate(t.Context(), "", hook.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := hooks.Create(t.Context(), consumers.Webhook{Org: "org1", URL: r.URL}, consumers.FromNow()); err != nil {
		t.Fatal(err)
	}
	newUsers(t, store, 3, 0)
	if id, err := store.Keys().AddPrimary(); err != nil || id != "k2" {
		t.Fatal(id, err)
	}
	use := func(k1, k2 int64) {
		t.Helper()
		if u, err := store.KeyUse(t.Context()); err != nil || u["k1"] != k1 || u["k2"] != k2 {
			t.Errorf("in use: %v, %v; want %d and %d", u, err, k1, k2)
		}
	}
	use(6, 0)
	// Broken off in the middle, it goes on where it stopped.
	ctx, cancel := context.WithCancel(t.Context())
	n, err := store.RewrapKeys(ctx, func(int64) { cancel() })
	if err == nil || n != 3 {
		t.Errorf("broken off: %d, %v", n, err)
	}
	use(3, 3)
	if n, err := store.RewrapKeys(t.Context(), nil); err != nil || n != 3 {
		t.Errorf("resumed: %d, %v", n, err)
	}
	use(0, 6)
	// There are no other columns with wrapped keys: whoever adds one has to add
	// it to the rotation.
	var columns string
	err = store.Pool().QueryRow(t.Context(), `
		SELECT string_agg(table_name || '.' || column_name, ' ' ORDER BY table_name, column_name) FROM information_schema.columns
		WHERE table_schema = 'public' AND column_name LIKE '%kek'`).Scan(&columns)
	if err != nil || columns != "streams.kek webhooks.previous_kek webhooks.secret_kek" {
		t.Errorf("key ids are in %s, %v", columns, err)
	}
	// Both sign as before.
	for _, secret := range []string{first, second} {
		r.mu.Lock()
		r.secrets = []string{secret}
		r.mu.Unlock()
		if status, err := hooks.Ping(t.Context(), "", hook.ID); status != http.StatusNoContent || err != nil {
			t.Errorf("ping: %d, %v", status, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bad) > 0 || r.signed != 2 {
		t.Errorf("%d signatures, bad: %v", r.signed, r.bad)
	}
}
