package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/muster-id/muster/internal/pgtest"
)

// TestDomainCommands goes through an operator's way with domains, and finds the
// log in order at each step.
func TestDomainCommands(t *testing.T) {
	t.Parallel()
	url, dir := pgtest.New(t), t.TempDir()
	muster := func(wantErr string, args ...string) string {
		t.Helper()
		var out, errOut bytes.Buffer
		err := run(context.Background(), append([]string{"--database-url", url, "--data-dir", dir}, args...), &out, &errOut)
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Fatalf("%v: %v, want %q\n%s%s", args, err, wantErr, out.String(), errOut.String())
		}
		return out.String()
	}
	one := strings.TrimSpace(muster("", "org", "create", "One"))
	two := strings.TrimSpace(muster("", "org", "create", "Two"))
	if out := muster("", "org", "domain", "add", one, "Acme.Example"); out != "acme.example\n" {
		t.Errorf("added: %q", out)
	}
	muster("", "org", "domain", "add", one, "b.example")
	muster("MUSTER-domaintaken", "org", "domain", "add", two, "acme.example")
	muster("MUSTER-domain", "org", "domain", "add", two, "a b")
	muster("MUSTER-orgmissing", "org", "domain", "list", "nobody")
	if out := muster("", "org", "domain", "list", one); out != "acme.example\nb.example\n" {
		t.Errorf("listed: %q", out)
	}
	if out := muster("", "verify", "--log"); !strings.Contains(out, "2 claims") || !strings.Contains(out, ": 0 findings") {
		t.Errorf("verify: %s", out)
	}
	if out := muster("", "org", "domain", "remove", one, "acme.example"); out != "b.example\n" {
		t.Errorf("left: %q", out)
	}
	muster("MUSTER-nodomain", "org", "domain", "remove", one, "acme.example")
	muster("", "org", "domain", "add", two, "acme.example")
	if out := muster("", "verify", "--log"); !strings.Contains(out, "2 claims") || !strings.Contains(out, ": 0 findings") {
		t.Errorf("verify: %s", out)
	}
}
