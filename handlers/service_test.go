package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
	"github.com/muster-id/muster/proto/zitadel/management/v1/managementv1connect"
	userv1 "github.com/muster-id/muster/proto/zitadel/user/v1"
	userv2 "github.com/muster-id/muster/proto/zitadel/user/v2"
	zitadelv1 "github.com/muster-id/muster/proto/zitadel/v1"
)

// add imports a user and returns its id and the write's position.
func (s *system) add(t *testing.T, changes map[string]string, headers ...string) (id, position string) {
	t.Helper()
	a := s.rest(t, "POST", importPath, body(changes), headers...)
	if a.HTTP != http.StatusOK {
		t.Fatalf("%d: %s", a.HTTP, a.Body)
	}
	return a.raw["userId"].(string), a.Header.Get("Muster-Position")
}

func want(t *testing.T, a answer, status, code int, id string) {
	t.Helper()
	if a.HTTP != status || a.Code != code || a.id() != id {
		t.Errorf("HTTP %d, code %d, id %q; want %d, %d, %q: %s", a.HTTP, a.Code, a.id(), status, code, id, a.Body)
	}
}

func TestOneUserIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for range 20 { // the read model gets no time to catch up
		name := "Minnie-" + unique()
		id, _ := s.add(t, map[string]string{"userName": quoted(name), "phone": `{"phone":"+41 71 000 00 00","isPhoneVerified":true}`, "hashedPassword": hash})
		a := s.rest(t, "GET", "/management/v1/users/"+id, "")
		user, ok := a.raw["user"].(map[string]any)
		if !ok {
			t.Fatalf("%d: %s", a.HTTP, a.Body)
		}
		human := user["human"].(map[string]any)
		if user["id"] != id || user["state"] != "USER_STATE_ACTIVE" || user["userName"] != name || user["preferredLoginName"] != name ||
			user["details"].(map[string]any)["sequence"] != "4" || human["passwordChanged"] == nil ||
			human["profile"].(map[string]any)["displayName"] != "Minnie Mouse" ||
			human["phone"].(map[string]any)["phone"] != "+41710000000" || human["email"].(map[string]any)["isEmailVerified"] != true {
			t.Fatalf("user: %s", a.Body)
		}
		a = s.rest(t, "GET", "/management/v1/global/users/_by_login_name?loginName="+strings.ToUpper(name), "")
		if a.HTTP != 200 || a.raw["user"].(map[string]any)["id"] != id {
			t.Fatalf("by login name: %d: %s", a.HTTP, a.Body)
		}
		if a = s.rest(t, "GET", "/management/v1/users/_is_unique?userName="+name, ""); a.HTTP != 200 || a.raw["isUnique"] != nil {
			t.Fatalf("is unique: %d: %s", a.HTTP, a.Body)
		}
	}
	if a := s.rest(t, "GET", "/management/v1/users/_is_unique?userName=free&email=free@example.org", ""); a.raw["isUnique"] != true {
		t.Errorf("a free name is taken: %s", a.Body)
	}
	want(t, s.rest(t, "GET", "/management/v1/users/nobody", ""), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "GET", "/management/v1/users/$org-org-1", ""), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "GET", "/management/v1/users/%00", ""), 400, 3, "MUSTER-text")
	want(t, s.rest(t, "GET", "/management/v1/global/users/_by_login_name", ""), 400, 3, "")
}

func TestSearch(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var position string
	for i, name := range []string{"carol", "alice", "Bob"} {
		_, position = s.add(t, map[string]string{
			"userName": quoted(name), "email": fmt.Sprintf(`{"email":"%s@example.org","isEmailVerified":true}`, name),
			"profile": fmt.Sprintf(`{"firstName":%q,"lastName":"L%d"}`, name, i), "hashedPassword": hash,
		})
	}
	s.add(t, with("userName", `"dave"`), "x-zitadel-orgid", "org-2")
	find := func(query string) (names []string, total any) {
		t.Helper()
		a := s.rest(t, "POST", "/management/v1/users/_search", query, "Muster-Min-Position", position)
		if a.HTTP != 200 {
			t.Fatalf("%s: %d: %s", query, a.HTTP, a.Body)
		}
		users, _ := a.raw["result"].([]any)
		for _, u := range users {
			names = append(names, u.(map[string]any)["userName"].(string))
		}
		return names, a.raw["details"].(map[string]any)["totalResult"]
	}
	for _, c := range []struct{ query, want, total string }{
		{`{"sortingColumn":"USER_FIELD_NAME_USER_NAME","query":{"asc":true}}`, "alice Bob carol", "3"},
		{`{"sortingColumn":"USER_FIELD_NAME_USER_NAME"}`, "carol Bob alice", "3"},
		{`{"query":{"asc":true}}`, "carol alice Bob", "3"},
		{`{"sortingColumn":"USER_FIELD_NAME_USER_NAME","query":{"asc":true,"limit":1,"offset":"1"}}`, "Bob", "3"},
		{`{"queries":[{"userNameQuery":{"userName":"bob","method":"TEXT_QUERY_METHOD_EQUALS_IGNORE_CASE"}}]}`, "Bob", "1"},
		{`{"queries":[{"userNameQuery":{"userName":"bob"}}]}`, "", ""},
		{`{"queries":[{"emailQuery":{"emailAddress":"@EXAMPLE","method":"TEXT_QUERY_METHOD_CONTAINS_IGNORE_CASE"}},{"lastNameQuery":{"lastName":"L2"}}]}`, "Bob", "1"},
		{`{"queries":[{"orQuery":{"queries":[{"firstNameQuery":{"firstName":"alice"}},{"notQuery":{"query":{"loginNameQuery":{"loginName":"o","method":"TEXT_QUERY_METHOD_CONTAINS"}}}}]}}]}`, "alice", "1"},
		{`{"queries":[{"stateQuery":{"state":"USER_STATE_ACTIVE"}},{"typeQuery":{"type":"TYPE_HUMAN"}},{"displayNameQuery":{"displayName":"carol","method":2}}]}`, "carol", "1"},
		{`{"queries":[{"typeQuery":{"type":"TYPE_MACHINE"}}]}`, "", ""},
		{`{"queries":[{"inUserEmailsQuery":{"userEmails":["ALICE@example.org"]}}]}`, "alice", "1"},
		{`{"queries":[{"inUserIdsQuery":{}}]}`, "", ""},
		{`{"queries":[{"userNameQuery":{"userName":"dave"}}]}`, "", ""},
	} {
		names, total := find(c.query)
		if got := strings.Join(names, " "); got != c.want || (c.total != "" && total != c.total) {
			t.Errorf("%s: %s of %v, want %s of %s", c.query, got, total, c.want, c.total)
		}
	}
	// Pages that somebody who comes in does not move, over every protocol.
	first := s.rest(t, "POST", "/management/v1/users/_search", `{"query":{"limit":2}}`)
	s.add(t, with("userName", `"late"`))
	page := first.Header.Get("Muster-Next-Page")
	for i, p := range protocols {
		res, a := rpc[managementv1.ListUsersRequest, managementv1.ListUsersResponse](t, s, i, "/zitadel.management.v1.ManagementService/ListUsers",
			&managementv1.ListUsersRequest{Query: &zitadelv1.ListQuery{Limit: 2}}, "Muster-Page", page)
		if len(res.GetResult()) != 1 || res.GetResult()[0].GetUserName() != "carol" || a.Header.Get("Muster-Next-Page") != "" {
			t.Errorf("%s: the second page: %v %v", p.name, res, a)
		}
	}
	want(t, s.rest(t, "POST", "/management/v1/users/_search", `{}`, "Muster-Page", "x"), 400, 3, "MUSTER-searchpage")
	for query, id := range map[string]string{
		`{"queries":[{}]}`:                    "",
		`{"query":{"limit":1001}}`:            "QUERY-4M0fs",
		`{"query":{"offset":"999999999999"}}`: "MUSTER-offset",
		`{"queries":[{"userNameQuery":{"userName":"` + strings.Repeat("x", 201) + `"}}]}`:                                       "",
		`{"queries":[{"userNameQuery":{"userName":"x","method":77}}]}`:                                                          "",
		`{"queries":[` + strings.Repeat(`{"andQuery":{"queries":[`, 30) + `{"typeQuery":{}}` + strings.Repeat(`]}}`, 30) + `]}`: "MUSTER-searchdepth",
	} {
		want(t, s.rest(t, "POST", "/management/v1/users/_search", query), 400, 3, id)
	}
}

func TestMinimumPosition(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.Patience = 50 * time.Millisecond })
	id, position := s.add(t, nil)
	path := "/management/v1/users/" + id
	token := s.store.LogID().String() + ".1." + position
	next := func(n int) string { p, _ := strconv.Atoi(position); return strconv.Itoa(p + n) }
	for _, ok := range []string{position, token, "0"} {
		want(t, s.rest(t, "GET", path, "", "Muster-Min-Position", ok), 200, 0, "")
	}
	late := s.rest(t, "GET", path, "", "Muster-Min-Position", next(1))
	want(t, late, 504, 4, "MUSTER-notyet")
	if text := "the log is at position " + position + ", position " + next(1) + " was asked for (MUSTER-notyet)"; late.Message != text {
		t.Errorf("message %q, want %q", late.Message, text)
	}
	for _, bad := range []string{"x", "-1", "1.2", "1.2.3.4", token + "x"} {
		want(t, s.rest(t, "GET", path, "", "Muster-Min-Position", bad), 400, 3, "MUSTER-position")
	}
	for _, other := range []string{s.store.LogID().String() + ".2." + position, "00000000-0000-0000-0000-000000000000.1." + position} {
		want(t, s.rest(t, "GET", path, "", "Muster-Min-Position", other), 400, 9, "MUSTER-history")
	}
}

func TestLifeCycle(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	id, _ := s.add(t, map[string]string{"hashedPassword": hash, "idps": `[{"configId":"c","externalUserId":"u","displayName":"n"}]`})
	path := "/management/v1/users/" + id
	state := func() any {
		a := s.rest(t, "GET", path, "")
		return a.raw["user"].(map[string]any)["state"]
	}
	for _, step := range []struct{ verb, state, again string }{
		{"_deactivate", "USER_STATE_INACTIVE", "COMMAND-5M0sf"},
		{"_reactivate", "USER_STATE_ACTIVE", "COMMAND-6M0sf"},
		{"_lock", "USER_STATE_LOCKED", "COMMAND-3NN8v"},
		{"_unlock", "USER_STATE_ACTIVE", "COMMAND-4M0ds"},
	} {
		a := s.rest(t, "POST", path+"/"+step.verb, "{}")
		want(t, a, 200, 0, "")
		if d := a.raw["details"].(map[string]any); d["changeDate"] == nil || d["resourceOwner"] != "org-1" || a.Header.Get("Muster-Position") == "" {
			t.Errorf("%s: %s", step.verb, a.Body)
		}
		if got := state(); got != step.state {
			t.Errorf("after %s: %v", step.verb, got)
		}
		want(t, s.rest(t, "POST", path+"/"+step.verb, ""), 400, 9, step.again)
	}
	links := s.rest(t, "POST", path+"/idps/_search", "{}")
	if r, _ := links.raw["result"].([]any); len(r) != 1 || r[0].(map[string]any)["providedUserId"] != "u" || r[0].(map[string]any)["idpId"] != "c" {
		t.Errorf("links: %s", links.Body)
	}
	changes := s.rest(t, "POST", path+"/changes/_search", `{"query":{"asc":true,"limit":5,"sequence":"3"}}`)
	var seen []string
	for _, c := range changes.raw["result"].([]any) {
		c := c.(map[string]any)
		seen = append(seen, c["sequence"].(string)+" "+c["eventType"].(map[string]any)["localizedMessage"].(string))
		if c["editorId"] != access.AdminID || c["editorDisplayName"] != "administrator" {
			t.Errorf("change: %v", c)
		}
	}
	if got, want := strings.Join(seen, ", "), "4 IDP linked, 5 User deactivated, 6 User reactivated, 7 User locked, 8 User unlocked"; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	latest := s.rest(t, "POST", path+"/changes/_search", `{"query":{"limit":1}}`)
	if r := latest.raw["result"].([]any); r[0].(map[string]any)["sequence"] != "8" {
		t.Errorf("latest change: %s", latest.Body)
	}
	want(t, s.rest(t, "POST", path+"/_resend_initialization", "{}"), 400, 9, "COMMAND-2M9sd")
	want(t, s.rest(t, "DELETE", path, ""), 200, 0, "")
	want(t, s.rest(t, "GET", path, ""), 404, 5, "QUERY-Dfbg2")
	want(t, s.rest(t, "DELETE", path, ""), 404, 5, "COMMAND-m9od")
	// Its names are free again.
	s.add(t, map[string]string{"idps": `[{"configId":"c","externalUserId":"u"}]`})

	initial, _ := s.add(t, with("email", `{"email":"a@b.c"}`))
	want(t, s.rest(t, "POST", "/management/v1/users/"+initial+"/_resend_initialization", `{"email":"new@b.c"}`), 200, 0, "")
	want(t, s.rest(t, "POST", "/management/v1/users/"+initial+"/_resend_initialization", `{"email":"x"}`), 400, 3, "")
	want(t, s.rest(t, "POST", "/management/v1/users/"+initial+"/_deactivate", ""), 400, 9, "COMMAND-ke0fw")
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	request := body(with("requestPasswordlessRegistration", "true"))
	first := s.rest(t, "POST", importPath, request, "Idempotency-Key", "key-1")
	again := s.rest(t, "POST", importPath, request, "Idempotency-Key", "key-1")
	if first.HTTP != 200 || fmt.Sprint(first.raw) != fmt.Sprint(again.raw) || first.Header.Get("Muster-Position") != again.Header.Get("Muster-Position") {
		t.Errorf("%s\n%s", first.Body, again.Body)
	}
	want(t, s.rest(t, "POST", importPath, body(nil), "Idempotency-Key", "key-1"), 422, 3, "MUSTER-idempotency")
	// The same message for another organisation is another request; another
	// token's key is another key.
	want(t, s.rest(t, "POST", importPath, request, "Idempotency-Key", "key-1", "x-zitadel-orgid", "org-2"), 422, 3, "MUSTER-idempotency")
	other := s.token(t, "org-1", access.OrgOwner)
	want(t, s.rest(t, "POST", importPath, body(nil), "Idempotency-Key", "key-1", "Authorization", "Bearer "+other), 200, 0, "")
	want(t, s.rest(t, "POST", importPath, body(nil), "Idempotency-Key", strings.Repeat("k", 256)), 400, 3, "MUSTER-idempotencykey")
	req := &managementv1.ImportHumanUserRequest{}
	fromJSON(t, request, req)
	res, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, 0, importProcedure, req, "Idempotency-Key", "key-1")
	if a.Code != 0 || res.GetUserId() != first.raw["userId"] || a.Header.Get("Muster-Position") != first.Header.Get("Muster-Position") {
		t.Errorf("over gRPC: %v %v", res, a)
	}
}

// TestRolesAndOrganisations goes through every role, method and organisation.
func TestRolesAndOrganisations(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	mine, _ := s.add(t, with("hashedPassword", hash))
	theirs, _ := s.add(t, map[string]string{"userName": `"theirs"`, "hashedPassword": hash}, "x-zitadel-orgid", "org-2")
	calls := []struct {
		method, path, body string
		permission         access.Permission
	}{
		{"POST", importPath, "", access.UserWrite},
		{"GET", "/management/v1/users/%s", "", access.UserRead},
		{"POST", "/management/v1/users/_search", "{}", access.UserRead},
		{"POST", "/management/v1/users/%s/changes/_search", "{}", access.UserRead},
		{"POST", "/management/v1/users/%s/idps/_search", "{}", access.UserRead},
		{"POST", "/management/v1/users/%s/_lock", "{}", access.UserWrite},
		{"POST", "/management/v1/users/%s/_unlock", "{}", access.UserWrite},
		{"POST", "/management/v1/users/%s/_deactivate", "{}", access.UserWrite},
		{"POST", "/management/v1/users/%s/_reactivate", "{}", access.UserWrite},
		{"POST", "/v1/tokens", `{"organisationId":"org-1","role":"ORG_OWNER"}`, access.IAMWrite},
		{"GET", "/v1/tokens", "", access.IAMWrite},
		{"POST", "/v1/organisations", "", access.IAMWrite},
		{"GET", "/v1/organisations", "", access.IAMWrite},
		{"GET", "/v1/organisations/org-2/domains", "", access.IAMWrite},
		{"POST", "/admin/v1/import", `{"timeout":"1m","dataOrgs":{}}`, access.IAMWrite},
	}
	for _, role := range access.Roles {
		bearer := "Bearer " + s.token(t, "org-1", role)
		for _, c := range calls {
			call := func(id, org string) answer {
				path, content := strings.ReplaceAll(c.path, "%s", id), c.body
				switch c.path {
				case importPath:
					content = body(nil)
				case "/v1/organisations":
					content = fmt.Sprintf(`{"name":"Another %s"}`, unique())
				}
				if c.method == "GET" {
					content = ""
				}
				return s.rest(t, c.method, path, content, "Authorization", bearer, "x-zitadel-orgid", org)
			}
			t.Run(fmt.Sprintf("%s %s %s", role, c.method, c.path), func(t *testing.T) {
				if role.May(c.permission) {
					want(t, call(mine, ""), 200, 0, "")
				} else {
					want(t, call(mine, ""), 403, 7, "AUTH-5mWD2")
				}
				if !everywhere[role] {
					want(t, call(theirs, "org-2"), 404, 5, "AUTHZ-cdgFk")
					if a := call(theirs, ""); strings.Contains(c.path, "%s") && role.May(c.permission) && (a.HTTP != 404 || a.Code != 5) {
						t.Errorf("another's user: %d: %s", a.HTTP, a.Body)
					}
				}
				want(t, call(mine, "nowhere"), 403, 7, "AUTH-Bs7Ds")
			})
		}
		// What is global on the wire is so for the roles of all organisations only.
		global := s.rest(t, "GET", "/management/v1/global/users/_by_login_name?loginName=theirs", "", "Authorization", bearer)
		if found := global.HTTP == 200; found != everywhere[role] {
			t.Errorf("%s finds another's user by login name: %d", role, global.HTTP)
		}
		unique := s.rest(t, "GET", "/management/v1/users/_is_unique?userName=theirs", "", "Authorization", bearer)
		if free := unique.raw["isUnique"] == true; free == role.May(access.UserWrite) {
			t.Errorf("%s: another's name free: %v", role, free)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.rest(t, "POST", "/v1/tokens", `{"name":"CI","organisationId":"org-2","role":"ORG_USER_VIEWER","expirationDate":"2999-01-01T00:00:00Z"}`)
	want(t, a, 200, 0, "")
	secret, id := a.raw["secret"].(string), a.raw["token"].(map[string]any)["id"].(string)
	if !strings.HasPrefix(secret, access.SecretPrefix) || len(secret) < 47 {
		t.Errorf("secret %q", secret)
	}
	use := func() answer {
		return s.rest(t, "POST", "/management/v1/users/_search", "{}", "Authorization", "Bearer "+secret)
	}
	want(t, use(), 200, 0, "")
	if err := s.tokens.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	list := s.rest(t, "GET", "/v1/tokens", "")
	if bytes.Contains(list.Body, []byte(secret)) || list.raw["result"].([]any)[0].(map[string]any)["lastUsedDate"] == nil {
		t.Errorf("list: %s", list.Body)
	}
	var stored []byte
	if err := s.store.Pool().QueryRow(t.Context(), `SELECT hash FROM tokens WHERE id = $1`, id).Scan(&stored); err != nil || len(stored) != 32 || bytes.Contains(stored, []byte(secret)) {
		t.Errorf("stored: %d bytes, %v", len(stored), err)
	}
	// Another instance has the token in its memory; a second later it knows.
	elsewhere := access.NewTokens(s.store.Pool(), "", "", time.Now)
	if _, err := elsewhere.Authenticate(t.Context(), "Bearer "+secret); err != nil {
		t.Fatal(err)
	}
	want(t, s.rest(t, "DELETE", "/v1/tokens/"+id, ""), 200, 0, "")
	revoked := time.Now()
	want(t, use(), 401, 16, "AUTH-7fs1e")
	for {
		_, err := elsewhere.Authenticate(t.Context(), "Bearer "+secret)
		if errors.Is(err, access.ErrToken) {
			break
		}
		if err != nil || time.Since(revoked) > time.Second {
			t.Fatalf("%v after the revocation the token is good elsewhere (%v)", time.Since(revoked), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	want(t, s.rest(t, "DELETE", "/v1/tokens/nothing", ""), 404, 5, "MUSTER-token")
	want(t, s.rest(t, "POST", "/v1/tokens", `{"organisationId":"org-1","role":"ROOT"}`), 400, 3, "")
	want(t, s.rest(t, "POST", "/v1/tokens", `{"organisationId":"nowhere","role":"ORG_OWNER"}`), 403, 7, "AUTH-Bs7Ds")
	want(t, s.rest(t, "POST", "/v1/tokens", `{"organisationId":"org-1","role":"ORG_OWNER","expirationDate":"2001-01-01T00:00:00Z"}`), 400, 3, "MUSTER-expiry")

	// Expiry, with a clock in our hands.
	now := time.Now()
	clocked := access.NewTokens(s.store.Pool(), "", "", func() time.Time { return now })
	_, brief, err := clocked.Create(t.Context(), "brief", "org-1", access.OrgOwner, now.Add(time.Minute), access.AdminID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clocked.Authenticate(t.Context(), "Bearer "+brief); err != nil {
		t.Error(err)
	}
	now = now.Add(time.Minute)
	if _, err := clocked.Authenticate(t.Context(), "Bearer "+brief); !errors.Is(err, access.ErrToken) {
		t.Errorf("an expired token: %v", err)
	}
	if _, err := clocked.Authenticate(t.Context(), "Bearer "); !errors.Is(err, access.ErrToken) {
		t.Errorf("no administrator's token is configured, and the empty one is: %v", err)
	}
}

func TestOrganisations(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.rest(t, "POST", "/v1/organisations", `{"id":"acme","name":"Acme"}`)
	want(t, a, 200, 0, "")
	want(t, s.rest(t, "POST", "/v1/organisations", `{"id":"acme","name":"Acme"}`), 409, 6, "MUSTER-orgexists")
	want(t, s.rest(t, "POST", "/v1/organisations", `{"id":"a b","name":"Acme"}`), 400, 3, "MUSTER-orgid")
	want(t, s.rest(t, "POST", importPath, body(nil), "x-zitadel-orgid", "acme"), 200, 0, "")
	a = s.rest(t, "GET", "/v1/organisations", "")
	var ids []string
	for _, o := range a.raw["result"].([]any) {
		ids = append(ids, o.(map[string]any)["id"].(string))
	}
	if got := strings.Join(ids, " "); got != "acme org-1 org-2" {
		t.Errorf("organisations %q", got)
	}
}

func TestSecondGeneration(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	const path = "/v2/users/human"
	request := func(rest string) string {
		return fmt.Sprintf(`{"profile":{"givenName":" Minnie ","familyName":"Mouse"},"email":{"email":"u%s@example.org","returnCode":{}}%s}`, unique(), rest)
	}
	a := s.rest(t, "POST", path, request(`,"userId":"my-own-id","totpSecret":"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP","metadata":[{"key":"k","value":"dg=="}],
		"phone":{"phone":"+41791234567","returnCode":{}},"hashedPassword":{"hash":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm","changeRequired":true},
		"idpLinks":[{"idpId":"i","userId":"u","userName":"n"}]`))
	want(t, a, 200, 0, "")
	if a.raw["userId"] != "my-own-id" || len(a.raw["emailCode"].(string)) != 6 || len(a.raw["phoneCode"].(string)) != 6 ||
		a.raw["details"].(map[string]any)["changeDate"] == nil || a.raw["details"].(map[string]any)["resourceOwner"] != "org-1" {
		t.Errorf("%s", a.Body)
	}
	user := s.rest(t, "GET", "/management/v1/users/my-own-id", "").raw["user"].(map[string]any)
	if !strings.HasSuffix(user["userName"].(string), "@example.org") || user["human"].(map[string]any)["profile"].(map[string]any)["firstName"] != "Minnie" {
		t.Errorf("user: %v", user)
	}
	want(t, s.rest(t, "POST", path, request(`,"userId":"my-own-id"`)), 400, 9, "COMMAND-7yiox1isql")
	want(t, s.rest(t, "POST", path, request(`,"password":{"password":"string"}`)), 400, 3, "COMMA-HuJf6")
	want(t, s.rest(t, "POST", path, request(`,"password":{"password":"a"},"hashedPassword":{"hash":"b"}`)), 400, 3, "")
	want(t, s.rest(t, "POST", path, request(`,"organization":{"orgId":"org-2"}`)), 200, 0, "")
	want(t, s.rest(t, "POST", path, request(`,"organization":{"orgId":"nowhere"}`)), 403, 7, "AUTH-Bs7Ds")
	want(t, s.rest(t, "POST", path, request(`,"organization":{"orgDomain":"example.org"}`)), 403, 7, "AUTH-Bs7Ds")
	owner := "Bearer " + s.token(t, "org-1", access.OrgOwner)
	want(t, s.rest(t, "POST", path, request(`,"organization":{"orgId":"org-2"}`), "Authorization", owner), 404, 5, "AUTHZ-cdgFk")
	want(t, s.rest(t, "POST", path, `{}`), 400, 3, "")
	req := &userv2.AddHumanUserRequest{}
	fromJSON(t, request(""), req)
	for i := range protocols {
		req.Email.Email = "u" + unique() + "@example.org"
		res, a := rpc[userv2.AddHumanUserRequest, userv2.AddHumanUserResponse](t, s, i, "/zitadel.user.v2.UserService/AddHumanUser", req)
		if a.Code != 0 || res.GetUserId() == "" || res.GetEmailCode() == "" {
			t.Errorf("%s: %v", protocols[i].name, a)
		}
	}
}

func TestBulkDocument(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	human := func(id, name string) string {
		return fmt.Sprintf(`{"userId":%q,"user":{"userName":%q,"profile":{"firstName":"a","lastName":"b"},"email":{"email":"a@b.c","isEmailVerified":true}}}`, id, name)
	}
	document := `{"dataOrgs":{"orgs":[{"orgId":"imported","org":{"name":"Imported"},"humanUsers":[` +
		human("u1", "one") + "," + human("u2", "ONE") + "," + human("u3", "") + "," + human("u4", "four") + "," + human("u4", "five") + `],
		"userMetadata":[{"id":"u1","key":"k","value":"dg=="},{"id":"u9","key":"k","value":"dg=="}],
		"userLinks":[{"userId":"u4","idpId":"i","providedUserId":"p","providedUserName":"n"}],
		"userGrants":[{"userId":"u1","projectId":"p"}]}]},"timeout":"30m0s"}`
	a := s.rest(t, "POST", "/admin/v1/import", document)
	want(t, a, 200, 0, "")
	var failed []string
	for _, e := range a.raw["errors"].([]any) {
		e := e.(map[string]any)
		failed = append(failed, fmt.Sprintf("%s %s", e["type"], e["id"]))
	}
	if got, want := strings.Join(failed, ", "), "user_grant u1, user_metadata u9, human_user u2, human_user u3, human_user u4"; got != want {
		t.Errorf("errors %q\nwant   %q", got, want)
	}
	org := a.raw["success"].(map[string]any)["orgs"].([]any)[0].(map[string]any)
	if fmt.Sprint(org["humanUserIds"]) != "[u1 u4]" || len(org["userMetadata"].([]any)) != 1 || len(org["userLinks"].([]any)) != 1 {
		t.Errorf("success: %v", org)
	}
	if last := a.raw["errors"].([]any)[4].(map[string]any); last["message"] != "Errors.User.AlreadyExisting (COMMAND-ziuna)" {
		t.Errorf("an id that exists: %v", last)
	}
	snake := strings.NewReplacer(`"dataOrgs"`, `"data_orgs"`, `"humanUsers"`, `"human_users"`, `"u1"`, `"v1"`, `"one"`, `"v-one"`).Replace(document)
	want(t, s.rest(t, "POST", "/admin/v1/import", snake), 200, 0, "")
	want(t, s.rest(t, "GET", "/management/v1/users/v1", "", "x-zitadel-orgid", "imported"), 200, 0, "")
	want(t, s.rest(t, "POST", "/admin/v1/import", `{"dataOrgs":{}}`), 400, 3, "MUSTER-timeout")
	want(t, s.rest(t, "POST", "/admin/v1/import", `{"timeout":"1m"}`), 400, 3, "MUSTER-dataorgs")
}

func TestRouting(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		method, path string
		status, code int
		message      string
	}{
		{"GET", importPath, 405, 12, "Method Not Allowed"},
		{"PUT", "/management/v1/users/_search", 405, 12, "Method Not Allowed"},
		{"GET", "/nowhere", 404, 5, "Not Found"},
		{"POST", "/management/v1/nowhere/at/all", 404, 5, "Not Found"},
		{"POST", "/management/v1/orgs", 404, 5, "Not Found"},
	} {
		a := s.rest(t, c.method, c.path, "")
		want(t, a, c.status, c.code, "")
		if a.Message != c.message {
			t.Errorf("%s %s: %q", c.method, c.path, a.Message)
		}
	}
	for i, p := range protocols {
		for _, procedure := range []string{
			"/zitadel.management.v1.ManagementService/AddMachineUser", "/zitadel.user.v2.UserService/CreateUser", "/zitadel.org.v2.OrganizationService/AddOrganization",
		} {
			if _, a := rpc[managementv1.AddOrgRequest, emptypb.Empty](t, s, i, procedure, &managementv1.AddOrgRequest{Name: "x"}); a.Code != 12 {
				t.Errorf("%s %s: code %d", p.name, procedure, a.Code)
			}
		}
	}
	// Lines of JSON must never be taken for a single message.
	want(t, s.rest(t, "POST", importPath, body(nil)+"\n"+body(nil), "Content-Type", "application/x-ndjson; charset=utf-8"), 501, 12, "")
	want(t, s.rest(t, "POST", importPath, "", "Content-Type", "application/x-ndjson", "Authorization", ""), 401, 16, "")
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.AllowedOrigins = []string{"https://app.example.org"} })
	a := s.rest(t, "POST", importPath, body(nil), "Origin", "https://app.example.org", "X-Request-Id", "abc-1")
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache", "X-Robots-Tag": "none",
		"X-Content-Type-Options": "nosniff", "X-Request-Id": "abc-1",
		"Access-Control-Allow-Origin": "https://app.example.org", "Access-Control-Allow-Credentials": "true",
	} {
		if got := a.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if at, err := http.ParseTime(a.Header.Get("Expires")); err != nil || time.Since(at) > time.Minute {
		t.Errorf("Expires: %q", a.Header.Get("Expires"))
	}
	a = s.rest(t, "POST", importPath, `{}`, "Authorization", "", "Origin", "https://evil.example.org", "X-Request-Id", "a\"b")
	if a.Header.Get("WWW-Authenticate") != "auth header missing" || a.Header.Get("Access-Control-Allow-Origin") != "" || len(a.Header.Get("X-Request-Id")) != 26 {
		t.Errorf("headers: %v", a.Header)
	}
	preflight := s.rest(t, "OPTIONS", importPath, "", "Authorization", "", "Origin", "https://app.example.org",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-grpc-web")
	if preflight.HTTP != 204 || preflight.Header.Get("Access-Control-Allow-Headers") != "authorization,x-grpc-web" {
		t.Errorf("preflight: %d %v", preflight.HTTP, preflight.Header)
	}
}

func TestOriginOfLinks(t *testing.T) {
	t.Parallel()
	link := func(s *system, headers ...string) string {
		a := s.rest(t, "POST", importPath, body(with("requestPasswordlessRegistration", "true")), headers...)
		return a.raw["passwordlessRegistration"].(map[string]any)["link"].(string)
	}
	hops := [][]string{
		{"Forwarded", `for=1.2.3.4;proto=https;host="id.example.org", for=10.0.0.1`},
		{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "id.example.org"},
		{"X-Forwarded-Proto", "https", "x-zitadel-public-host", "id.example.org"},
	}
	direct := start(t, nil)
	behind := start(t, func(d *handlers.Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	fixed := start(t, func(d *handlers.Deps) { d.PublicURL = "https://fixed.example.org/" })
	for _, h := range hops {
		if got := link(direct, h...); !strings.HasPrefix(got, direct.url+"/ui/") {
			t.Errorf("a stranger's %v is believed: %s", h, got)
		}
		if got := link(behind, h...); !strings.HasPrefix(got, "https://id.example.org/ui/") {
			t.Errorf("%v: %s", h, got)
		}
		if got := link(fixed, h...); !strings.HasPrefix(got, "https://fixed.example.org/ui/") {
			t.Errorf("%v: %s", h, got)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := start(t, func(d *handlers.Deps) {
		d.Rate, d.Burst, d.MaxBody = 1, 2, 10_000
		d.Now = func() time.Time { return now }
	})
	call := func() answer { return s.rest(t, "POST", "/management/v1/users/_search", "{}") }
	want(t, call(), 200, 0, "")
	want(t, call(), 200, 0, "")
	a := call()
	want(t, a, 429, 8, "QUOTA-vjAy8")
	if a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	other := s.token(t, "org-1", access.OrgOwner)
	want(t, s.rest(t, "POST", "/management/v1/users/_search", "{}", "Authorization", "Bearer "+other), 200, 0, "")
	now = now.Add(time.Second)
	want(t, call(), 200, 0, "")

	now = now.Add(time.Hour)
	large := body(with("password", quoted(strings.Repeat("x", 20_000))))
	a = s.rest(t, "POST", importPath, large)
	want(t, a, 429, 8, "")
	req := &managementv1.ImportHumanUserRequest{}
	fromJSON(t, large, req)
	for i, p := range protocols {
		if _, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, i, importProcedure, req); a.Code != 8 {
			t.Errorf("%s: code %d: %s", p.name, a.Code, a.Message)
		}
	}
}

// TestInternalErrorsAndLogs breaks the service below a call: the answer says
// nothing, the log has the cause under the request's id; and no log line has a
// secret or a person's data in it.
func TestInternalErrorsAndLogs(t *testing.T) {
	s := start(t, func(d *handlers.Deps) {
		broken := *d.Importer
		now := broken.Now
		broken.Now = func() time.Time {
			if os.Getenv("MUSTER_TEST_PANIC") != "" {
				panic("the clock has stopped")
			}
			return now()
		}
		d.Importer = &broken
	})
	s.rest(t, "POST", importPath, body(map[string]string{"userName": `"secret-name"`, "password": `"S3cret!pass"`, "email": `{"email":"secret@example.org"}`}))
	s.rest(t, "POST", importPath, `{"password":123456789}`)
	s.rest(t, "GET", "/management/v1/global/users/_by_login_name?loginName=secret-name", "")
	t.Setenv("MUSTER_TEST_PANIC", "1")
	a := s.rest(t, "POST", importPath, body(nil), "X-Request-Id", "the-broken-one")
	if want := `{"code":13,"message":"An internal error occurred"}`; a.HTTP != 500 || string(a.Body) != want {
		t.Errorf("%d: %s", a.HTTP, a.Body)
	}
	req := &managementv1.ImportHumanUserRequest{}
	fromJSON(t, body(nil), req)
	for i, p := range protocols {
		if _, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, i, importProcedure, req); a.Code != 13 || a.Message != "An internal error occurred" || len(a.Details) != 0 {
			t.Errorf("%s: %v", p.name, a)
		}
	}
	log := s.log.String()
	found := false
	for line := range strings.Lines(log) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		found = found || l["request"] == "the-broken-one" && l["level"] == "ERROR" && strings.Contains(l["error"].(string), "the clock has stopped")
	}
	if !found {
		t.Errorf("the cause is not in the log:\n%s", log)
	}
	for _, secret := range []string{"secret-name", "S3cret!pass", "secret@example.org", "123456789", adminToken} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q in it", secret)
		}
	}
}

func TestToolsOfRPC(t *testing.T) {
	t.Parallel()
	ready := errors.New("not yet")
	s := start(t, func(d *handlers.Deps) { d.Ready = func(context.Context) error { return ready } })
	status := func() string {
		a := s.rest(t, "POST", "/grpc.health.v1.Health/Check", `{"service":"zitadel.management.v1.ManagementService"}`, "Content-Type", "application/json", "Authorization", "")
		v, _ := a.raw["status"].(string)
		return v
	}
	if got := status(); got != "SERVING_STATUS_NOT_SERVING" {
		t.Errorf("health: %s", got)
	}
	if a := s.rest(t, "GET", "/readyz", ""); a.HTTP != 503 {
		t.Errorf("readyz: %d", a.HTTP)
	}
	ready = nil
	if got := status(); got != "SERVING_STATUS_SERVING" {
		t.Errorf("health: %s", got)
	}
	for _, path := range []string{"/readyz", "/healthz"} {
		if a := s.rest(t, "GET", path, "", "Authorization", ""); a.HTTP != 200 {
			t.Errorf("%s: %d", path, a.HTTP)
		}
	}
	client := grpcreflect.NewClient(s.h2, s.url, connect.WithGRPC())
	stream := client.NewStream(t.Context())
	names, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range names {
		list = append(list, string(n))
	}
	if got, want := strings.Join(list, " "), "zitadel.management.v1.ManagementService zitadel.user.v2.UserService zitadel.admin.v1.AdminService muster.v1.AccessService "+grpchealth.HealthV1ServiceName; !sameWords(got, want) {
		t.Errorf("services %q", got)
	}
	files, err := stream.FileContainingSymbol("zitadel.management.v1.ImportHumanUserRequest")
	if err != nil || len(files) == 0 {
		t.Errorf("reflection: %d files, %v", len(files), err)
	}
	if _, err := stream.Close(); err != nil {
		t.Error(err)
	}
	// The generated client, as a user of our .proto files has it.
	generated := managementv1connect.NewManagementServiceClient(s.h2, s.url, connect.WithGRPC())
	req := connect.NewRequest(&managementv1.ListUsersRequest{Queries: []*userv1.SearchQuery{{Query: &userv1.SearchQuery_UserNameQuery{
		UserNameQuery: &userv1.UserNameQuery{UserName: "x", Method: zitadelv1.TextQueryMethod_TEXT_QUERY_METHOD_CONTAINS}}}}})
	req.Header().Set("Authorization", "Bearer "+adminToken)
	if _, err := generated.ListUsers(t.Context(), req); err != nil {
		t.Error(err)
	}
}

func sameWords(a, b string) bool {
	count := map[string]int{}
	for _, w := range strings.Fields(a) {
		count[w]++
	}
	for _, w := range strings.Fields(b) {
		count[w]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.rest(t, "GET", "/openapi.json", "", "Authorization", "")
	if a.HTTP != 200 || a.raw["openapi"] != "3.1.0" {
		t.Fatalf("%d: %.200s", a.HTTP, a.Body)
	}
	paths, schemas := a.raw["paths"].(map[string]any), a.raw["components"].(map[string]any)["schemas"].(map[string]any)
	for _, p := range []string{importPath, "/management/v1/users/{id}", "/v2/users/human", "/admin/v1/import", "/v1/tokens"} {
		if paths[p] == nil {
			t.Errorf("%s is not described", p)
		}
	}
	request := schemas["zitadel.management.v1.ImportHumanUserRequest"].(map[string]any)
	if fmt.Sprint(request["required"]) != "[userName profile email]" || request["properties"].(map[string]any)["userName"].(map[string]any)["maxLength"] != 200.0 {
		t.Errorf("request: %v", request)
	}
	// Every reference leads somewhere.
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && schemas[strings.TrimPrefix(ref, "#/components/schemas/")] == nil {
				t.Errorf("%s leads nowhere", ref)
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(a.raw)
	for _, path := range []string{"/openapi", "/openapi.js"} {
		res, err := s.http.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || bytes.Contains(b, []byte("//cdn")) || bytes.Contains(b, []byte("https://")) {
			t.Errorf("%s: %d, %v", path, res.StatusCode, err)
		}
	}
}

// TestEveryRouteIsDescribed holds the document and the routes together, in both
// directions. Beside the REST routes there are the methods' own paths, which
// reflection describes, and the pages.
func TestEveryRouteIsDescribed(t *testing.T) {
	t.Parallel()
	var deps handlers.Deps
	s := start(t, func(d *handlers.Deps) {
		withJobs(d)
		d.Webhooks = consumers.NewWebhooks(d.Store, consumers.WebhooksConfig{})
		d.Metrics = http.NotFoundHandler()
		deps = *d
	})
	served := map[string]bool{}
	for _, r := range handlers.New(deps).(*echo.Echo).Routes() {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.Path, "/"), "/")
		if strings.Contains(first, ".") && !strings.HasPrefix(first, "openapi.") || first == "ui" {
			continue
		}
		served[r.Method+" "+regexp.MustCompile(`:([A-Za-z_]+)`).ReplaceAllString(r.Path, "{$1}")] = true
	}
	if len(served) < 50 {
		t.Errorf("only %d routes", len(served))
	}
	a := s.rest(t, "GET", "/openapi.json", "")
	ids := map[string]bool{}
	for path, item := range a.raw["paths"].(map[string]any) {
		for verb, op := range item.(map[string]any) {
			o := op.(map[string]any)
			name := strings.ToUpper(verb) + " " + path
			if !served[name] {
				t.Errorf("%s is described and not served", name)
			}
			delete(served, name)
			if id := o["operationId"].(string); ids[id] || o["summary"] == "" {
				t.Errorf("%s: operationId %s, summary %v", name, id, o["summary"])
			} else {
				ids[id] = true
			}
			var inPath []string
			for _, p := range o["parameters"].([]any) {
				if p := p.(map[string]any); p["in"] == "path" {
					inPath = append(inPath, "{"+p["name"].(string)+"}")
				}
			}
			if got, want := strings.Join(inPath, ""), strings.Join(regexp.MustCompile(`\{\w+\}`).FindAllString(path, -1), ""); got != want {
				t.Errorf("%s: parameters %s", name, got)
			}
		}
	}
	for name := range served {
		t.Errorf("%s is served and not described", name)
	}
	parameters := func(verb, path string) (names []string) {
		for _, p := range a.raw["paths"].(map[string]any)[path].(map[string]any)[verb].(map[string]any)["parameters"].([]any) {
			names = append(names, p.(map[string]any)["name"].(string))
		}
		return names
	}
	for _, c := range []struct{ verb, path, name string }{
		{"get", "/management/v1/users/{id}", "asOf"}, {"get", "/management/v1/users/{id}", "Muster-Min-Position"},
		{"post", importPath, "Idempotency-Key"}, {"post", importPath, "onConflict"}, {"get", "/v1/events", "types"}, {"get", "/v1/counts", "allOrganisations"},
		{"post", "/management/v1/users/_search", "Muster-Page"},
	} {
		if !slices.Contains(parameters(c.verb, c.path), c.name) {
			t.Errorf("%s %s lacks %s: %v", c.verb, c.path, c.name, parameters(c.verb, c.path))
		}
	}
}

// TestEveryTextIsTranslated finds every error text in the sources and looks
// for it in every catalogue.
func TestEveryTextIsTranslated(t *testing.T) {
	t.Parallel()
	texts := map[string]string{}
	for _, root := range []string{"../domain", "../importer", "../projections", "."} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) < 2 {
					return true
				}
				name := ""
				switch f := call.Fun.(type) {
				case *ast.Ident:
					name = f.Name
				case *ast.SelectorExpr:
					name = f.Sel.Name
				}
				var id, text ast.Expr
				switch {
				case name == "NewError" && len(call.Args) == 3:
					id, text = call.Args[1], call.Args[2]
				case name == "broken" && len(call.Args) == 2: // the password policy's
					id, text = call.Args[0], call.Args[1]
				default:
					return true
				}
				message, fixed := literal(text)
				if key, known := literal(id); fixed && (!known || key != "" && !strings.HasPrefix(key, "AUTH")) && !strings.HasPrefix(message, "Errors.") {
					texts[message] = path
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(texts) < 50 {
		t.Fatalf("only %d texts found: the search is broken", len(texts))
	}
	for _, lang := range []string{"de", "fr", "it", "es"} {
		b, err := os.ReadFile("locales/" + lang + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var c map[string]string
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		for text, path := range texts {
			if c[text] == "" {
				t.Errorf("%s: %q has no translation in locales/%s.json", path, text, lang)
			}
		}
	}
}

// literal is the value of a constant text; for one that something is appended
// to, of its beginning.
func literal(e ast.Expr) (string, bool) {
	if sum, ok := e.(*ast.BinaryExpr); ok {
		e = sum.X
	}
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}
