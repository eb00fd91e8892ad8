// Package pages is what people see of the service: completing an account with
// the code of a mail, creating a passkey by a link, logging in. It renders HTML
// on the server and asks the room signin for everything that it knows or does.
//
// # What holds on every page
//
// Everything works without JavaScript, but for passkeys. Nothing is loaded from
// another host: the Content-Security-Policy allows this origin's own files and
// no script or style within a page. The files have their hash in their address.
//
// Links hold codes, so a page's address is told to no other site (Referrer-Policy
// same-origin) and pages are not stored. The policy is not the stricter
// no-referrer because of what it does to forms: a browser then sends "null" as
// the Origin of a form, which nobody can tell from a stranger's.
//
// # Requests from other sites
//
// A form is taken from a page of this origin only, by http.CrossOriginProtection:
// browsers say in Sec-Fetch-Site, and where that is not to be had (plain http)
// in Origin, which page a POST comes from, and neither can be set by a script.
// There is no token in forms beside it. A token protects those who send neither
// header: browsers from before 2020, which know no passkeys either, and programs,
// which hold nobody's cookie. It would protect nobody here, and its price is a
// cookie and a state before anybody has logged in. The session's cookie is
// SameSite=Lax on top.
//
// Opening a link (GET) uses no code up: programs that look at mails open links.
package pages

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/handlers/static"
)

// base begins the path of every page.
const base = "/ui"

// maxForm bounds what a form may hold, in bytes: a passkey's answer is the
// longest.
const maxForm = 256 << 10

// Config is what the pages are made of. Fields without a default are required.
type Config struct {
	SignIn *signin.Service
	// OrgName returns an organisation's name, or "" when there is no active one
	// with that id.
	OrgName func(ctx context.Context, id string) (string, error)
	// DefaultOrg is the id of the organisation whose name is shown while nobody
	// knows who looks at a page.
	DefaultOrg string
	// Origin is the scheme and host that a request's browser shows.
	Origin func(*http.Request) string
	// PublicURL is where people reach the service; its pages may send forms
	// even when a proxy has changed the request's host. It may be empty.
	PublicURL string
	// Fail judges an error that no page has an answer to: it logs what an
	// operator has to see, and returns the HTTP status and what the request is
	// known by in the log.
	Fail func(ctx context.Context, err error) (status int, reference string)
}

type pages struct {
	cfg     Config
	foreign *http.CrossOriginProtection
}

// contentPolicy is the Content-Security-Policy of every page.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed assets
var assets embed.FS

var files = static.Load(base+"/assets", assets, "assets")

// Mount adds the pages to e. It panics when PublicURL is not an origin.
func Mount(e *echo.Echo, cfg Config) {
	p := &pages{cfg: cfg, foreign: http.NewCrossOriginProtection()}
	if cfg.PublicURL != "" {
		if err := p.foreign.AddTrustedOrigin(cfg.PublicURL); err != nil {
			panic("pages: " + err.Error())
		}
	}
	files.Mount(e)
	get := func(path string, h func(*visit) error) { e.GET(base+path, p.serve(h)) }
	post := func(path string, h func(*visit) error) { e.POST(base+path, p.serve(h)) }

	get("/login", p.showLogin)
	post("/login", p.takeName)
	post("/login/password", p.takePassword)
	post("/login/passkey/begin", p.beginLogin)
	post("/login/passkey", p.takePasskey)
	post("/login/totp", p.takeTOTP)
	post("/login/password/change", p.takeChange)
	post("/login/logout", p.logOut)
	// Who comes back to the address that a form was sent to wants the page.
	for _, path := range []string{"", "/", "/login/password", "/login/passkey", "/login/totp", "/login/password/change", "/login/logout"} {
		get(path, func(v *visit) error { return v.toLogin() })
	}

	get("/login/user/init", p.showInit)
	post("/login/user/init", p.takeInit)
	get("/login/user/init/resend", func(v *visit) error { return v.toLogin() })
	post("/login/user/init/resend", p.resend)
	get("/login/mail/verification", p.showMail)
	post("/login/mail/verification", p.takeMail)
	get("/login/login/passwordless/init", p.showPasskey)
	post("/login/login/passwordless/init/begin", p.beginPasskey)
	post("/login/login/passwordless/init", p.addPasskey)

	e.Any(base+"/*", p.serve(func(*visit) error { return echo.ErrNotFound }))
}

// visit is one request for a page. It belongs to the request's goroutine.
type visit struct {
	echo echo.Context
	r    *http.Request
	lang string
	text catalogue
	// org is the id of the organisation whose name the page shows.
	org string
}

// serve surrounds a page: headers, what may be sent, errors.
func (p *pages) serve(h func(*visit) error) echo.HandlerFunc {
	return func(e echo.Context) error {
		r := e.Request()
		lang := languageOf(r.Header.Get("Accept-Language"))
		v := &visit{echo: e, r: r, lang: lang, text: catalogues[lang], org: p.cfg.DefaultOrg}
		header := e.Response().Header()
		// Pages are nobody else's, whoever may call the interface.
		for name := range header {
			if strings.HasPrefix(name, "Access-Control-") {
				header.Del(name)
			}
		}
		header.Add("Vary", "Accept-Language")
		header.Set("Content-Language", lang)
		header.Set("Content-Security-Policy", contentPolicy)
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Permissions-Policy", "publickey-credentials-get=(self), publickey-credentials-create=(self)")

		err := p.foreign.Check(r)
		if err != nil {
			err = errForeign
		} else {
			r.Body = http.MaxBytesReader(e.Response(), r.Body, maxForm)
			switch err = r.ParseForm(); {
			case err == nil:
				err = h(v)
			case !isTooLarge(err):
				err = errForm
			}
		}
		if err == nil || e.Response().Committed {
			return err
		}
		return p.fail(v, err)
	}
}

var (
	// errForeign refuses what another site's page has sent.
	errForeign = domain.NewError(domain.KindPermissionDenied, "MUSTER-foreign", "Request comes from another site")
	errForm    = domain.NewError(domain.KindInvalidArgument, "MUSTER-form", "Form cannot be read")
)

// fail shows an error that the page itself has no answer to.
func (p *pages) fail(v *visit, err error) error {
	status, reference := p.cfg.Fail(v.r.Context(), err)
	s := &page{Tone: "bad"}
	switch {
	case errors.Is(err, domain.ErrUserNotActive):
		// Whoever gets here has had the right password: they may know.
		status = http.StatusForbidden
		s.Heading, s.Lead = v.text.get("state.locked.title"), v.text.get("state.locked.text")
	case errors.Is(err, errForeign):
		s.Heading, s.Lead = v.text.get("error.foreign.title"), v.text.get("error.foreign.text")
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		s.Heading, s.Lead, s.Tone = v.text.get("error.missing.title"), v.text.get("error.missing.text"), "warn"
	case isTooLarge(err):
		status = http.StatusRequestEntityTooLarge
		s.Heading, s.Lead = v.text.get("error.toolong.title"), v.text.get("error.toolong.text")
	default:
		s.Heading, s.Lead = v.text.get("error.other.title"), v.text.get("error.other.text", reference)
	}
	return p.render(v, status, "state", s)
}

func isTooLarge(err error) bool {
	var tooLarge *http.MaxBytesError
	return errors.As(err, &tooLarge)
}

// form is a value that was sent in the body, never the address's.
func (v *visit) form(name string) string { return v.r.PostForm.Get(name) }

// query is a value of the address.
func (v *visit) query(name string) string { return v.echo.QueryParam(name) }

// toLogin sends the browser to the login, which shows the step that is next.
func (v *visit) toLogin() error { return v.echo.Redirect(http.StatusSeeOther, base+"/login") }

// page is what templates show. Texts are in the visit's language.
type page struct {
	Lang, Org, Base string
	text            catalogue

	Heading, Lead string
	// Notice is good news, Problem bad news; each may be empty.
	Notice, Problem string
	// Tone is "good", "warn" or "bad": what a state looks like.
	Tone string
	// ToLogin and Resend say which ways on are offered.
	ToLogin, Resend bool

	LoginName, UserID, OrgID, CodeID, Code, Name, Button string
	PasswordSet                                          bool

	// What is asked for, and which field the problem is about.
	AskCode, AskPassword                 bool
	CodeWrong, PasswordWrong, AgainWrong bool
	Rules                                []rule
	Facts                                []fact
}

// FocusCode and FocusPassword say where typing begins: at the field that the
// problem is about, else at the first one.
func (p *page) FocusCode() bool { return p.AskCode && !p.PasswordWrong && !p.AgainWrong }

// FocusPassword is FocusCode's counterpart.
func (p *page) FocusPassword() bool {
	return !p.FocusCode() && !p.AgainWrong
}

// T is a text for templates.
func (p *page) T(key string) string { return p.text.get(key) }

// Asset is the address of one of the pages' files.
func (p *page) Asset(name string) string { return files.Path(name) }

// Initial is the organisation's first letter.
func (p *page) Initial() string {
	r, _ := utf8.DecodeRuneInString(p.Org)
	return string(unicode.ToUpper(r))
}

// rule is one that a new password has to meet.
type rule struct {
	// Name is what the script knows it by, Min a least length.
	Name string
	Min  int
	Text string
}

// fact is a line of what is known about somebody.
type fact struct {
	Name, Text  string
	Texts       []string
	Badge, Tone string
}

//go:embed templates
var templateFiles embed.FS

var templates = parseTemplates("name", "password", "totp", "change", "in", "init", "mail", "passkey", "state")

func parseTemplates(names ...string) map[string]*template.Template {
	shared := template.Must(template.ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
	all := map[string]*template.Template{}
	for _, name := range names {
		all[name] = template.Must(template.Must(shared.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
	}
	return all
}

// defaultName is shown where no organisation is known.
const defaultName = "Muster"

// render answers with a page.
func (p *pages) render(v *visit, status int, name string, s *page) error {
	s.Lang, s.text, s.Base = v.lang, v.text, base
	s.Org = p.orgName(v)
	var b bytes.Buffer
	if err := templates[name].ExecuteTemplate(&b, "layout", s); err != nil {
		return err
	}
	return v.echo.HTMLBlob(status, b.Bytes())
}

// orgName is the name that a page bears. A page that says what went wrong is
// worth more than its name, so an error costs the name only.
func (p *pages) orgName(v *visit) string {
	for _, id := range []string{v.org, p.cfg.DefaultOrg} {
		if name, err := p.cfg.OrgName(v.r.Context(), id); err == nil && name != "" {
			return name
		}
	}
	return defaultName
}

// rules are the policy's, in the visit's language.
func (p *pages) rules(v *visit) []rule {
	policy := p.cfg.SignIn.Policy()
	all := []rule{{"length", policy.MinLength, v.text.get("rules.length", policy.MinLength)}}
	for _, r := range []struct {
		demanded bool
		name     string
	}{{policy.Lower, "lower"}, {policy.Upper, "upper"}, {policy.Number, "number"}, {policy.Symbol, "symbol"}} {
		if r.demanded {
			all = append(all, rule{Name: r.name, Text: v.text.get("rules." + r.name)})
		}
	}
	return all
}

// judgeNew judges a new password that was typed twice, and writes what is wrong
// into s. It reports whether nothing is.
func (p *pages) judgeNew(v *visit, s *page, plain, again string) bool {
	policy := p.cfg.SignIn.Policy()
	if err := policy.CheckPassword(plain); err != nil {
		s.PasswordWrong = true
		s.Problem = v.text.get("password.weak", p.broken(v, plain))
		return false
	}
	if domain.CheckPlain(plain) != nil {
		s.PasswordWrong = true
		s.Problem = v.text.get("password.invalid")
		return false
	}
	if plain != again {
		s.AgainWrong = true
		s.Problem = v.text.get("password.differs")
		return false
	}
	return true
}

// broken is the text of the rule that a password breaks first: each rule is
// tried alone.
func (p *pages) broken(v *visit, plain string) string {
	for _, r := range p.rules(v) {
		alone := domain.Policy{MinLength: r.Min, Lower: r.Name == "lower", Upper: r.Name == "upper", Number: r.Name == "number", Symbol: r.Name == "symbol"}
		if alone.CheckPassword(plain) != nil {
			return r.Text
		}
	}
	return ""
}
