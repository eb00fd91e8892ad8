package handlers_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/migrations"
)

const reserved = "Domain is already reserved and cannot be used (COMMAND-SFd21)"

// own makes a domain an organisation's.
func (s *system) own(t *testing.T, org, name string) {
	t.Helper()
	want(t, s.rest(t, "POST", "/v1/organisations/"+org+"/domains", fmt.Sprintf(`{"domain":%q}`, name)), 200, 0, "")
}

// named is a request for a user of an unused name at a domain.
func named(at string) func() string {
	return func() string { return body(with("userName", quoted("u"+unique()+at))) }
}

// TestReservedDomain is CONTRACT.md §6.3's first row and §7.4's "reserved
// domain", over every protocol.
func TestReservedDomain(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	s.own(t, "org-1", "Acme.Example")
	for _, c := range []struct {
		org, at string
		refused bool
	}{
		{"org-2", "@acme.example", true},
		{"org-2", "@ACME.eXample", true},
		{"org-2", "@other.example@acme.example", true}, // the last @ counts
		{"org-2", "@acme.example@other.example", false},
		{"org-2", "@sub.acme.example", false},
		{"org-2", "acme.example", false},
		{"org-2", "", false},
		{"org-1", "@acme.example", false},
		{"", "@ACME.example", false},
	} {
		s.everyProtocol(t, named(c.at), []string{"x-zitadel-orgid", c.org}, func(t *testing.T, protocol string, a answer) {
			switch {
			case !c.refused && a.Code != 0:
				t.Errorf("%q in %q over %s: %d %s", c.at, c.org, protocol, a.Code, a.Message)
			case c.refused && (a.Code != 3 || a.Message != reserved || a.id() != "COMMAND-SFd21" || a.HTTP != 0 && a.HTTP != 400):
				t.Errorf("%q in %q over %s: %d %d %s", c.at, c.org, protocol, a.HTTP, a.Code, a.Message)
			}
		})
	}

	// Where it stands among the checks (§1.3), and what the others are told.
	before := s.head(t)
	post := func(changes map[string]string, headers ...string) answer {
		changes["userName"] = quoted("u" + unique() + "@acme.example")
		return s.rest(t, "POST", importPath, body(changes), append([]string{"x-zitadel-orgid", "org-2"}, headers...)...)
	}
	want(t, post(with("phone", `{"phone":"+0"}`)), 400, 3, "PHONE-so0wa")
	want(t, post(with("password", `"short"`)), 400, 3, "COMMAND-SFd21")
	want(t, post(with("hashedPassword", `{"value":"nothing"}`)), 400, 3, "COMMAND-SFd21")
	if a := post(nilChanges(), "Accept-Language", "de"); a.Message != "Die Domain ist bereits reserviert und kann nicht benutzt werden (COMMAND-SFd21)" {
		t.Errorf("in German: %s", a.Message)
	}
	v2 := func(rest string, headers ...string) answer {
		return s.rest(t, "POST", "/v2/users/human", `{"profile":{"givenName":"Minnie","familyName":"Mouse"},`+rest+`}`, headers...)
	}
	want(t, v2(`"username":"v2@acme.example","email":{"email":"m@mouse.example","isVerified":true},"organization":{"orgId":"org-2"}`), 400, 3, "COMMAND-SFd21")
	want(t, v2(`"email":{"email":"v2@acme.example","isVerified":true},"organization":{"orgId":"org-2"}`), 400, 3, "COMMAND-SFd21")
	document := `{"timeout":"1m","dataOrgs":{"orgs":[{"orgId":"org-2","humanUsers":[{"userId":"admin-1","user":` + named("@acme.example")() + `}]}]}}`
	if a := s.rest(t, "POST", "/admin/v1/import", document); a.HTTP != 200 || !bytes.Contains(a.Body, []byte(reserved)) {
		t.Errorf("the bulk document: %s", a.Body)
	}
	if now := s.head(t); now != before {
		t.Errorf("what was refused left %d events", now-before)
	}

	// The domain's own organisation, which v2 may name by it.
	a := v2(`"username":"v2@acme.example","email":{"email":"m@mouse.example","isVerified":true},"organization":{"orgDomain":"ACME.example"}`)
	want(t, a, 200, 0, "")
	if org := a.raw["details"].(map[string]any)["resourceOwner"]; org != "org-1" {
		t.Errorf("acme.example is %v's", org)
	}
	stranger := s.token(t, "org-2", access.OrgOwner)
	want(t, v2(`"email":{"email":"v2@other.example","isVerified":true},"organization":{"orgDomain":"acme.example"}`, "Authorization", "Bearer "+stranger), 404, 5, "AUTHZ-cdgFk")
}

func nilChanges() map[string]string { return map[string]string{} }

// TestReservedDomainInBulk: each line is judged by itself, in a dry run too,
// and so is a user name that a line changes.
func TestReservedDomainInBulk(t *testing.T) {
	t.Parallel()
	s := start(t, withJobs)
	line := func(id, name string) string {
		return fmt.Sprintf(`{"userId":%q,"userName":%q,"profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"a@b.example","isEmailVerified":true},"hashedPassword":%s}`, id, name, hash)
	}
	early := line("e1", "early@acme.example")
	job := []string{"x-zitadel-orgid", "org-2"}
	s.bulk(t, s.http, "jobId=early", strings.NewReader(early), job...)
	s.own(t, "org-1", "acme.example")
	// What a job did is not judged anew by what came since: neither when its
	// answers were lost, nor when its service died before it wrote them down.
	for _, lost := range []string{"", `DELETE FROM import_chunks; UPDATE import_jobs SET lines = 0, created = 0, state = 'running'`} {
		if _, err := s.store.Pool().Exec(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		if a := s.bulk(t, s.http, "jobId=early", strings.NewReader(early), job...); a[0].Outcome != "created" || a[0].UserID != "e1" {
			t.Errorf("taken up again after %q: %+v", lost, a[0])
		}
	}
	lines := line("b1", "one@other.example") + "\n" + line("b2", "two@Acme.example") + "\n" + line("b3", "three") + "\n"
	for _, c := range []struct{ query, lines, org, outcomes string }{
		{"dryRun=true", lines, "org-2", "created failed created"},
		{"", lines, "org-2", "created failed created"},
		{"onConflict=update&dryRun=true", line("b1", "one@acme.example") + "\n" + line("b3", "three@new.example"), "org-2", "failed updated"},
		{"onConflict=update", line("b1", "one@acme.example") + "\n" + line("b3", "three@new.example"), "org-2", "failed updated"},
		// A name that is there already stays its user's, and is nobody else's.
		{"onConflict=skip&dryRun=true", early + "\n" + line("b5", "five@acme.example"), "org-2", "skipped failed"},
		{"onConflict=skip", early + "\n" + line("b5", "five@acme.example"), "org-2", "skipped failed"},
		{"onConflict=update&dryRun=true", strings.ReplaceAll(early, "Ada", "Eva") + "\n" + line("b5", "five@acme.example"), "org-2", "updated failed"},
		{"onConflict=update", strings.ReplaceAll(early, "Ada", "Eva") + "\n" + line("b5", "five@acme.example"), "org-2", "updated failed"},
		{"onConflict=update", strings.ReplaceAll(early, "early@", "late@"), "org-2", "failed"},
		{"onConflict=fail", early, "org-2", "failed"},
		{"", line("b4", "four@acme.example"), "org-1", "created"},
		{"onConflict=update", line("b4", "FOUR@acme.example"), "org-1", "updated"},
	} {
		var got []string
		for _, a := range s.bulk(t, s.http, c.query, strings.NewReader(c.lines), "x-zitadel-orgid", c.org) {
			if a.Summary != nil {
				continue
			}
			got = append(got, a.Outcome)
			if a.Outcome == "failed" && (a.id() != "COMMAND-SFd21" || a.Error.Code != 3 || a.Error.Message != reserved || a.Field != "userName") {
				t.Errorf("%s: %+v, %q", c.query, a.Error, a.Field)
			}
		}
		if strings.Join(got, " ") != c.outcomes {
			t.Errorf("%s in %s: %v, want %s", c.query, c.org, got, c.outcomes)
		}
	}
	if a := s.rest(t, "GET", "/management/v1/users/b1", "", "x-zitadel-orgid", "org-2"); !bytes.Contains(a.Body, []byte("one@other.example")) {
		t.Errorf("after the refused change: %s", a.Body)
	}
}

// TestDomainsOfOrganisations: who has a domain, who may have it next, and that
// every instance knows.
func TestDomainsOfOrganisations(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	other := s.second(t)
	path := func(org string) string { return "/v1/organisations/" + org + "/domains" }
	free := func(s *system) bool {
		a := s.rest(t, "POST", importPath, named("@acme.example")(), "x-zitadel-orgid", "org-2")
		if a.Code != 0 && a.id() != "COMMAND-SFd21" {
			t.Fatalf("%s", a.Body)
		}
		return a.Code == 0
	}
	again := body(with("userName", quoted("again@acme.example")))
	headers := []string{"x-zitadel-orgid", "org-2", "Idempotency-Key", "k"}
	first := s.rest(t, "POST", importPath, again, headers...)
	want(t, first, 200, 0, "")
	if !free(s) || !free(other) {
		t.Error("a domain is reserved that nobody has")
	}

	want(t, s.rest(t, "POST", path("org-1"), `{"domain":"no domain"}`), 400, 3, "MUSTER-domain")
	want(t, s.rest(t, "POST", path("org-1"), `{}`), 400, 3, "MUSTER-domain")
	want(t, s.rest(t, "POST", path("nowhere"), `{"domain":"acme.example"}`), 404, 5, "MUSTER-orgmissing")
	want(t, s.rest(t, "GET", path("nowhere"), ""), 404, 5, "MUSTER-orgmissing")
	s.own(t, "org-1", "Bücher.example")
	s.own(t, "org-1", "ACME.example.")
	if free(s) {
		t.Error("it does not count here at once")
	}
	until(t, "the other instance", func() bool { return !free(other) })
	want(t, s.rest(t, "POST", path("org-1"), `{"domain":"acme.example"}`), 400, 9, "MUSTER-orgsame")
	want(t, s.rest(t, "POST", path("org-2"), `{"domain":"acme.EXAMPLE"}`), 409, 6, "MUSTER-domaintaken")
	if a := s.rest(t, "GET", path("org-1"), ""); a.HTTP != 200 || strings.TrimSpace(string(a.Body)) != `{"domains":["xn--bcher-kva.example","acme.example"]}` {
		t.Errorf("org-1's: %s", a.Body)
	}
	if a := s.rest(t, "GET", path("org-2"), ""); a.HTTP != 200 || strings.TrimSpace(string(a.Body)) != `{"domains":[]}` {
		t.Errorf("org-2's: %s", a.Body)
	}
	// What was let in before stays, and is answered again.
	if a := s.rest(t, "POST", importPath, again, headers...); a.HTTP != 200 || a.raw["userId"] != first.raw["userId"] {
		t.Errorf("repeated: %s", a.Body)
	}

	want(t, s.rest(t, "DELETE", path("org-2")+"/acme.example", ""), 404, 5, "MUSTER-nodomain")
	want(t, s.rest(t, "DELETE", path("org-1")+"/Acme.example", ""), 200, 0, "")
	want(t, s.rest(t, "DELETE", path("org-1")+"/acme.example", ""), 404, 5, "MUSTER-nodomain")
	if !free(s) {
		t.Error("removed, it still counts here")
	}
	until(t, "the other instance", func() bool { return free(other) })
	s.own(t, "org-2", "acme.example")
	until(t, "the other instance", func() bool {
		return other.rest(t, "POST", importPath, named("@acme.example")(), "x-zitadel-orgid", "org-1").id() == "COMMAND-SFd21"
	})
	if !free(other) {
		t.Error("its new owner may not use it")
	}
}

// second is another instance of the service over the same database.
func (s *system) second(t *testing.T) *system {
	t.Helper()
	store, err := eventstore.New(t.Context(), eventstore.Config{URL: s.store.Pool().Config().ConnString(), Role: migrations.ServiceRole, Keys: s.store.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close(t.Context()) })
	d := s.deps
	d.Store, d.Tokens, d.Organisations = store, access.NewTokens(store.Pool(), adminToken, "org-1", time.Now), access.NewOrganisations(store, time.Now)
	d.Importer = &importer.Importer{
		Store: store, Passwords: s.deps.Importer.Passwords, Policy: domain.DefaultPolicy(), Reserved: d.Organisations.Reserved, Now: time.Now, Rand: s.deps.Importer.Rand,
	}
	d.Jobs, d.Bulk = nil, nil
	server := httptest.NewServer(handlers.New(d))
	t.Cleanup(server.Close)
	return &system{url: server.URL, store: store, deps: d, http: s.http, h2: s.h2}
}
