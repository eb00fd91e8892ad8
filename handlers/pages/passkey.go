package pages

import (
	"errors"
	"net/http"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
)

// showPasskey opens a link to create a passkey with.
func (p *pages) showPasskey(v *visit) error {
	v.org = v.query("orgID")
	s := &page{UserID: v.query("userID"), OrgID: v.org, CodeID: v.query("codeID"), Code: v.query("code")}
	person, err := p.cfg.SignIn.CheckPasskeyLink(v.r.Context(), s.UserID, s.CodeID, s.Code)
	if err != nil {
		return p.refusePasskey(v, s, err)
	}
	v.org, s.LoginName = person.Org, person.UserName
	return p.renderPasskey(v, http.StatusOK, s)
}

func (p *pages) renderPasskey(v *visit, status int, s *page) error {
	s.Heading, s.Lead = v.text.get("passkey.title"), v.text.get("passkey.lead")
	return p.render(v, status, "passkey", s)
}

// beginPasskey tells the page's script what to ask the browser for.
func (p *pages) beginPasskey(v *visit) error {
	c, err := p.cfg.SignIn.BeginPasskey(v.r.Context(), p.cfg.Origin(v.r), v.form("userID"), v.form("codeID"), v.form("code"))
	return p.answerCeremony(v, c, err)
}

// answerCeremony answers a script in JSON: what to ask the browser for, or a
// text that says why not.
func (p *pages) answerCeremony(v *visit, c signin.Ceremony, err error) error {
	if err == nil {
		return v.echo.JSON(http.StatusOK, map[string]any{"publicKey": c.Options, "state": c.State})
	}
	status, _ := p.cfg.Fail(v.r.Context(), err)
	text := v.text.get("passkey.failed")
	if errors.Is(err, signin.ErrPasskeyOrigin) {
		text = v.text.get("passkey.origin")
	} else if s := p.codeState(v, err, passkeyTexts); s != nil {
		text = s.Heading
	}
	return v.echo.JSON(status, map[string]any{"error": text})
}

var passkeyTexts = codeTexts{done: "state.used.text", expired: "state.expired.passkey", locked: "state.locked.passkey"}

// addPasskey ends the registration with what the browser has made.
func (p *pages) addPasskey(v *visit) error {
	v.org = v.form("orgID")
	s := &page{UserID: v.form("userID"), OrgID: v.org, CodeID: v.form("codeID"), Code: v.form("code"), Name: v.form("name")}
	person, err := p.cfg.SignIn.FinishPasskey(v.r.Context(), p.cfg.Origin(v.r), s.UserID, s.CodeID, s.Code,
		v.form("state"), s.Name, []byte(v.form("credential")))
	if err != nil {
		return p.refusePasskey(v, s, err)
	}
	v.org = person.Org
	return p.render(v, http.StatusOK, "state", &page{Tone: "good", ToLogin: true, LoginName: person.UserName,
		Heading: v.text.get("passkey.done.title"), Lead: v.text.get("passkey.done.text")})
}

// refusePasskey says why there is no passkey: the form again when another try
// helps, else what is wrong with the link.
func (p *pages) refusePasskey(v *visit, s *page, err error) error {
	again := ""
	switch {
	case errors.Is(err, signin.ErrCeremony):
		again = "passkey.late"
	case errors.Is(err, signin.ErrPasskeyKnown):
		again = "passkey.known"
	case errors.Is(err, signin.ErrPasskeyOrigin):
		again = "passkey.origin"
	case errors.Is(err, signin.ErrPasskeyRefused), errors.Is(err, domain.ErrTooLong), errors.Is(err, domain.ErrTextInvalid):
		again = "passkey.failed"
	}
	if again != "" {
		s.Problem = v.text.get(again)
		return p.renderPasskey(v, http.StatusUnprocessableEntity, s)
	}
	state := p.codeState(v, err, passkeyTexts)
	if state == nil {
		return err
	}
	if errors.Is(err, domain.ErrCodeMissing) {
		state.Heading, state.ToLogin = v.text.get("state.used.title"), true
	}
	return p.render(v, p.refusal(err), "state", state)
}
