// Package console is the operator's page: what the installation is doing just
// now, and the few things that an operator does about it.
//
// # Who gets in
//
// Whoever has a token with the right over the whole installation (IAMWrite). It
// is asked for in a form and kept, sealed with a key that is not in the
// database, in a cookie that no script can read and that goes to this page only
// (HttpOnly, SameSite=Strict, Path=/ui/admin). Nothing is kept on the server, so
// every instance takes it. The token is asked about anew with each request, and
// each second of an open stream: a revoked one ends both. A login is good for
// eight hours. The token is in no address, no page and no log.
//
// # What a page may do
//
// As on the pages where people log in: files of this origin only, no script or
// style within a page, no HTML made from text by a script. What acts is a POST,
// and is taken from a page of this origin only (http.CrossOriginProtection;
// package pages says why there is no token in forms beside it).
//
// # What it costs
//
// One poller asks the database once a second for all who look, and for nobody
// when nobody does. Each page holds one stream of Server-Sent Events, of which
// there are at most maxViewers in a process; a page that is not in front lets
// go of its stream. Streams end when the reader goes, when the token is no good
// any more and when the service shuts down.
//
// Operators read English: there is no other language here.
package console

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/static"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/projections"
)

// base begins every path of the console, and is the cookie's.
const base = "/ui/admin"

const (
	cookieName = "muster_console"
	// lifetime is how long a login is good for.
	lifetime = 8 * time.Hour
	// maxToken is the longest token that fits into a cookie, sealed. Ours have
	// 47 bytes; an issuer's JWT is longer.
	maxToken = 2800
	// maxForm bounds a form, in bytes.
	maxForm = 16 << 10
)

// Config is what the console is made of. Fields without a default are required.
type Config struct {
	Store         *eventstore.Store
	Projections   *projections.Engine
	Tokens        *access.Tokens
	Organisations *access.Organisations
	// Jobs are the imports of many. Default: none are shown.
	Jobs *importer.Jobs
	// Rebuild starts a rebuild of a read model, or a rollback, and returns when
	// it has begun. Progress tells of the one that was last asked for. Default:
	// there are no such buttons.
	Rebuild  func(name string, rollback bool) error
	Progress func(name string) (Progress, bool)
	// Log gets a line for everything that an operator does.
	Log *slog.Logger
	// Now is the clock.
	Now func() time.Time
	// Origin is the scheme and host that a request's browser shows.
	Origin func(*http.Request) string
	// PublicURL is where people reach the service; its pages may send forms
	// even when a proxy has changed the request's host. It may be empty.
	PublicURL string
	// Stopping is closed when the service begins to shut down. Default: never.
	Stopping <-chan struct{}
	// Fail judges an error: it logs what an operator has to see, and returns
	// the HTTP status, a text that may be shown, and what the request is known
	// by in the log.
	Fail func(ctx context.Context, err error) (status int, message, reference string)
}

// Progress tells how far a rebuild or a rollback is.
type Progress struct {
	Running  bool    `json:"running"`
	Rollback bool    `json:"rollback"`
	Version  int     `json:"version"`
	Phase    string  `json:"phase"`
	Events   int64   `json:"events"`
	Total    int64   `json:"total"`
	Rate     float64 `json:"rate"`
	Error    string  `json:"error"`
}

type console struct {
	cfg     Config
	foreign *http.CrossOriginProtection
	aead    cipher.AEAD
	admin   *consumers.Admin
	feed    *feed
}

// contentPolicy is the Content-Security-Policy of the console.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Mount adds the console to e. It panics when PublicURL is not an origin.
func Mount(e *echo.Echo, cfg Config) {
	c := &console{cfg: cfg, foreign: http.NewCrossOriginProtection(), admin: consumers.NewAdmin(cfg.Store)}
	if cfg.PublicURL != "" {
		if err := c.foreign.AddTrustedOrigin(cfg.PublicURL); err != nil {
			panic("console: " + err.Error())
		}
	}
	block, err := aes.NewCipher(cfg.Store.Keys().Derive("console"))
	if err == nil {
		c.aead, err = cipher.NewGCMWithRandomNonce(block)
	}
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	c.feed = newFeed(c.snapshots)

	files.Mount(e)
	e.GET(base, c.serve(c.show))
	for _, path := range []string{"/", "/login", "/logout"} {
		e.GET(base+path, c.serve(func(v *visit) error { return v.echo.Redirect(http.StatusSeeOther, base) }))
	}
	e.POST(base+"/login", c.serve(c.logIn))
	e.POST(base+"/logout", c.serve(c.logOut))

	in := func(h func(*visit) error) echo.HandlerFunc { return c.serve(c.inside(h)) }
	e.GET(base+"/session", in(func(v *visit) error { return v.echo.NoContent(http.StatusNoContent) }))
	e.GET(base+"/live", in(c.stream))
	e.POST(base+"/search", in(c.search))
	e.GET(base+"/users/:id/events", in(c.timeline))
	e.GET(base+"/imports/:org/:id/failures", in(c.failures))
	if cfg.Rebuild != nil {
		e.POST(base+"/projections/:name/rebuild", in(c.act("rebuild", func(v *visit) error { return cfg.Rebuild(v.name(), false) })))
		e.POST(base+"/projections/:name/rollback", in(c.act("rollback", func(v *visit) error { return cfg.Rebuild(v.name(), true) })))
	}
	e.POST(base+"/projections/:name/retry", in(c.act("retry of a stopped stream", func(v *visit) error {
		return cfg.Projections.Retry(v.ctx(), v.name(), v.form("stream"))
	})))
	e.POST(base+"/consumers/:name/retry", in(c.act("retry of parked streams", func(v *visit) error {
		return c.unpark(v, c.admin.Retry)
	})))
	e.POST(base+"/consumers/:name/release", in(c.act("release of parked streams", func(v *visit) error {
		return c.unpark(v, c.admin.Release)
	})))
	e.POST(base+"/consumers/:name/skip", in(c.act("skipping of a parked event", func(v *visit) error {
		return c.admin.Skip(v.ctx(), v.name(), v.form("stream"), v.token.ID, strings.TrimSpace(v.form("reason")))
	})))
}

// visit is one request. It belongs to the request's goroutine.
type visit struct {
	echo  echo.Context
	r     *http.Request
	token access.Token
	// secret is the session's token, for asking about it again.
	secret string
	// until is when the session ends.
	until time.Time
}

func (v *visit) ctx() context.Context    { return v.r.Context() }
func (v *visit) form(name string) string { return v.r.PostForm.Get(name) }
func (v *visit) name() string            { return v.echo.Param("name") }

var (
	errForeign = domain.NewError(domain.KindPermissionDenied, "MUSTER-foreign", "Request comes from another site")
	errForm    = domain.NewError(domain.KindInvalidArgument, "MUSTER-form", "Form cannot be read")
	errSession = domain.NewError(domain.KindUnauthenticated, "MUSTER-console", "Log in first")
)

// serve surrounds everything: headers, what may be sent, errors.
func (c *console) serve(h func(*visit) error) echo.HandlerFunc {
	return func(e echo.Context) error {
		v := &visit{echo: e, r: e.Request()}
		header := e.Response().Header()
		// The console is nobody else's, whoever may call the interface.
		for name := range header {
			if strings.HasPrefix(name, "Access-Control-") {
				header.Del(name)
			}
		}
		header.Set("Content-Security-Policy", contentPolicy)
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("X-Frame-Options", "DENY")

		err := c.foreign.Check(v.r)
		if err != nil {
			err = errForeign
		} else {
			v.r.Body = http.MaxBytesReader(e.Response(), v.r.Body, maxForm)
			if err = v.r.ParseForm(); err != nil {
				err = errForm.Because(err)
			} else {
				err = h(v)
			}
		}
		if err == nil || e.Response().Committed {
			return nil
		}
		status, message, reference := c.cfg.Fail(v.ctx(), err)
		if status >= http.StatusInternalServerError {
			message = "That did not work. In the log it is request " + reference + "."
		}
		if accepts := v.r.Header.Get("Accept"); strings.Contains(accepts, "text/html") {
			return c.render(v, status, "login", login{Problem: message})
		}
		return e.JSON(status, map[string]string{"error": message})
	}
}

// inside lets in who is logged in.
func (c *console) inside(h func(*visit) error) func(*visit) error {
	return func(v *visit) error {
		ok, err := c.session(v)
		switch {
		case err != nil:
			return err
		case !ok:
			return errSession
		}
		return h(v)
	}
}

// session finds out who is logged in. An error is the database's; who is not
// let in any more is as one who never was.
func (c *console) session(v *visit) (bool, error) {
	cookie, err := v.r.Cookie(cookieName)
	if err != nil {
		return false, nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return false, nil
	}
	plain, err := c.aead.Open(nil, nil, sealed, []byte(cookieName))
	if err != nil || len(plain) < 8 {
		return false, nil
	}
	v.until = time.Unix(int64(binary.BigEndian.Uint64(plain)), 0) // #nosec G115 -- our own, and authentic
	v.secret = string(plain[8:])
	return c.stillGood(v)
}

// stillGood asks about the session's token.
func (c *console) stillGood(v *visit) (bool, error) {
	if !c.cfg.Now().Before(v.until) {
		return false, nil
	}
	token, err := c.cfg.Tokens.Authenticate(v.ctx(), "Bearer "+v.secret)
	var known *domain.Error
	switch {
	case errors.As(err, &known) && known.Kind == domain.KindUnauthenticated:
		return false, nil
	case err != nil:
		return false, err
	}
	v.token = token
	return token.Role.May(access.IAMWrite), nil
}

// login is what the login page shows.
type login struct{ Problem, Notice string }

func (c *console) show(v *visit) error {
	ok, err := c.session(v)
	switch {
	case err != nil:
		return err
	case !ok:
		return c.render(v, http.StatusOK, "login", login{})
	}
	return c.render(v, http.StatusOK, "console", struct {
		Who      string
		Rebuilds bool
	}{v.token.Name, c.cfg.Rebuild != nil})
}

func (c *console) logIn(v *visit) error {
	secret := strings.TrimSpace(v.form("token"))
	if secret == "" || len(secret) > maxToken {
		return c.render(v, http.StatusUnauthorized, "login", login{Problem: "That is not a token of this installation."})
	}
	v.secret, v.until = secret, c.cfg.Now().Add(lifetime)
	ok, err := c.stillGood(v)
	switch {
	case err != nil:
		return err
	case !ok && v.token.ID != "":
		return c.render(v, http.StatusForbidden, "login", login{Problem: "This token has no right over the whole installation. It takes one with the role " + string(access.IAMOwner) + "."})
	case !ok:
		return c.render(v, http.StatusUnauthorized, "login", login{Problem: "That is not a token of this installation, or not any more."})
	}
	plain := append(binary.BigEndian.AppendUint64(nil, uint64(v.until.Unix())), secret...) // #nosec G115 -- after 1970
	c.setCookie(v, base64.RawURLEncoding.EncodeToString(c.aead.Seal(nil, nil, plain, []byte(cookieName))), int(lifetime/time.Second))
	c.cfg.Log.Info("an operator has logged in", "token", v.token.ID)
	return v.echo.Redirect(http.StatusSeeOther, base)
}

func (c *console) logOut(v *visit) error {
	c.setCookie(v, "", -1)
	return c.render(v, http.StatusOK, "login", login{Notice: "You are logged out."})
}

func (c *console) setCookie(v *visit, value string, age int) {
	http.SetCookie(v.echo.Response(), &http.Cookie{Name: cookieName, Value: value, Path: base, MaxAge: age, HttpOnly: true,
		SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(c.cfg.Origin(v.r), "https://")})
}

// act is a button: it does something, and leaves a line in the log.
func (c *console) act(what string, do func(*visit) error) func(*visit) error {
	return func(v *visit) error {
		err := do(v)
		c.cfg.Log.Info("an operator has acted", "token", v.token.ID, "what", what, "on", v.name(), "done", err == nil)
		if err != nil {
			return err
		}
		return v.echo.JSON(http.StatusOK, struct{}{})
	}
}

func (c *console) unpark(v *visit, act func(context.Context, string, string) (int, error)) error {
	if _, err := c.admin.List(v.ctx(), v.name()); err != nil {
		return err
	}
	_, err := act(v.ctx(), v.name(), v.form("stream"))
	return err
}

// maxFailures is how many failed lines of an import are shown.
const maxFailures = 50

// errEnough ends the reading of a job's answers.
var errEnough = errors.New("enough")

// failure is a failed line, as the interface tells of it.
type failure struct {
	Line  int64  `json:"line"`
	Field string `json:"field,omitempty"`
	Error struct {
		Message string `json:"message"`
	} `json:"error"`
}

func (c *console) failures(v *visit) error {
	if c.cfg.Jobs == nil {
		return echo.ErrNotFound
	}
	list, more := []failure{}, false
	err := c.cfg.Jobs.Answers(v.ctx(), v.echo.Param("org"), v.echo.Param("id"), true, func(lines []byte) error {
		for line := range bytes.Lines(lines) {
			if more = len(list) == maxFailures; more {
				return errEnough
			}
			var f failure
			if err := json.Unmarshal(line, &f); err != nil {
				return err
			}
			list = append(list, f)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return v.echo.JSON(http.StatusOK, map[string]any{"failures": list, "more": more})
}

const (
	// maxFound is how many users a search shows.
	maxFound = 20
	// maxTimeline is how many events of a user are shown, the newest ones.
	maxTimeline = 200
	// fewest is the length of a text from which on it is looked for within
	// names too; a shorter one is what names begin with.
	fewest = 3
)

// found is a user whom a search has found.
type found struct {
	ID    string `json:"id"`
	Org   string `json:"org"`
	Name  string `json:"name"`
	Login string `json:"login"`
	Email string `json:"email"`
	State string `json:"state"`
}

// search looks for users by login name, display name, address or id. What is
// looked for is personal, so it is in a form's body and not in the address.
func (c *console) search(v *visit) error {
	text := strings.TrimSpace(v.form("q"))
	if text == "" {
		return v.echo.JSON(http.StatusOK, map[string]any{"users": []found{}, "total": 0})
	}
	how := projections.StartsWithIgnoreCase
	if len([]rune(text)) >= fewest {
		how = projections.ContainsIgnoreCase
	}
	anyOf := projections.Filter{Or: []projections.Filter{{IDs: []string{text}}}}
	for _, f := range []projections.Field{projections.FieldLoginName, projections.FieldDisplayName, projections.FieldEmail} {
		anyOf.Or = append(anyOf.Or, projections.Filter{Text: &projections.TextFilter{Field: f, Value: text, Method: how}})
	}
	page, err := c.cfg.Projections.SearchUsers(v.ctx(), projections.Everywhere(), projections.Search{
		Filters: []projections.Filter{anyOf}, Sort: projections.FieldLoginName, Limit: maxFound})
	if err != nil {
		return err
	}
	list := []found{}
	for _, u := range page.Users {
		org, err := c.cfg.Organisations.Name(v.ctx(), u.Org)
		if err != nil || org == "" {
			org = u.Org // its name is worth less than the answer
		}
		list = append(list, found{ID: u.ID, Org: org, Name: u.Profile.DisplayName, Login: u.UserName, Email: u.Email, State: stateName(u.State)})
	}
	return v.echo.JSON(http.StatusOK, map[string]any{"users": list, "total": page.Total})
}

// happened is an event of a user: everything about it that is not sealed.
type happened struct {
	Sequence int64               `json:"sequence"`
	Position eventstore.Position `json:"position"`
	Type     string              `json:"type"`
	Actor    string              `json:"actor"`
	By       string              `json:"by"`
	At       time.Time           `json:"at"`
}

// timeline tells what happened to a user, the newest first. Sealed fields stay
// sealed: opening them is an act that leaves a record, and has its own command.
func (c *console) timeline(v *visit) error {
	id := v.echo.Param("id")
	changes, err := c.cfg.Projections.UserChanges(v.ctx(), projections.Everywhere(), id, projections.Changes{Limit: maxTimeline})
	if err != nil {
		return err
	}
	actors := make([]string, len(changes))
	for i := range changes {
		actors[i] = changes[i].Actor
	}
	names, err := c.cfg.Tokens.Names(v.ctx(), actors)
	if err != nil {
		return err
	}
	list := []happened{}
	for _, e := range changes {
		by := names[e.Actor]
		switch {
		case e.Actor == id:
			by = "the user"
		case by == "":
			by = e.Actor
		}
		list = append(list, happened{e.Sequence, e.Position, e.Type, e.Actor, by, e.At})
	}
	return v.echo.JSON(http.StatusOK, map[string]any{"id": id, "events": list, "more": len(list) == maxTimeline && list[len(list)-1].Sequence > 1})
}

// stateName is a user's state in a word.
func stateName(s domain.State) string {
	switch s {
	case domain.StateActive:
		return "active"
	case domain.StateInitial:
		return "initial"
	case domain.StateInactive:
		return "inactive"
	case domain.StateLocked:
		return "locked"
	default:
		return "removed"
	}
}

//go:embed templates
var templateFiles embed.FS

//go:embed assets
var assets embed.FS

var files = static.Load(base+"/assets", assets, "assets")

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"asset": files.Path,
	"base":  func() string { return base },
}).ParseFS(templateFiles, "templates/*.html"))

func (c *console) render(v *visit, status int, name string, data any) error {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return err
	}
	return v.echo.HTMLBlob(status, b.Bytes())
}
