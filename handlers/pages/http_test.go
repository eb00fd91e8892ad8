package pages_test

import (
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/pages"
)

// agent is a browser without JavaScript.
type agent struct {
	t      *testing.T
	s      *site
	client *http.Client
}

func newAgent(t *testing.T, s *site) *agent {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &agent{t, s, &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// reply is what came back, after redirects.
type reply struct {
	status int
	header http.Header
	body   string
}

var heading = regexp.MustCompile(`<h1>(.*?)</h1>`)
var trouble = regexp.MustCompile(`role="alert"><p>(.*?)</p>`)

func (r reply) heading() string { return first(heading, r.body) }
func (r reply) problem() string { return first(trouble, r.body) }

func first(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return html.UnescapeString(m[1])
	}
	return ""
}

func (a *agent) do(r *http.Request) reply {
	a.t.Helper()
	res, err := a.client.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

// request makes one; headers come in pairs.
func (a *agent) request(method, link, body string, headers ...string) *http.Request {
	a.t.Helper()
	if !strings.HasPrefix(link, "http") {
		link = a.s.url + link
	}
	r, err := http.NewRequest(method, link, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (a *agent) get(link string, headers ...string) reply {
	a.t.Helper()
	return a.do(a.request("GET", link, "", headers...))
}

// post sends a form, whose fields come in pairs.
func (a *agent) post(path string, fields ...string) reply {
	a.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return a.do(a.request("POST", path, form.Encode(), "Content-Type", "application/x-www-form-urlencoded"))
}

func (a *agent) logIn(name, plain string) reply {
	a.t.Helper()
	return a.post("/ui/login/password", "loginName", name, "password", plain)
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.AllowedOrigins = []string{"https://app.example.org"} })
	a := newAgent(t, s)
	link := s.initLink(s.person(nil))
	for _, path := range []string{"/ui/login", link, "/ui/nothing", "/ui/login/user/init"} {
		r := a.get(path, "Origin", "https://app.example.org")
		for name, want := range map[string]string{
			"Content-Type":                 "text/html; charset=UTF-8",
			"X-Frame-Options":              "DENY",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "same-origin",
			"Cache-Control":                "no-store",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Content-Language":             "en",
			// Whoever may call the interface may not read pages.
			"Access-Control-Allow-Origin":      "",
			"Access-Control-Allow-Credentials": "",
		} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
		policy := r.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: the policy has no %s: %s", path, part, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") || strings.Contains(policy, "*") {
			t.Errorf("%s: the policy lets too much in: %s", path, policy)
		}
		// What the policy would refuse is not there, and nothing is another host's.
		for _, bad := range []string{" style=", "<style", " onclick=", " onsubmit=", "javascript:", "//"} {
			if strings.Contains(r.body, bad) {
				t.Errorf("%s holds %q", path, bad)
			}
		}
		if n := strings.Count(r.body, "<script"); n != 1 || !strings.Contains(r.body, `<script src="/ui/assets/pages.`) {
			t.Errorf("%s: %d scripts", path, n)
		}
	}
}

func TestAssetsHaveTheirContentInTheirAddress(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	refs := regexp.MustCompile(`(?:href|src)="(/ui/assets/[^"]+)"`).FindAllStringSubmatch(a.get("/ui/login").body, -1)
	if len(refs) != 4 {
		t.Fatalf("references: %v", refs)
	}
	for _, ref := range refs {
		path := ref[1]
		r := a.get(path)
		if r.status != 200 || r.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || r.header.Get("Expires") != "" || r.header.Get("Pragma") != "" {
			t.Errorf("%s: %d, %v", path, r.status, r.header)
		}
		if !regexp.MustCompile(`\.[0-9a-f]{16}\.(css|js|svg)$`).MatchString(path) {
			t.Errorf("%s has no hash", path)
		}
		// Another version's address is answered, but not for good.
		other := regexp.MustCompile(`[0-9a-f]{16}`).ReplaceAllString(path, "0000000000000000")
		if o := a.get(other); o.status != 200 || o.body != r.body || o.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d, %v", other, o.status, o.header)
		}
	}
	for _, path := range []string{"/ui/assets/other.0000000000000000.js", "/ui/assets/..%2fpages.go", "/ui/assets/"} {
		if r := a.get(path); r.status != 404 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

// A form that another site's page sends is refused, whatever it is, and does
// nothing.
func TestFormsOfOtherSites(t *testing.T) {
	t.Parallel()
	s := start(t, func(d *handlers.Deps) { d.PublicURL = "https://id.example.org/"; d.AllowedOrigins = []string{"*"} })
	p := s.person(nil)
	u := s.user(p)
	init := url.Values{"userID": {p.id}, "code": {u.InitCode.Secret}, "password": {goodPlain}, "again": {goodPlain}}.Encode()
	for _, c := range []struct {
		headers []string
		foreign bool
	}{
		{[]string{"Sec-Fetch-Site", "cross-site"}, true},
		{[]string{"Sec-Fetch-Site", "same-site"}, true},
		{[]string{"Origin", "https://evil.example.org"}, true},
		{[]string{"Origin", "null"}, true},
		{[]string{"Sec-Fetch-Site", "same-origin", "Origin", s.url}, false},
		{[]string{"Origin", s.url}, false},
		// Behind a proxy that tells another host, over plain http.
		{[]string{"Origin", "https://id.example.org", "Host", "10.0.0.7:8080"}, false},
	} {
		for path, body := range map[string]string{
			"/ui/login": "loginName=a", "/ui/login/password": "loginName=a&password=b", "/ui/login/passkey/begin": "loginName=a", "/ui/login/passkey": "",
			"/ui/login/totp": "code=1", "/ui/login/password/change": "", "/ui/login/logout": "", "/ui/login/user/init": "userID=nobody",
			"/ui/login/user/init/resend": "userID=nobody", "/ui/login/mail/verification": "userID=nobody",
			"/ui/login/login/passwordless/init/begin": "", "/ui/login/login/passwordless/init": "",
		} {
			if c.foreign && path == "/ui/login/user/init" {
				body = init
			}
			r := newAgent(t, s).do(newAgent(t, s).request("POST", path, body, append(c.headers, "Content-Type", "application/x-www-form-urlencoded")...))
			if refused := r.status == http.StatusForbidden && r.heading() == "This request is not yours"; refused != c.foreign {
				t.Errorf("%v: %s: %d %s", c.headers, path, r.status, r.heading())
			}
		}
	}
	if after := s.user(p); after.Sequence != u.Sequence {
		t.Errorf("another site's form has done something: %d events", after.Sequence-u.Sequence)
	}
}

func TestTheSessionsCookie(t *testing.T) {
	t.Parallel()
	proxy := netip.MustParsePrefix("127.0.0.0/8")
	s := start(t, func(d *handlers.Deps) { d.TrustedProxies = []netip.Prefix{proxy} })
	a := newAgent(t, s)
	a.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p := s.person(withPassword)
	log := func(headers ...string) *http.Cookie {
		t.Helper()
		r := a.do(a.request("POST", "/ui/login/password", url.Values{"loginName": {p.name}, "password": {goodPlain}}.Encode(),
			append(headers, "Content-Type", "application/x-www-form-urlencoded")...))
		cookies := (&http.Response{Header: r.header}).Cookies()
		if r.status != http.StatusSeeOther || r.header.Get("Location") != "/ui/login" || len(cookies) != 1 {
			t.Fatalf("%d, %v", r.status, r.header)
		}
		return cookies[0]
	}
	c := log()
	if c.Name != "muster_session" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/ui" || c.Domain != "" || c.MaxAge != 0 || !c.Expires.IsZero() {
		t.Errorf("cookie: %+v", c)
	}
	if c = log("X-Forwarded-Proto", "https"); !c.Secure {
		t.Errorf("cookie over TLS: %+v", c)
	}
	// Logging in anew ends the former session; logging out ends this one.
	former := c.Value
	a.client.CheckRedirect = nil
	a.client.Jar, _ = cookieJar(t, s, former)
	if r := a.logIn(p.name, goodPlain); r.heading() != "You are in" {
		t.Fatal(r.heading())
	}
	stale := newAgent(t, s)
	stale.client.Jar, _ = cookieJar(t, s, former)
	if r := stale.get("/ui/login"); r.heading() != "Log in" || r.problem() != "Your login has ended. Log in again." {
		t.Errorf("a former session: %s", r.heading())
	}
	u, _ := url.Parse(s.url + "/ui/login")
	held := a.client.Jar.Cookies(u)[0].Value
	if r := a.post("/ui/login/logout"); r.heading() != "Log in" || !strings.Contains(r.body, "You are logged out.") || len(a.client.Jar.Cookies(u)) != 0 {
		t.Errorf("logging out: %s, %v", r.heading(), a.client.Jar.Cookies(u))
	}
	stale.client.Jar, _ = cookieJar(t, s, held)
	if r := stale.get("/ui/login"); r.heading() != "Log in" {
		t.Errorf("a session that was ended: %s", r.heading())
	}
}

func cookieJar(t *testing.T, s *site, value string) (http.CookieJar, error) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.url + "/ui/login")
	if err != nil {
		t.Fatal(err)
	}
	jar.SetCookies(u, []*http.Cookie{{Name: "muster_session", Path: "/ui", Value: value}})
	return jar, nil
}

// An unknown user, a wrong password and somebody who is locked get one answer.
func TestOneAnswerForWhoIsNotLetIn(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	known, locked := s.person(withPassword), s.person(withPassword)
	s.lock(locked)
	var bodies []string
	for _, c := range [][2]string{{known.name, "wrong"}, {"nobody." + known.name, "wrong"}, {locked.name, "wrong"}, {locked.name, goodPlain}, {s.person(nil).name, "wrong"}} {
		a := newAgent(t, s)
		ask := a.post("/ui/login", "loginName", c[0])
		r := a.logIn(c[0], c[1])
		if r.status != http.StatusUnprocessableEntity || r.problem() != "Login name or password is wrong, or the account cannot be used." || r.header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %d %s", c, r.status, r.problem())
		}
		bodies = append(bodies, strings.ReplaceAll(ask.body+r.body, c[0], "NAME"))
	}
	if len(slices.Compact(bodies)) != 1 {
		t.Error("the pages differ")
	}
	// The same holds for what a passkey is asked with.
	for _, name := range []string{known.name, "nobody", locked.name} {
		r := newAgent(t, s).post("/ui/login/passkey/begin", "loginName", name)
		if r.status != 200 || !strings.Contains(r.body, `"allowCredentials":[{`) || !strings.Contains(r.body, `"userVerification":"required"`) {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	// And for who asks for another mail.
	var answers []string
	for _, id := range []string{known.id, "nobody", locked.id, s.person(nil).id, s.personAt(100*time.Hour, nil).id} {
		r := newAgent(t, s).post("/ui/login/user/init/resend", "userID", id, "orgID", "org-1")
		answers = append(answers, fmt.Sprint(r.status)+r.body)
	}
	if len(slices.Compact(answers)) != 1 {
		t.Errorf("the answers differ: %s", answers)
	}
}

// TestLockedOut: after so many wrong passwords, and after so many wrong codes,
// nobody gets in.
func TestLockedOut(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	p := s.person(withTOTP)
	a := newAgent(t, s)
	if r := a.logIn(p.name, goodPlain); r.heading() != "One more step" {
		t.Fatal(r.heading())
	}
	for range lockout - 1 {
		if r := a.post("/ui/login/totp", "code", "000000"); r.status != http.StatusUnprocessableEntity || r.problem() == "" {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if r := a.post("/ui/login/totp", "code", "000000"); r.status != http.StatusForbidden || r.heading() != "This account cannot be used" {
		t.Errorf("%d %s", r.status, r.heading())
	}
	if r := a.logIn(p.name, goodPlain); r.problem() == "" {
		t.Errorf("a locked user gets in: %s", r.heading())
	}
}

// Everything but passkeys works without JavaScript, and each code opens once.
func TestWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	p := s.person(nil)
	link := s.initLink(p)
	code := s.user(p).InitCode.Secret
	if r := a.get(link); r.status != 200 || r.heading() != "Set up your account" {
		t.Fatalf("%d %s", r.status, r.heading())
	}
	sequence := s.user(p).Sequence
	a.get(link) // opening uses nothing up
	if s.user(p).Sequence != sequence {
		t.Error("opening the link has written something")
	}
	for _, c := range []struct{ plain, again, problem string }{
		{"short", "short", "The password still needs: at least 8 characters."},
		{"CORRECT-HORSE-7", "CORRECT-HORSE-7", "The password still needs: a lower-case letter (a–z)."},
		{"correct-horse-7", "correct-horse-7", "The password still needs: an upper-case letter (A–Z)."},
		{"Correct-horse", "Correct-horse", "The password still needs: a digit (0–9)."},
		{"CorrectHorse7", "CorrectHorse7", "The password still needs: another character, such as ! or –."},
		{"Correct-7\x00", "Correct-7\x00", "This password cannot be used: it is too long, or holds characters that cannot be typed."},
		{goodPlain, goodPlain + "x", "The two passwords are not the same."},
		{"", "", "The password still needs: at least 8 characters."},
	} {
		r := a.post("/ui/login/user/init", "userID", p.id, "orgID", "org-1", "code", code, "password", c.plain, "again", c.again)
		if r.status != http.StatusUnprocessableEntity || r.problem() != c.problem || !strings.Contains(r.body, `<title>Problem: `) {
			t.Errorf("%q: %d %s", c.plain, r.status, r.problem())
		}
		if c.plain != "" && strings.Contains(r.body, html.EscapeString(c.plain)) {
			t.Errorf("%q comes back in the page", c.plain)
		}
	}
	// By hand, in small letters, with blanks.
	typed := strings.ToLower(code[:3]) + " " + code[3:]
	if r := a.post("/ui/login/user/init", "userID", p.id, "code", typed, "password", goodPlain, "again", goodPlain); r.status != 200 || r.heading() != "All done" {
		t.Fatalf("%d %s", r.status, r.heading())
	}
	if r := a.get(link); r.status != http.StatusGone || r.heading() != "Nothing left to do" {
		t.Errorf("%d %s", r.status, r.heading())
	}
	if r := a.logIn(" "+p.name+" ", goodPlain); r.heading() != "You are in" {
		t.Errorf("%s %s", r.heading(), r.problem())
	}

	// An address is confirmed by pressing the button, once.
	q := s.person(withIDP)
	mail := s.mailLink(q)
	if r := a.get(mail); r.heading() != "Confirm your address" || s.user(q).EmailVerified {
		t.Errorf("%s", r.heading())
	}
	if r := a.post("/ui/login/mail/verification", "userID", q.id, "code", "AAAAAA"); r.problem() != "This code is not the right one. Look at the latest mail." {
		t.Errorf("%s", r.problem())
	}
	if r := a.post("/ui/login/mail/verification", "userID", q.id, "code", s.user(q).EmailCode.Secret); r.heading() != "Thank you" || !s.user(q).EmailVerified {
		t.Errorf("%s", r.heading())
	}
	if r := a.post("/ui/login/mail/verification", "userID", q.id, "code", "AAAAAA"); r.status != http.StatusGone {
		t.Errorf("%d", r.status)
	}

	// A change that is required has to be one.
	c := s.person(func(c *domain.ImportHuman) { withPassword(c); c.ChangeRequired = true })
	if r := a.logIn(c.name, goodPlain); r.heading() != "Choose a new password" {
		t.Fatalf("%s", r.heading())
	}
	if r := a.post("/ui/login/password/change", "password", goodPlain, "again", goodPlain); r.problem() != "That is the password that you have already. Choose another one." {
		t.Errorf("%s", r.problem())
	}
	if r := a.post("/ui/login/password/change", "password", "Another-horse-8", "again", "Another-horse-8"); r.heading() != "You are in" {
		t.Errorf("%s", r.heading())
	}

	// One that is not required is not to be had here.
	if r := a.post("/ui/login/password/change", "password", goodPlain, "again", goodPlain); r.heading() != "You are in" || a.logIn(c.name, goodPlain).problem() == "" {
		t.Errorf("%s", r.heading())
	}

	// Codes of an authenticator app, as it groups them; each is good once.
	o := s.person(withTOTP)
	shown := totp(t, 0)
	a.logIn(o.name, goodPlain)
	if r := a.post("/ui/login/totp", "code", shown[:3]+" "+shown[3:]); r.heading() != "You are in" {
		t.Errorf("%s %s", r.heading(), r.problem())
	}
	b := newAgent(t, s)
	b.logIn(o.name, goodPlain)
	if r := b.post("/ui/login/totp", "code", shown); r.problem() != "This code is wrong, or was used already. Wait for the next one." {
		t.Errorf("%s %s", r.heading(), r.problem())
	}
	// Who goes back to where a form went gets the step that is next.
	for _, path := range []string{"/ui", "/ui/", "/ui/login/password", "/ui/login/totp", "/ui/login/passkey", "/ui/login/password/change", "/ui/login/logout"} {
		if r := b.get(path); r.status != 200 || r.heading() != "One more step" {
			t.Errorf("%s: %d %s", path, r.status, r.heading())
		}
	}
	// Steps cannot be left out.
	if r := b.post("/ui/login/password/change", "password", "Another-horse-9", "again", "Another-horse-9"); r.heading() != "One more step" {
		t.Errorf("%s", r.heading())
	}
	if r := newAgent(t, s).post("/ui/login/totp", "code", "1"); r.heading() != "Log in" {
		t.Errorf("%s", r.heading())
	}
}

// Links that lead nowhere lead to a page that says so.
func TestLinksThatAreNoGood(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	locked, lockedKey := s.person(nil), s.person(withPasskeyLink)
	lockedLink := s.initLink(locked)
	s.lock(locked)
	s.lock(lockedKey)
	expired := s.personAt(100*time.Hour, nil)
	for name, c := range map[string]struct {
		link, heading string
		status        int
		resend        bool
	}{
		"no user":             {"/ui/login/user/init?code=ABCDEF", "This link is not valid", 422, false},
		"nobody":              {"/ui/login/user/init?userID=nobody&code=ABCDEF", "Nothing left to do", 410, false},
		"an organisation":     {"/ui/login/user/init?userID=$org-org-1&code=ABCDEF", "Nothing left to do", 410, false},
		"expired":             {s.initLink(expired), "This link has expired", 410, true},
		"locked":              {lockedLink, "This account cannot be used", 403, false},
		"no user, mail":       {"/ui/login/mail/verification?code=ABCDEF", "This link is not valid", 422, false},
		"passkey, nobody":     {"/ui/login/login/passwordless/init?userID=nobody&codeID=1&code=1", "This account cannot be used", 403, false},
		"passkey, nothing":    {"/ui/login/login/passwordless/init", "This account cannot be used", 403, false},
		"passkey, expired":    {s.personAt(2*time.Hour, withPasskeyLink).passkey, "This link has expired", 410, false},
		"passkey, wrong code": {s.person(withPasskeyLink).passkey + "x", "This link is not valid", 422, false},
		"passkey, locked":     {lockedKey.passkey, "This account cannot be used", 403, false},
		"passkey, wrong id":   {strings.Replace(s.person(withPasskeyLink).passkey, "codeID=", "codeID=x", 1), "This link has been used", 410, false},
		"no page":             {"/ui/login/nothing", "Page not found", 404, false},
	} {
		r := a.get(c.link)
		if r.status != c.status || r.heading() != c.heading || strings.Contains(r.body, `action="/ui/login/user/init/resend"`) != c.resend {
			t.Errorf("%s: %d %s", name, r.status, r.heading())
		}
	}
	for range domain.MaxCodeAttempts {
		a.get(s.initLinkWith(expired, "AAAAAA", false)) // dead codes count nothing
	}
	guessed := s.person(nil)
	for i := range domain.MaxCodeAttempts {
		a.get(s.initLinkWith(guessed, fmt.Sprintf("AAAAA%d", i), false))
	}
	if r := a.get(s.initLink(guessed)); r.status != 429 || r.heading() != "Too many attempts" || !strings.Contains(r.body, "Send me a new mail") {
		t.Errorf("guessed: %d %s", r.status, r.heading())
	}
	for body, want := range map[string]int{"userID=" + strings.Repeat("x", 300<<10): http.StatusRequestEntityTooLarge, "userID=%zz": http.StatusBadRequest} {
		r := a.do(a.request("POST", "/ui/login/user/init", body, "Content-Type", "application/x-www-form-urlencoded"))
		if r.status != want || r.heading() == "" {
			t.Errorf("a form of %d bytes: %d %s", len(body), r.status, r.heading())
		}
	}
}

// What people have typed into their names is text, and the organisation's name
// is the one of the user, not of the link.
func TestNamesAreText(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	evil := `<script>alert(1)</script>"'&`
	p := s.person(func(c *domain.ImportHuman) {
		withPassword(c)
		c.UserName = `x"><img src=x>` + c.UserName
		c.Profile.DisplayName = evil
	})
	for _, r := range []reply{a.post("/ui/login", "loginName", p.name), a.get("/ui/login?loginName=" + url.QueryEscape(p.name)), a.logIn(p.name, goodPlain),
		a.get("/ui/login/user/init?userID=" + url.QueryEscape(evil) + "&orgID=" + url.QueryEscape(evil) + "&loginname=" + url.QueryEscape(evil))} {
		if strings.Contains(r.body, "<img") || strings.Contains(r.body, "<script>") {
			t.Errorf("a name is markup: %s", r.body)
		}
	}
	if r := a.get("/ui/login"); !strings.Contains(r.body, "Hello &lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;.") {
		t.Errorf("the name: %s", r.body)
	}
	q := s.person(nil)
	link := s.initLink(q)
	if r := a.get(strings.Replace(link, "orgID=org-1", "orgID=org-2", 1)); !strings.Contains(r.body, "<span>"+orgName+"</span>") {
		t.Errorf("the organisation: %s", r.body)
	}
	if r := a.get("/ui/login/user/init?userID=" + q.id + "&orgID=org-2"); !strings.Contains(r.body, "<span>Second &amp; &lt;b&gt;Sons&lt;/b&gt;</span>") {
		t.Errorf("the organisation: %s", r.body)
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	for accept, want := range map[string][2]string{
		"":                       {"en", "Log in"},
		"de-AT,de;q=0.9":         {"de", "Anmelden"},
		"fr-CH, en;q=0.8":        {"fr", "Connexion"},
		"it":                     {"it", "Accesso"},
		"es-419":                 {"es", "Iniciar sesión"},
		"ja, zh;q=0.9":           {"en", "Log in"},
		"ja, it;q=0.2, de;q=0.1": {"it", "Accesso"},
		"nonsense;;;q=":          {"en", "Log in"},
	} {
		r := a.get("/ui/login", "Accept-Language", accept)
		if r.heading() != want[1] || !strings.Contains(r.body, `<html lang="`+want[0]+`">`) || r.header.Get("Content-Language") != want[0] {
			t.Errorf("%q: %s, %s", accept, r.header.Get("Content-Language"), r.heading())
		}
	}
}

// Codes, passwords, tokens and names do not get into the log.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := newAgent(t, s)
	p, k, o := s.person(nil), s.person(withPasskeyLink), s.person(withTOTP)
	code := s.user(p).InitCode.Secret
	a.get(s.initLink(p))
	a.get(k.passkey)
	a.get(k.passkey + "x")
	a.post("/ui/login/user/init", "userID", p.id, "code", code, "password", goodPlain, "again", goodPlain)
	a.logIn(o.name, "a-wrong-password")
	a.logIn(o.name, goodPlain)
	a.post("/ui/login/totp", "code", totp(t, 0))
	a.get("/ui/login?loginName=" + o.name)
	u, _ := url.Parse(s.url + "/ui/login")
	cookies := a.client.Jar.Cookies(u)
	if len(cookies) != 1 {
		t.Fatal("nobody is in")
	}
	key, _ := url.Parse(k.passkey)
	log := s.log.String()
	if strings.Count(log, "\n") < 8 {
		t.Fatalf("the log: %s", log)
	}
	for what, secret := range map[string]string{"code": code, "password": goodPlain, "wrong password": "a-wrong-password", "session": cookies[0].Value[27:],
		"passkey code": key.Query().Get("code"), "login name": o.name, "address": p.email, "TOTP secret": totpSecret} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds a %s", what)
		}
	}
}

// TestCatalogues holds that every language has every text, with the same places
// for values.
func TestCatalogues(t *testing.T) {
	t.Parallel()
	all := pages.Catalogues()
	english := all["en"]
	if len(all) != 5 || len(english) < 50 {
		t.Fatalf("%d languages, %d texts", len(all), len(english))
	}
	verbs := regexp.MustCompile(`%.`)
	for lang, texts := range all {
		for _, key := range slices.Sorted(maps.Keys(english)) {
			text, ok := texts[key]
			if !ok || strings.TrimSpace(text) == "" || strings.TrimSpace(text) != text {
				t.Errorf("%s: %s: %q", lang, key, text)
			}
			if got, want := verbs.FindAllString(text, -1), verbs.FindAllString(english[key], -1); !slices.Equal(got, want) {
				t.Errorf("%s: %s: %v, want %v", lang, key, got, want)
			}
		}
		for key := range texts {
			if _, ok := english[key]; !ok {
				t.Errorf("%s: %s is in no other language", lang, key)
			}
		}
	}
}

// TestHashesThatCameAlong: people log in with the password that they had
// elsewhere, whichever family its hash is of.
func TestHashesThatCameAlong(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../domain/password/testdata/vectors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	vectors := map[string][]string{} // the first of each format
	for line := range strings.Lines(string(file)) {
		if v := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(v) == 4 && vectors[v[0]] == nil {
			vectors[v[0]] = v
		}
	}
	s := start(t, nil)
	for _, family := range []string{"argon2id", "aspnet-identity-v3", "bcrypt", "django-pbkdf2-sha256", "drupal7", "firebase-scrypt", "ldap-ssha",
		"md5salted", "pbkdf2-sha512", "phpass", "scrypt", "sha512-crypt", "wordpress-6.8", "yescrypt"} {
		v := vectors[family]
		if v == nil {
			t.Errorf("no hash of %s", family)
			continue
		}
		p := s.person(func(c *domain.ImportHuman) { c.Email.Verified, c.HashedPassword = true, v[3] })
		a := newAgent(t, s)
		if r := a.logIn(p.name, v[1]+"x"); r.heading() != "Welcome back" || r.problem() == "" {
			t.Errorf("%s, a wrong password: %s", family, r.heading())
		}
		if r := a.logIn(p.name, v[1]); r.heading() != "You are in" {
			t.Errorf("%s: %s %s", family, r.heading(), r.problem())
		}
	}
}
