package pages

import (
	"errors"
	"net/http"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
)

// cookieName is the session's cookie. It holds the session's id and token, goes
// to the pages only, and ends with the browser; the session has an end of its
// own.
const cookieName = "muster_session"

// by is who the pages act as: a session is anybody's who has its token.
var by = signin.Caller{ID: signin.Actor}

// credentials are what a browser holds of a session.
type credentials struct{ id, token string }

func (c credentials) String() string { return c.id + "." + c.token }

// credentials undoes String. A browser that holds none gives the zero value.
func (v *visit) credentials() credentials {
	c, err := v.r.Cookie(cookieName)
	if err != nil {
		return credentials{}
	}
	id, token, _ := strings.Cut(c.Value, ".")
	return credentials{id, token}
}

// remember gives the browser a session; the zero value takes it away.
func (p *pages) remember(v *visit, c credentials) {
	cookie := &http.Cookie{ // #nosec G124 -- Secure wherever the browser speaks https
		Name: cookieName, Path: base, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(p.cfg.Origin(v.r), "https://"),
	}
	if c == (credentials{}) {
		cookie.MaxAge = -1
	} else {
		cookie.Value = c.String()
	}
	v.echo.SetCookie(cookie)
}

// gone reports whether a session is none any more, or never was.
func gone(err error) bool {
	return errors.Is(err, signin.ErrSessionMissing) || errors.Is(err, signin.ErrSessionToken)
}

// endedAlready reports whether ending a session was not needed: that of a
// locked user opens nothing.
func endedAlready(err error) bool { return gone(err) || errors.Is(err, domain.ErrUserNotActive) }

// session is the visitor's. Without one, it is the zero Session and the cookie,
// if there was one, is taken away, as it is from who is locked since:
// ErrUserNotActive, which fail has a page for.
func (p *pages) session(v *visit) (signin.Session, error) {
	held := v.credentials()
	if held == (credentials{}) {
		return signin.Session{}, nil
	}
	x, err := p.cfg.SignIn.GetSession(v.r.Context(), by, held.id, held.token)
	if gone(err) {
		p.remember(v, credentials{})
		return signin.Session{}, nil
	}
	if errors.Is(err, domain.ErrUserNotActive) {
		p.remember(v, credentials{})
	}
	if err == nil && x.Person.Org != "" {
		v.org = x.Person.Org
	}
	return x, err
}

// showLogin shows the step that the visitor's session wants next.
func (p *pages) showLogin(v *visit) error {
	x, err := p.session(v)
	if err != nil {
		return err
	}
	if x.ID == "" {
		s := &page{LoginName: v.query("loginName")}
		if v.credentials() != (credentials{}) {
			s.Problem = v.text.get("login.again")
		}
		return p.renderName(v, http.StatusOK, s)
	}
	return p.step(v, http.StatusOK, x, &page{})
}

// step shows what a session wants next; s may hold a problem.
func (p *pages) step(v *visit, status int, x signin.Session, s *page) error {
	s.LoginName = x.Person.UserName
	switch x.Next() {
	case signin.StepTOTP:
		s.Heading, s.Lead = v.text.get("totp.title"), v.text.get("totp.lead")
		return p.render(v, status, "totp", s)
	case signin.StepChange:
		s.Heading, s.Lead, s.Rules = v.text.get("change.title"), v.text.get("change.lead"), p.rules(v)
		return p.render(v, status, "change", s)
	case signin.StepDone:
		s.Heading, s.Lead, s.Facts = v.text.get("in.title"), v.text.get("in.lead", x.Person.DisplayName), p.facts(v, x)
		return p.render(v, status, "in", s)
	}
	return p.renderName(v, status, s)
}

func (p *pages) renderName(v *visit, status int, s *page) error {
	s.Heading, s.Lead = v.text.get("login.title"), v.text.get("login.lead")
	return p.render(v, status, "name", s)
}

// takeName goes on to the password. Whether there is such a user is not asked.
func (p *pages) takeName(v *visit) error {
	s := &page{LoginName: strings.TrimSpace(v.form("loginName"))}
	if s.LoginName == "" {
		return p.renderName(v, http.StatusUnprocessableEntity, s)
	}
	return p.renderPassword(v, http.StatusOK, s)
}

func (p *pages) renderPassword(v *visit, status int, s *page) error {
	s.Heading, s.Lead = v.text.get("login.password.title"), v.text.get("login.password.lead")
	return p.render(v, status, "password", s)
}

// refused reports whether an error says no more than that somebody is not let
// in: the answer is the same for a wrong password, an unknown user and one who
// is locked.
func refused(err error) bool {
	for _, e := range []error{domain.ErrPasswordWrong, domain.ErrPasskeyWrong, domain.ErrUserNotActive, signin.ErrUserMissing} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// takePassword begins a session with a password.
func (p *pages) takePassword(v *visit) error {
	name, plain := strings.TrimSpace(v.form("loginName")), v.form("password")
	a, err := p.cfg.SignIn.CreateSession(v.r.Context(), by, signin.Request{Checks: signin.Checks{LoginName: &name, Password: &plain}})
	if refused(err) {
		return p.renderPassword(v, http.StatusUnprocessableEntity, &page{LoginName: name, Problem: v.text.get("login.wrong")})
	}
	if err != nil {
		return err
	}
	return p.enter(v, a)
}

// enter puts a session in the place of the browser's former one.
func (p *pages) enter(v *visit, a signin.Answer) error {
	if old := v.credentials(); old != (credentials{}) && old.id != a.Session.ID {
		if _, err := p.cfg.SignIn.DeleteSession(v.r.Context(), by, old.id, old.token); err != nil && !endedAlready(err) {
			return err
		}
	}
	p.remember(v, credentials{a.Session.ID, a.Token})
	return v.toLogin()
}

// beginLogin tells the page's script which passkeys to ask the browser for. It
// has an answer for every login name, of the same form.
func (p *pages) beginLogin(v *visit) error {
	c, err := p.cfg.SignIn.BeginLogin(v.r.Context(), p.cfg.Origin(v.r), strings.TrimSpace(v.form("loginName")))
	return p.answerCeremony(v, c, err)
}

// takePasskey ends what beginLogin began.
func (p *pages) takePasskey(v *visit) error {
	a, err := p.cfg.SignIn.FinishLogin(v.r.Context(), by, v.form("state"), []byte(v.form("credential")))
	var problem string
	switch {
	case err == nil:
		return p.enter(v, a)
	case refused(err):
		problem = "login.passkey.wrong"
	case errors.Is(err, signin.ErrCeremony):
		problem = "passkey.late"
	default:
		return err
	}
	return p.renderPassword(v, http.StatusUnprocessableEntity, &page{LoginName: strings.TrimSpace(v.form("loginName")), Problem: v.text.get(problem)})
}

// takeTOTP checks the second factor.
func (p *pages) takeTOTP(v *visit) error {
	code := strings.Join(strings.Fields(v.form("code")), "") // apps show it in two groups
	held := v.credentials()
	a, err := p.cfg.SignIn.SetSession(v.r.Context(), by, held.id, held.token, signin.Request{Checks: signin.Checks{TOTP: &code}})
	switch {
	case err == nil:
		return p.enter(v, a)
	case errors.Is(err, domain.ErrTOTPWrong):
		// One wrong code too many has locked the user: then this is an error.
		x, err := p.session(v)
		switch {
		case err != nil:
			return err
		case x.ID == "":
			return v.toLogin()
		}
		return p.step(v, http.StatusUnprocessableEntity, x, &page{Problem: v.text.get("totp.wrong")})
	case gone(err), errors.Is(err, signin.ErrSessionChanged):
		return v.toLogin()
	}
	return err
}

// takeChange replaces the password.
func (p *pages) takeChange(v *visit) error {
	x, err := p.session(v)
	if err != nil {
		return err
	}
	if x.ID == "" || x.Next() != signin.StepChange {
		return v.toLogin()
	}
	s := &page{}
	plain := v.form("password")
	if !p.judgeNew(v, s, plain, v.form("again")) {
		return p.step(v, http.StatusUnprocessableEntity, x, s)
	}
	held := v.credentials()
	_, err = p.cfg.SignIn.ChangePassword(v.r.Context(), by, held.id, held.token, plain)
	switch {
	case errors.Is(err, domain.ErrPasswordSame):
		s.PasswordWrong, s.Problem = true, v.text.get("change.same")
		return p.step(v, http.StatusUnprocessableEntity, x, s)
	case err == nil, gone(err), errors.Is(err, signin.ErrFirst):
		return v.toLogin()
	}
	return err
}

// logOut ends the session. Who has none is logged out as well.
func (p *pages) logOut(v *visit) error {
	if held := v.credentials(); held != (credentials{}) {
		if _, err := p.cfg.SignIn.DeleteSession(v.r.Context(), by, held.id, held.token); err != nil && !endedAlready(err) {
			return err
		}
		p.remember(v, credentials{})
	}
	return p.renderName(v, http.StatusOK, &page{Notice: v.text.get("logout.done")})
}

// facts are what is known about who is in.
func (p *pages) facts(v *visit, x signin.Session) []fact {
	t := v.text
	who := x.Person
	facts := []fact{{Name: t.get("facts.login_name"), Text: who.UserName}}
	email := fact{Name: t.get("facts.email"), Text: who.Email, Badge: t.get("facts.unverified"), Tone: "warn"}
	if who.EmailVerified {
		email.Badge, email.Tone = t.get("facts.verified"), "good"
	}
	facts = append(facts, email, fact{Name: t.get("facts.organisation"), Text: p.orgName(v)}, fact{Name: t.get("facts.id"), Text: who.ID})
	var ways []string
	for _, w := range []struct {
		done bool
		key  string
	}{{!x.PasswordAt.IsZero(), "password"}, {!x.TOTPAt.IsZero(), "totp"}, {!x.PasskeyAt.IsZero(), "passkey"}} {
		if w.done {
			ways = append(ways, t.get("facts.way."+w.key))
		}
	}
	facts = append(facts, fact{Name: t.get("facts.way"), Texts: ways})
	if who.HasPassword {
		facts = append(facts, fact{Name: t.get("facts.password"), Text: t.get("facts.password.set")})
	}
	if who.HasTOTP {
		facts = append(facts, fact{Name: t.get("facts.factor"), Text: t.get("facts.factor.totp")})
	}
	if len(who.Passkeys) > 0 {
		names := make([]string, len(who.Passkeys))
		for i, n := range who.Passkeys {
			if names[i] = n; n == "" {
				names[i] = t.get("facts.passkeys.unnamed")
			}
		}
		facts = append(facts, fact{Name: t.get("facts.passkeys"), Texts: names})
	}
	return facts
}
