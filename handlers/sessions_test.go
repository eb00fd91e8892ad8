package handlers_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	sessionv2 "github.com/muster-id/muster/proto/zitadel/session/v2"
)

const cheapHash = `{"value":"$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1"}` // of "password"

// withSignIn lets people log in; change may adjust how.
func withSignIn(t testing.TB, change func(*signin.Config)) func(*handlers.Deps) {
	return func(d *handlers.Deps) {
		withJobs(d)
		cfg := signin.Config{
			Store: d.Store, Policy: domain.DefaultPolicy(), Passwords: password.NewPool(2, rand.Reader), Secrets: d.Jobs.Secrets, Lockout: 5, Log: d.Log,
		}
		cfg.OldSystems = signin.NewOldSystems(signin.OldSystemsConfig{
			AllowPrivate: true,
			Verifier: func(ctx context.Context, job string) (signin.Verifier, error) {
				v, err := d.Jobs.Verifier(ctx, job)
				return signin.Verifier(v), err
			},
		})
		if change != nil {
			change(&cfg)
		}
		s, err := signin.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := s.Close(ctx); err != nil {
				t.Errorf("sign in: %v", err)
			}
		})
		d.SignIn = s
	}
}

func checks(user, password string) string {
	b, _ := json.Marshal(map[string]any{"checks": map[string]any{
		"user": map[string]string{"loginName": user}, "password": map[string]string{"password": password},
	}})
	return string(b)
}

func TestSessionsOverREST(t *testing.T) {
	t.Parallel()
	s := start(t, withSignIn(t, nil))
	name := "session-" + unique()
	id, _ := s.add(t, map[string]string{"userName": quoted(name), "hashedPassword": cheapHash, "passwordChangeRequired": "true", "otpCode": `"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"`})

	want(t, s.rest(t, "POST", "/v2/sessions", checks(name, "wrong")), 400, 3, "COMMAND-3M0fs")
	want(t, s.rest(t, "POST", "/v2/sessions", checks("nobody", "password")), 400, 3, "COMMAND-3M0fs")
	want(t, s.rest(t, "POST", "/v2/sessions", `{"checks":{"user":{"userId":"nobody"}}}`), 404, 5, "COMMAND-Sfw3r")
	want(t, s.rest(t, "POST", "/v2/sessions", `{"checks":{"user":{}}}`), 400, 3, "")
	want(t, s.rest(t, "POST", "/v2/sessions", `{"lifetime":"-1s"}`), 400, 3, "")
	want(t, s.rest(t, "POST", "/v2/sessions", `{"lifetime":"9999999s"}`), 400, 3, "MUSTER-lifetime")
	want(t, s.rest(t, "POST", "/v2/sessions", `{"checks":{"user":{"userId":"`+id+`"}},"challenges":{"webAuthN":{"domain":"localhost","userVerificationRequirement":1}}}`), 400, 9, "MUSTER-origin")

	a := s.rest(t, "POST", "/v2/sessions", checks(name, "password"))
	session, _ := a.raw["sessionId"].(string)
	token, _ := a.raw["sessionToken"].(string)
	if a.HTTP != 200 || !strings.HasPrefix(token, signin.TokenPrefix) || a.Header.Get("Muster-Password-Change-Required") != "true" ||
		a.raw["details"].(map[string]any)["resourceOwner"] != "org-1" || a.raw["details"].(map[string]any)["sequence"] != "1" {
		t.Fatalf("%d: %s", a.HTTP, a.Body)
	}
	code := func(at time.Time) string { // RFC 6238's secret
		u := domain.User{TOTPSecret: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
		return u.TOTPCode(at)
	}(time.Now())
	set := s.rest(t, "PATCH", "/v2/sessions/"+session, `{"sessionToken":"`+token+`","checks":{"totp":{"code":"`+code+`"}}}`)
	if set.HTTP != 200 || set.raw["sessionToken"] == token {
		t.Fatalf("%d: %s", set.HTTP, set.Body)
	}
	want(t, s.rest(t, "PATCH", "/v2/sessions/"+session, `{"checks":{"totp":{"code":"`+code+`"}}}`), 400, 3, "MUSTER-otp")
	old := token
	token = set.raw["sessionToken"].(string)

	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	stranger := "Bearer " + s.token(t, "org-2", access.OrgOwner)
	owner := "Bearer " + s.token(t, "org-1", access.OrgOwner)
	client := "Bearer " + s.token(t, "org-2", access.IAMLoginClient)
	get := func(bearer, token string) answer {
		return s.rest(t, "GET", "/v2/sessions/"+session+"?sessionToken="+token, "", "Authorization", bearer)
	}
	got := get(viewer, token)
	var x struct {
		Session struct {
			ID, ExpirationDate string
			Factors            struct {
				User     struct{ ID, LoginName, DisplayName, OrganizationID, VerifiedAt string }
				Password struct {
					VerifiedAt     string
					ChangeRequired bool
				}
				TOTP struct{ VerifiedAt string }
			}
		}
	}
	if err := json.Unmarshal(got.Body, &x); err != nil || got.HTTP != 200 {
		t.Fatalf("%d: %s", got.HTTP, got.Body)
	}
	if f := x.Session.Factors; f.User.ID != id || f.User.LoginName != name || f.User.DisplayName != "Minnie Mouse" || f.User.OrganizationID != "org-1" ||
		f.Password.VerifiedAt == "" || !f.Password.ChangeRequired || f.TOTP.VerifiedAt == "" || x.Session.ExpirationDate == "" {
		t.Errorf("%s", got.Body)
	}
	want(t, get(viewer, old), 403, 7, "COMMAND-sGr42")
	want(t, get(viewer, ""), 400, 3, "") // an empty token is none that could be right
	bare := func(bearer string) answer {
		return s.rest(t, "GET", "/v2/sessions/"+session, "", "Authorization", bearer)
	}
	want(t, bare(viewer), 403, 7, "COMMAND-sGr42")
	want(t, bare(owner), 200, 0, "")
	want(t, bare(client), 200, 0, "")
	want(t, bare(stranger), 404, 5, "QUERY-SFeaa")
	want(t, get(stranger, token), 404, 5, "QUERY-SFeaa")
	want(t, bare(""), 401, 16, "")
	for bearer, status := range map[string]int{viewer: 403, "Bearer " + s.token(t, "org-1", access.OrgUserManager): 403, owner: 200, client: 200, stranger: 400} {
		if a := s.rest(t, "POST", "/v2/sessions", checks(name, "password"), "Authorization", bearer); a.HTTP != status {
			t.Errorf("a session by another role: %d, want %d: %s", a.HTTP, status, a.Body)
		}
	}
	want(t, s.rest(t, "DELETE", "/v2/sessions/"+session, `{"sessionToken":"mss_guessed"}`, "Authorization", viewer), 403, 7, "COMMAND-sGr42")
	want(t, s.rest(t, "DELETE", "/v2/sessions/"+session, `{"sessionToken":"`+token+`"}`, "Authorization", viewer), 200, 0, "")
	want(t, get(viewer, token), 404, 5, "QUERY-SFeaa")
	for _, secret := range []string{token, old, `"password":"password"`} {
		if strings.Contains(s.log.String(), secret) {
			t.Error("a secret is in the log")
		}
	}
	// By guessing on, the user is locked, for the right password as well.
	for range 5 {
		s.rest(t, "POST", "/v2/sessions", checks(name, "wrong"))
	}
	want(t, s.rest(t, "POST", "/v2/sessions", checks(name, "password")), 400, 9, "MUSTER-active")
}

func TestSessionsOverRPC(t *testing.T) {
	t.Parallel()
	s := start(t, withSignIn(t, nil))
	name := "session-" + unique()
	s.add(t, map[string]string{"userName": quoted(name), "hashedPassword": cheapHash})
	const service = "/zitadel.session.v2.SessionService/"
	for n, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			var req sessionv2.CreateSessionRequest
			fromJSON(t, checks(name, "wrong"), &req)
			if _, a := rpc[sessionv2.CreateSessionRequest, sessionv2.CreateSessionResponse](t, s, n, service+"CreateSession", &req); a.Code != 3 || a.id() != "COMMAND-3M0fs" {
				t.Errorf("%+v", a)
			}
			req.Checks.Password.Password = "password"
			made, a := rpc[sessionv2.CreateSessionRequest, sessionv2.CreateSessionResponse](t, s, n, service+"CreateSession", &req)
			if a.Code != 0 {
				t.Fatalf("%+v", a)
			}
			set, a := rpc[sessionv2.SetSessionRequest, sessionv2.SetSessionResponse](t, s, n, service+"SetSession",
				&sessionv2.SetSessionRequest{SessionId: made.GetSessionId(), SessionToken: made.GetSessionToken()})
			if a.Code != 0 {
				t.Fatalf("%+v", a)
			}
			token := set.GetSessionToken()
			got, a := rpc[sessionv2.GetSessionRequest, sessionv2.GetSessionResponse](t, s, n, service+"GetSession",
				&sessionv2.GetSessionRequest{SessionId: made.GetSessionId(), SessionToken: &token})
			if a.Code != 0 || got.GetSession().GetFactors().GetUser().GetLoginName() != name || got.GetSession().GetSequence() != 2 {
				t.Errorf("%+v, %+v", got, a)
			}
			if _, a := rpc[sessionv2.DeleteSessionRequest, sessionv2.DeleteSessionResponse](t, s, n, service+"DeleteSession",
				&sessionv2.DeleteSessionRequest{SessionId: made.GetSessionId(), SessionToken: &token}); a.Code != 0 {
				t.Errorf("%+v", a)
			}
			if _, a := rpc[sessionv2.GetSessionRequest, sessionv2.GetSessionResponse](t, s, n, service+"GetSession",
				&sessionv2.GetSessionRequest{SessionId: made.GetSessionId()}); a.Code != 5 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// Without people who log in there is no service for it.
func TestNoSessions(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	if a := s.rest(t, http.MethodPost, "/v2/sessions", "{}"); a.HTTP != http.StatusNotFound {
		t.Errorf("%d: %s", a.HTTP, a.Body)
	}
}
