package handlers_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

// everywhere are the roles that hold in every organisation (CONTRACT.md §8).
var everywhere = map[access.Role]bool{access.IAMOwner: true, access.IAMOrgManager: true, access.IAMUserManager: true}

// who is a caller of the isolation test; role "" stands for a token that is
// no good.
type who struct {
	secret string
	org    string
	role   access.Role
}

// TestIsolation makes ten thousand random calls, of every role of every
// organisation, in every organisation, about everybody's users, and compares
// each answer with a model of the rules in a few lines. No answer may hold
// anything of an organisation that the caller has no business with: every name
// and address of its users contains the organisation's marker.
func TestIsolation(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	key := newKey(t, "key")
	i.publish(key)
	s := start(t, func(d *handlers.Deps) {
		withJobs(d)
		d.Tokens.Trust(access.NewIssuer(access.IssuerConfig{URL: i.url, Audience: "muster", RoleClaim: "roles", OrgClaim: "org"}))
	})
	orgs := []string{"org-1", "org-2"}
	marker := map[string]string{"org-1": "zebra", "org-2": "walrus"}
	users := map[string][]string{}
	position := ""
	for _, org := range orgs {
		for i := range 5 {
			var id string
			id, position = s.add(t, map[string]string{
				"userName":       quoted(fmt.Sprintf("%s-%d", marker[org], i)),
				"profile":        fmt.Sprintf(`{"firstName":"%s","lastName":"x"}`, marker[org]),
				"email":          fmt.Sprintf(`{"email":"%s-%d@example.org","isEmailVerified":true}`, marker[org], i),
				"idps":           fmt.Sprintf(`[{"configId":"c","externalUserId":"%s-%d"}]`, marker[org], i),
				"hashedPassword": hash,
			}, "x-zitadel-orgid", org)
			users[org] = append(users[org], id)
		}
	}
	until(t, "the issuer", func() bool {
		return s.rest(t, "GET", "/management/v1/users/nobody", "", "Authorization", "Bearer "+i.jwt(jose.RS256, key, nil)).HTTP == http.StatusNotFound
	})
	jobs := map[string]string{}
	for _, org := range orgs {
		// A job that creates nobody: the only name in it is taken.
		line := body(map[string]string{"userName": quoted(marker[org] + "-0"), "profile": fmt.Sprintf(`{"firstName":%q,"lastName":"x"}`, marker[org])})
		jobs[org] = "job-" + marker[org]
		s.bulk(t, s.http, "jobId="+jobs[org], strings.NewReader(line+"\n"), "x-zitadel-orgid", org)
	}
	position = fmt.Sprint(s.head(t))
	callers := []who{
		{adminToken, "org-1", access.IAMOwner},
		{"nobody's", "", ""},
		{"", "", ""},
	}
	for _, org := range orgs {
		for _, role := range access.Roles {
			callers = append(callers, who{s.token(t, org, role), org, role},
				who{i.jwt(jose.RS256, key, map[string]any{"roles": []string{string(role)}, "org": org}), org, role})
		}
		id, secret, err := s.tokens.Create(t.Context(), "revoked", org, access.OrgOwner, time.Time{}, access.AdminID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.tokens.Revoke(t.Context(), id.ID); err != nil {
			t.Fatal(err)
		}
		callers = append(callers, who{secret: secret},
			who{secret: i.jwt(jose.RS256, key, map[string]any{"org": org, "exp": time.Now().Add(-time.Hour).Unix()})},
			who{secret: i.jwt(jose.RS256, newKey(t, "key"), map[string]any{"org": org})})
	}

	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	pick := func(list []string) string { return list[r.IntN(len(list))] }

	// Each kind of call says what it comes to for who may make it; seen says
	// that the target is a user of the call's organisation.
	kinds := []struct {
		name       string
		permission access.Permission
		call       func(target, org string, headers []string) answer
		status     func(seen bool, target string, c who, org string) int
	}{
		{"by id", access.UserRead, func(target, _ string, h []string) answer {
			return s.rest(t, "GET", "/management/v1/users/"+target, "", h...)
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"by id over gRPC", access.UserRead, func(target, _ string, h []string) answer {
			res, a := rpc[managementv1.GetUserByIDRequest, managementv1.GetUserByIDResponse](t, s, 0, "/zitadel.management.v1.ManagementService/GetUserByID", &managementv1.GetUserByIDRequest{Id: target}, h...)
			a.Body, a.HTTP = []byte(fmt.Sprint(res, a.Message)), statuses[a.Code]
			return a
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"history", access.UserRead, func(target, _ string, h []string) answer {
			return s.rest(t, "POST", "/management/v1/users/"+target+"/changes/_search", "{}", h...)
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"links", access.UserRead, func(target, _ string, h []string) answer {
			return s.rest(t, "POST", "/management/v1/users/"+target+"/idps/_search", "{}", h...)
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"as of a position", access.UserRead, func(target, _ string, h []string) answer {
			return s.rest(t, "GET", "/management/v1/users/"+target+"?asOf="+position, "", h...)
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"as of a time over gRPC", access.UserRead, func(target, _ string, h []string) answer {
			h = append(h, "Muster-As-Of", time.Now().UTC().Format(time.RFC3339Nano))
			res, a := rpc[managementv1.GetUserByIDRequest, managementv1.GetUserByIDResponse](t, s, 0, "/zitadel.management.v1.ManagementService/GetUserByID", &managementv1.GetUserByIDRequest{Id: target}, h...)
			a.Body, a.HTTP = []byte(fmt.Sprint(res, a.Message)), statuses[a.Code]
			return a
		}, func(seen bool, _ string, _ who, _ string) int { return found(seen) }},
		{"events", access.UserRead, nil, nil},
		{"events of all", access.UserRead, nil, nil},
		{"counts", access.UserRead, nil, nil},
		{"import job", access.UserRead, nil, nil},
		{"import jobs", access.UserRead, nil, nil},
		{"read models", access.IAMWrite, func(_, _ string, h []string) answer {
			return s.rest(t, "GET", "/v1/projections/users/stopped", "", h...)
		}, func(bool, string, who, string) int { return http.StatusOK }},
		{"retry of a stopped stream", access.IAMWrite, func(target, _ string, h []string) answer {
			return s.rest(t, "POST", "/v1/projections/users/_retry", fmt.Sprintf(`{"stream":%q}`, target), h...)
		}, func(bool, string, who, string) int { return http.StatusNotFound }},
		{"consumers", access.IAMWrite, func(_, _ string, h []string) answer {
			return s.rest(t, "GET", "/v1/consumers", "", h...)
		}, func(bool, string, who, string) int { return http.StatusOK }},
		{"tokens", access.IAMWrite, func(_, _ string, h []string) answer {
			return s.rest(t, "GET", "/v1/tokens", "", h...)
		}, func(bool, string, who, string) int { return http.StatusOK }},
		{"search", access.UserRead, func(string, string, []string) answer { return answer{} }, nil},
		{"by login name", access.UserRead, nil, nil},
		{"unlock", access.UserWrite, func(target, _ string, h []string) answer {
			return s.rest(t, "POST", "/management/v1/users/"+target+"/_unlock", "{}", h...)
		}, func(seen bool, _ string, _ who, _ string) int {
			if seen {
				return http.StatusBadRequest // it is not locked
			}
			return http.StatusNotFound
		}},
		{"import of a name that is taken", access.UserWrite, func(string, string, []string) answer { return answer{} }, nil},
	}
	queries := []string{
		`{}`,
		`{"queries":[{"notQuery":{"query":{"firstNameQuery":{"firstName":"nobody"}}}}]}`,
		`{"queries":[{"orQuery":{"queries":[{"firstNameQuery":{"firstName":"zebra"}},{"firstNameQuery":{"firstName":"walrus"}}]}}]}`,
		`{"queries":[{"emailQuery":{"emailAddress":"example","method":"TEXT_QUERY_METHOD_CONTAINS"}}]}`,
	}
	for n := range 10_000 {
		c := callers[r.IntN(len(callers))]
		header := pick([]string{"", "org-1", "org-2", "nowhere", "org-1-", "ORG-1"})
		owner := pick(orgs)
		target := pick(append([]string{"nobody", "$org-" + owner}, users[owner]...))
		k := kinds[r.IntN(len(kinds))]
		headers := []string{"x-zitadel-orgid", header, "Authorization", "Bearer " + c.secret, "Muster-Min-Position", position}

		// The model.
		org := header
		if org == "" {
			org = c.org
		}
		var status int
		switch {
		case c.role == "":
			status = http.StatusUnauthorized
		case org != "org-1" && org != "org-2":
			status = http.StatusForbidden
		case org != c.org && !everywhere[c.role]:
			status = http.StatusNotFound
		case !c.role.May(k.permission):
			status = http.StatusForbidden
		}
		allowed := status == 0
		sees := map[string]bool{}
		if allowed {
			sees[org] = true
		}

		var a answer
		switch k.name {
		case "search":
			a = s.rest(t, "POST", "/management/v1/users/_search", pick(queries), headers...)
			if allowed {
				status = http.StatusOK
				if list, _ := a.raw["result"].([]any); len(list) != 5 {
					t.Fatalf("call %d: %d users of %s found: %s", n, len(list), org, a.Body)
				}
			}
		case "by login name":
			// Global on the wire: the installation's owner sees everybody.
			a = s.rest(t, "GET", fmt.Sprintf("/management/v1/global/users/_by_login_name?loginName=%s-%d", marker[owner], r.IntN(5)), "", headers...)
			if allowed {
				status = found(owner == org || everywhere[c.role])
				sees[owner] = sees[owner] || everywhere[c.role]
			}
		case "events", "events of all":
			all := k.name == "events of all"
			a = s.rest(t, "GET", fmt.Sprintf("/v1/events?limit=1000&types=HumanAdded&allOrganisations=%t", all), "", headers...)
			if allowed && all && c.role != access.IAMOwner {
				allowed, status = false, http.StatusForbidden
			}
			if allowed {
				status = http.StatusOK
				for _, d := range documents(t, a) {
					if d.Org != org && !all {
						t.Fatalf("call %d: an event of %s in %s", n, d.Org, org)
					}
				}
			}
		case "counts":
			a = s.rest(t, "GET", "/v1/counts", "", headers...)
			if allowed {
				status = http.StatusOK
				if r := list(a, "result"); len(r) != 1 || r[0]["resourceOwner"] != org || r[0]["users"] != 5.0 {
					t.Fatalf("call %d: counts of %s: %s", n, org, a.Body)
				}
			}
		case "import job":
			verb, path := "GET", "/v1/imports/"+jobs[owner]+pick([]string{"", "/failures", "/answers"})
			if c.role.May(access.UserWrite) && r.IntN(4) == 0 {
				verb, path = "POST", "/v1/imports/"+jobs[owner]+"/_undo"
			}
			if owner == org && verb == "POST" {
				verb, path = "GET", "/v1/imports/"+jobs[owner]
			}
			a = s.rest(t, verb, path, "", headers...)
			if allowed {
				status = found(owner == org)
			}
		case "import jobs":
			a = s.rest(t, "GET", "/v1/imports", "", headers...)
			if allowed {
				status = http.StatusOK
				if r := list(a, "result"); len(r) != 1 || r[0]["resourceOwner"] != org {
					t.Fatalf("call %d: jobs of %s: %s", n, org, a.Body)
				}
			}
		case "import of a name that is taken":
			a = s.rest(t, "POST", importPath, body(with("userName", quoted(strings.ToUpper(marker[owner])+"-1"))), headers[:4]...)
			if allowed {
				status = http.StatusConflict
			}
		default:
			a = k.call(target, org, headers)
			if allowed {
				seen := owner == org && target != "nobody" && !strings.HasPrefix(target, "$")
				status = k.status(seen, target, c, org)
			}
		}
		if a.HTTP != status {
			t.Fatalf("call %d, %s by %s of %q in %q about %s's %s: %d, want %d: %s", n, k.name, c.role, c.org, header, owner, target, a.HTTP, status, a.Body)
		}
		for o, m := range marker {
			if !sees[o] && strings.Contains(strings.ToLower(string(a.Body)), m) {
				t.Fatalf("call %d, %s by %s of %q in %q: the answer tells of %s: %s", n, k.name, c.role, c.org, header, o, a.Body)
			}
		}
	}
}

func found(seen bool) int {
	if seen {
		return http.StatusOK
	}
	return http.StatusNotFound
}
