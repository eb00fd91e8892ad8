package handlers_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

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
	s := start(t, nil)
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
	callers := []who{
		{adminToken, "org-1", access.IAMOwner},
		{"nobody's", "", ""},
		{"", "", ""},
	}
	for _, org := range orgs {
		for _, role := range access.Roles {
			callers = append(callers, who{s.token(t, org, role), org, role})
		}
		id, secret, err := s.tokens.Create(t.Context(), "revoked", org, access.OrgOwner, time.Time{}, access.AdminID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.tokens.Revoke(t.Context(), id.ID); err != nil {
			t.Fatal(err)
		}
		callers = append(callers, who{secret: secret})
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
	for i := range 10_000 {
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
		case org != c.org && c.role != access.IAMOwner:
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
					t.Fatalf("call %d: %d users of %s found: %s", i, len(list), org, a.Body)
				}
			}
		case "by login name":
			// Global on the wire: the installation's owner sees everybody.
			a = s.rest(t, "GET", fmt.Sprintf("/management/v1/global/users/_by_login_name?loginName=%s-%d", marker[owner], r.IntN(5)), "", headers...)
			if allowed {
				status = found(owner == org || c.role == access.IAMOwner)
				sees[owner] = sees[owner] || c.role == access.IAMOwner
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
			t.Fatalf("call %d, %s by %s of %q in %q about %s's %s: %d, want %d: %s", i, k.name, c.role, c.org, header, owner, target, a.HTTP, status, a.Body)
		}
		for o, m := range marker {
			if !sees[o] && strings.Contains(strings.ToLower(string(a.Body)), m) {
				t.Fatalf("call %d, %s by %s of %q in %q: the answer tells of %s: %s", i, k.name, c.role, c.org, header, o, a.Body)
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
