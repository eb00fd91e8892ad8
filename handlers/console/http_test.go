package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/projections"
)

var inline = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script>|(src|href)="(https?:)?//`)

func TestWhoGetsIn(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	_, owner := s.token("org-1", access.OrgOwner)
	token, iam := s.token("org-2", access.IAMOwner)

	for _, path := range []string{"/session", "/live", "/users/x/events", "/imports/org-1/x/failures"} {
		if r := s.agent().get("/ui/admin" + path); r.status != 401 {
			t.Errorf("%s without a session: %d %s", path, r.status, r.body)
		}
	}
	for _, path := range []string{"/search", "/projections/users/rebuild", "/projections/users/rollback", "/projections/users/retry", "/consumers/mail/retry", "/consumers/mail/release", "/consumers/mail/skip"} {
		if r := s.agent().post("/ui/admin"+path, url.Values{"q": {"a"}}); r.status != 401 {
			t.Errorf("%s without a session: %d %s", path, r.status, r.body)
		}
	}
	for secret, status := range map[string]int{"": 401, "wrong": 401, strings.Repeat("x", 5000): 401, owner: 403} {
		a := s.agent()
		r := a.post("/ui/admin/login", url.Values{"token": {secret}})
		if r.status != status || !strings.Contains(r.body, `role="alert"`) || r.header.Get("Set-Cookie") != "" {
			t.Errorf("token %.10q: %d, cookie %q", secret, r.status, r.header.Get("Set-Cookie"))
		}
		if a.get("/ui/admin/session").status != 401 {
			t.Errorf("token %.10q is let in", secret)
		}
	}

	a := s.in(iam)
	cookies := a.client.Jar.Cookies(mustURL(t, s.url+"/ui/admin/x"))
	if len(cookies) != 1 || strings.Contains(cookies[0].Value, iam) || len(a.client.Jar.Cookies(mustURL(t, s.url+"/ui/login"))) != 0 {
		t.Fatalf("cookies: %v", cookies)
	}
	page := a.get("/ui/admin")
	if strings.Contains(page.body, iam) || !strings.Contains(page.body, "night shift") {
		t.Error("the page has the token, or not its name")
	}
	forged := cookies[0].Value[:len(cookies[0].Value)-4] + "AAAA"
	if r := s.agent().ask("GET", "/ui/admin/session", "", "Cookie", "muster_console="+forged); r.status != 401 {
		t.Errorf("a forged cookie: %d", r.status)
	}
	b := s.in(iam)
	if r := b.post("/ui/admin/logout", nil); r.status != 200 || !strings.Contains(r.body, "You are logged out.") || b.get("/ui/admin/session").status != 401 {
		t.Errorf("logging out: %d %s", r.status, r.body)
	}
	if a.get("/ui/admin/session").status != 204 {
		t.Fatal("the session is not let in")
	}
	if _, err := s.tokens.Revoke(context.Background(), token.ID); err != nil {
		t.Fatal(err)
	}
	if r := a.get("/ui/admin/session"); r.status != 401 {
		t.Errorf("a revoked token: %d", r.status)
	}
	if strings.Contains(s.log.String(), iam) || strings.Contains(s.log.String(), owner) {
		t.Error("a token is in the log")
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheCookie(t *testing.T) {
	t.Parallel()
	for origin, secure := range map[string]bool{"": false, "https://id.example.org": true} {
		s := start(t, func(d *handlers.Deps) { d.PublicURL = origin })
		a := s.agent()
		a.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		r := a.post("/ui/admin/login", url.Values{"token": {adminToken}})
		got := (&http.Response{Header: r.header}).Cookies()
		if r.status != 303 || r.header.Get("Location") != "/ui/admin" || len(got) != 1 {
			t.Fatalf("%d %v", r.status, r.header)
		}
		c := got[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/ui/admin" || c.Secure != secure || c.MaxAge != 8*60*60 {
			t.Errorf("with %q: %+v", origin, c)
		}
	}
}

func TestPagesOfOtherSites(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.AllowedOrigins = []string{"*"} })
	a := s.in(adminToken)
	for _, headers := range [][]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		for _, path := range []string{"/login", "/logout", "/search", "/projections/users/rebuild", "/projections/users/rollback", "/projections/users/retry", "/consumers/mail/retry", "/consumers/mail/release", "/consumers/mail/skip"} {
			if r := a.ask("POST", "/ui/admin"+path, "q=ada&token="+url.QueryEscape(adminToken), headers...); r.status != 403 || r.header.Get("Set-Cookie") != "" {
				t.Errorf("%s from %v: %d", path, headers, r.status)
			}
		}
	}
	if strings.Contains(s.log.String(), "an operator has acted") {
		t.Error("something was done")
	}
	for _, r := range []reply{s.agent().get("/ui/admin"), a.get("/ui/admin"), a.ask("GET", "/ui/admin/session", "", "Origin", "https://evil.example")} {
		policy := r.header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; ") || strings.Contains(policy, "unsafe") ||
			!strings.Contains(policy, "frame-ancestors 'none'") || r.header.Get("Access-Control-Allow-Origin") != "" || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("headers: %v", r.header)
		}
		if found := inline.FindString(r.body); found != "" {
			t.Errorf("the page has %q", found)
		}
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(a.get("/ui/admin").body, -1) {
		if r := s.agent().get(m[1]); r.status != 200 || !strings.Contains(r.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", m[1], r.status, r.header)
		}
	}
}

// watching opens a stream; frame reads the next one, and an error says that the
// stream has ended.
func (a *agent) watching() (frame func() (map[string]any, error), hangUp func()) {
	a.s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "GET", a.s.url+"/ui/admin/live", nil)
	if err != nil {
		a.s.t.Fatal(err)
	}
	res, err := a.client.Do(r)
	if err != nil {
		a.s.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		a.s.t.Fatalf("the stream: %s", res.Status)
	}
	body := bufio.NewReader(res.Body)
	return func() (map[string]any, error) {
		for {
			line, err := body.ReadString('\n')
			if err != nil {
				return nil, err
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				var v map[string]any
				return v, json.Unmarshal([]byte(data), &v)
			}
		}
	}, func() { cancel(); res.Body.Close() }
}

// toTheEnd reads a stream until it ends.
func toTheEnd(frame func() (map[string]any, error)) {
	for {
		if _, err := frame(); err != nil {
			return
		}
	}
}

func TestAStreamEnds(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	token, secret := s.token("org-1", access.IAMOwner)
	revoked, hangUp := s.in(secret).watching()
	defer hangUp()
	a := s.in(adminToken)
	one, hangUpOne := a.watching()
	defer hangUpOne()
	other, hangUpOther := a.watching()
	defer hangUpOther()
	for _, frame := range []func() (map[string]any, error){revoked, one, other} {
		f, err := frame()
		for err == nil && f["problem"] == true { // the database was slow to answer
			f, err = frame()
		}
		if err != nil || f["head"] != float64(2) || len(f["projections"].([]any)) != len(projections.Models()) {
			t.Fatalf("frame: %v, %v", f, err)
		}
	}
	if _, err := s.tokens.Revoke(context.Background(), token.ID); err != nil {
		t.Fatal(err)
	}
	toTheEnd(revoked)
	if _, err := one(); err != nil {
		t.Fatalf("the others' streams: %v", err)
	}
	hangUpOther() // that of somebody else goes on
	for range 2 {
		if _, err := one(); err != nil {
			t.Fatal(err)
		}
	}
	s.shutdown() // fails when a stream keeps it
	toTheEnd(one)
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.in(adminToken)
	var hangUps []func()
	for range 64 {
		_, hangUp := a.watching()
		hangUps = append(hangUps, hangUp)
	}
	res, err := a.client.Get(s.url + "/ui/admin/live")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close() // it may be a stream, which has no end
	if res.StatusCode != 429 {
		t.Errorf("one too many: %s", res.Status)
	}
	for _, hangUp := range hangUps {
		hangUp()
	}
	until(t, "room for another", func() bool {
		res, err := a.client.Get(s.url + "/ui/admin/live")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
	frame, hangUp := a.watching()
	defer hangUp()
	if _, err := frame(); err != nil {
		t.Errorf("after all had gone: %v", err)
	}
}

func TestWhatIsShown(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	send, done := s.importing("summer")
	send(1, 30)
	send(1, 2) // they are there already
	done()
	a := s.in(adminToken)
	frame, hangUp := a.watching()
	defer hangUp()
	until(t, "everybody", func() bool {
		f, err := frame()
		if err != nil {
			t.Fatal(err)
		}
		return f["users"] == float64(30)
	})
	if r := a.get("/ui/admin/imports/org-1/summer/failures"); strings.Count(r.body, `"line":`) != 2 || !strings.Contains(r.body, `"line":31`) || strings.Contains(r.body, "ada") {
		t.Errorf("failures: %s", r.body)
	}
	if r := a.get("/ui/admin/imports/org-2/summer/failures"); r.status != 404 {
		t.Errorf("failures elsewhere: %d", r.status)
	}
	var people struct {
		Total int
		Users []struct{ ID, Login, Org, Name string }
	}
	for q, total := range map[string]int{"ada.lind17": 1, "LIND 1": 11, "ada7@": 1, "ad": 30, "nd": 0, "%": 0, "": 0, "ind": 30} {
		r := a.post("/ui/admin/search", url.Values{"q": {q}})
		if err := json.Unmarshal([]byte(r.body), &people); err != nil || people.Total != total || len(people.Users) != min(total, 20) {
			t.Errorf("search for %q: %s", q, r.body)
		}
	}
	a.post("/ui/admin/search", url.Values{"q": {"ada.lind17"}})
	r := a.post("/ui/admin/search", url.Values{"q": {"ada.lind17"}})
	if err := json.Unmarshal([]byte(r.body), &people); err != nil || len(people.Users) != 1 || people.Users[0].Org != "Nordlicht Books" {
		t.Fatalf("search: %s", r.body)
	}
	r = a.get("/ui/admin/users/" + people.Users[0].ID + "/events")
	if !strings.Contains(r.body, `"sequence":1,`) || !strings.Contains(r.body, `"type":"HumanAdded"`) || !strings.Contains(r.body, `"by":"administrator"`) ||
		strings.Contains(r.body, "lind17") || strings.Contains(r.body, "example.org") {
		t.Errorf("timeline: %s", r.body)
	}
	if r := a.get("/ui/admin/users/$org-org-1/events"); r.status != 404 {
		t.Errorf("a stream of the service's own: %d %s", r.status, r.body)
	}
	for path, status := range map[string]int{"/projections/nothing/rebuild": 404, "/projections/users/retry": 404, "/consumers/nothing/release": 404, "/consumers/nothing/skip": 400} {
		if r := a.ask("POST", "/ui/admin"+path, "stream=x", "Origin", s.url); r.status != status || !strings.Contains(r.body, `{"error":"`) {
			t.Errorf("%s: %d %s, want %d", path, r.status, r.body, status)
		}
	}
	if strings.Contains(s.log.String(), "lind17") {
		t.Error("what was looked for is in the log")
	}
}
