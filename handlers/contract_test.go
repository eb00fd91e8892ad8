package handlers_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// everyProtocol makes an import over REST and every other protocol.
func (s *system) everyProtocol(t *testing.T, request func() string, headers []string, check func(t *testing.T, protocol string, a answer)) {
	t.Helper()
	check(t, "REST", s.rest(t, "POST", importPath, request(), headers...))
	for i, p := range protocols {
		req := &managementv1.ImportHumanUserRequest{}
		fromJSON(t, request(), req)
		_, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, i, importProcedure, req, headers...)
		check(t, p.name, a)
	}
}

// TestProvidersOnAList is CONTRACT.md §1.6's second check with A.2's list: a
// link may name a provider on it and no other. (The third check, COMMAND-SJI3g,
// has no case: a provider on the list always allows creation.)
func TestProvidersOnAList(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.Importer.Policy.IDPConfigs = []string{"google", "github"} })
	link := func(config string) func() string {
		return func() string { return body(idp(config, "u-"+unique(), "n")) }
	}
	s.everyProtocol(t, link("github"), nil, func(t *testing.T, protocol string, a answer) {
		if a.Code != 0 {
			t.Errorf("%s: %d %s", protocol, a.Code, a.Message)
		}
	})
	s.everyProtocol(t, link("gitlab"), nil, func(t *testing.T, protocol string, a answer) {
		if a.Code != 9 || a.Message != "Identity Provider Configuration doesn't exist (COMMAND-39nfs)" || a.id() != "COMMAND-39nfs" || a.HTTP != 0 && a.HTTP != 400 {
			t.Errorf("%s: %d %d %s", protocol, a.HTTP, a.Code, a.Message)
		}
	})
	// The edge judges before the provider is looked for (§7.3).
	want(t, s.rest(t, "POST", importPath, body(idp("", "u", ""))), 400, 3, "")
}

// TestWhoMayWrite is the last row of CONTRACT.md §8: the roles that own
// user.write, each in its own organisation and in another.
func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	writers := []access.Role{"IAM_OWNER", "IAM_ORG_MANAGER", "IAM_USER_MANAGER", "IAM_LOGIN_CLIENT", "ORG_OWNER", "ORG_USER_MANAGER"}
	for _, role := range access.Roles {
		bearer := "Bearer " + s.token(t, "org-1", role)
		for org, refusal := range map[string]int{"": 0, "org-2": 5} {
			code := 0
			switch {
			case org != "" && !everywhere[role]:
				code = refusal
			case !slices.Contains(writers, role):
				code = 7
			}
			s.everyProtocol(t, func() string { return body(nil) }, []string{"Authorization", bearer, "x-zitadel-orgid", org}, func(t *testing.T, protocol string, a answer) {
				if a.Code != code {
					t.Errorf("%s in %q over %s: %d %s, want %d", role, org, protocol, a.Code, a.Message, code)
				}
			})
		}
		writers = slices.DeleteFunc(writers, func(r access.Role) bool { return r == role })
	}
	if len(writers) > 0 {
		t.Errorf("there is no %v", writers)
	}
}

// TestAnswersHeaders is CONTRACT.md §8's row of REST responses, for successes
// and failures of every kind, and §7.2's WWW-Authenticate.
func TestAnswersHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		name string
		a    answer
		http int
	}{
		{"success", s.rest(t, "POST", importPath, body(nil)), 200},
		{"broken JSON", s.rest(t, "POST", importPath, "{"), 400},
		{"no token", s.rest(t, "POST", importPath, "{}", "Authorization", ""), 401},
		{"no such organisation", s.rest(t, "POST", importPath, "{}", "x-zitadel-orgid", "nowhere"), 403},
		{"no such path", s.rest(t, "POST", "/nowhere", "{}"), 404},
		{"no such method", s.rest(t, "DELETE", importPath, ""), 405},
		{"any content type", s.rest(t, "POST", importPath, body(nil), "Content-Type", "text/plain"), 200},
	} {
		h := c.a.Header
		if c.a.HTTP != c.http || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" ||
			h.Get("X-Robots-Tag") != "none" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %v", c.name, c.a.HTTP, h)
		}
		if _, err := http.ParseTime(h.Get("Expires")); err != nil {
			t.Errorf("%s: Expires %q", c.name, h.Get("Expires"))
		}
	}
	s.everyProtocol(t, func() string { return "{}" }, []string{"Authorization", "Bearer nobody's"}, func(t *testing.T, protocol string, a answer) {
		want := "Errors.Token.Invalid (AUTH-7fs1e)"
		if protocol == "gRPC" { // its metadata comes in trailers, which HTTP does not let have this name
			want = ""
		}
		if got := a.Header.Get("WWW-Authenticate"); a.Code != 16 || got != want {
			t.Errorf("%s: %d, WWW-Authenticate %q", protocol, a.Code, got)
		}
	})
}
