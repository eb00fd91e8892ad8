package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/internal/pgtest"
)

// TestWebhooksOnTheCommandLine makes, tests, rotates and forgets a webhook.
func TestWebhooksOnTheCommandLine(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.New(t), t.TempDir()
	muster := func(wantErr string, args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		err := run(context.Background(), append([]string{"--database-url", url, "--data-dir", dir}, args...), &out, &errOut)
		switch code := exitError(0); {
		case wantErr == "" && err != nil:
			t.Fatalf("%v: %v\n%s", args, err, errOut.String())
		case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) && !errors.As(err, &code):
			t.Fatalf("%v: %v, want %q", args, err, wantErr)
		}
		return out.String()
	}
	status := atomic.Int32{}
	status.Store(http.StatusOK)
	ep := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(ep.Close)
	org := strings.TrimSpace(muster("", "org", "create", "Elsewhere"))

	muster("no such organisation", "webhooks", "create", "--org", "none", "https://a.example/")
	muster("no type of event", "webhooks", "create", "--org", org, "--type", "HumanAded", "https://a.example/")
	muster(consumers.ErrTargetRefused.Error(), "webhooks", "create", "--org", org, ep.URL)
	muster("can't be used together", "webhooks", "create", "--org", org, "--all-organisations", "https://a.example/")
	id, secret, ok := strings.Cut(strings.TrimSpace(muster("", "webhooks", "--webhooks-private", "create", "--org", org, "--type", "HumanAdded,UserRemoved", "--from", "beginning", ep.URL)), " ")
	if !ok || !strings.HasPrefix(secret, "whsec_") {
		t.Fatalf("created: %q %q", id, secret)
	}
	if out := muster("", "webhooks"); !strings.Contains(out, id) || !strings.Contains(out, "HumanAdded,UserRemoved") || strings.Contains(out, "whsec_") {
		t.Errorf("list:\n%s", out)
	}
	if out := muster("", "webhooks", "list", "--org", "other"); strings.Contains(out, id) {
		t.Errorf("another organisation's list:\n%s", out)
	}
	if out := muster("", "webhooks", "--webhooks-private", "ping", id); strings.TrimSpace(out) != "200" {
		t.Errorf("ping: %s", out)
	}
	status.Store(http.StatusTeapot)
	if out := muster("exit code 1", "webhooks", "--webhooks-private", "ping", id); strings.TrimSpace(out) != "418" {
		t.Errorf("ping: %s", out)
	}
	muster("target_refused", "webhooks", "ping", id)
	if second := strings.TrimSpace(muster("", "webhooks", "rotate", id, "--overlap", "1h")); !strings.HasPrefix(second, "whsec_") || second == secret {
		t.Errorf("rotated: %s", second)
	}
	muster("30 days", "webhooks", "rotate", id, "--overlap", "721h")
	muster("", "webhooks", "disable", id)
	if out := muster("", "webhooks"); !strings.Contains(out, "disabled") {
		t.Errorf("list:\n%s", out)
	}
	muster("", "webhooks", "enable", id)
	muster("", "webhooks", "replay", id, "--after", "0")
	muster("", "webhooks", "parked", id)
	muster("", "webhooks", "retry", id)
	muster("", "webhooks", "release", id)
	muster("not parked", "webhooks", "skip", id, "nobody", "--reason", "why not")
	muster("", "webhooks", "delete", id)
	muster("no such webhook", "webhooks", "delete", id)
	if out := muster("", "webhooks"); strings.Contains(out, id) {
		t.Errorf("list:\n%s", out)
	}
}
