package pages

import (
	"errors"
	"net/http"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
)

// showInit opens the link of an initialization mail. A code in it is judged, so
// that nobody chooses a password for a link that is good no more.
func (p *pages) showInit(v *visit) error {
	v.org = v.query("orgID")
	s := &page{UserID: v.query("userID"), OrgID: v.org, Code: v.query("code"), PasswordSet: v.query("passwordset") == "true"}
	if s.UserID == "" {
		return p.wrongLink(v)
	}
	if s.Code == "" {
		s.AskCode, s.AskPassword = true, !s.PasswordSet
		return p.renderInit(v, http.StatusOK, s)
	}
	person, err := p.cfg.SignIn.CheckInitialization(v.r.Context(), s.UserID, s.Code)
	if err != nil {
		return p.refuseInit(v, s, err)
	}
	p.recognise(v, s, person)
	return p.renderInit(v, http.StatusOK, s)
}

// recognise fills in what a code that was right tells.
func (p *pages) recognise(v *visit, s *page, person signin.Person) {
	v.org, s.OrgID = person.Org, person.Org
	s.LoginName = person.UserName
	s.AskCode, s.AskPassword, s.PasswordSet = false, !person.HasPassword, person.HasPassword
}

// takeInit completes the account.
func (p *pages) takeInit(v *visit) error {
	v.org = v.form("orgID")
	s := &page{UserID: v.form("userID"), OrgID: v.org, Code: v.form("code"), PasswordSet: v.form("passwordset") == "true"}
	ctx := v.r.Context()
	person, err := p.cfg.SignIn.CheckInitialization(ctx, s.UserID, s.Code)
	if err != nil {
		return p.refuseInit(v, s, err)
	}
	p.recognise(v, s, person)
	plain := v.form("password")
	if s.AskPassword || plain != "" {
		if !v.r.PostForm.Has("password") { // it was not asked for yet
			return p.renderInit(v, http.StatusOK, s)
		}
		if !p.judgeNew(v, s, plain, v.form("again")) {
			s.AskPassword = true
			return p.renderInit(v, http.StatusUnprocessableEntity, s)
		}
	}
	person, err = p.cfg.SignIn.Initialize(ctx, s.UserID, s.Code, plain)
	if err != nil {
		return p.refuseInit(v, s, err)
	}
	return p.render(v, http.StatusOK, "state", &page{Tone: "good", ToLogin: true, LoginName: person.UserName,
		Heading: v.text.get("init.done.title"), Lead: v.text.get("init.done.text")})
}

func (p *pages) renderInit(v *visit, status int, s *page) error {
	kind := "init."
	if !s.AskPassword {
		kind = "init.confirm."
	}
	s.Heading, s.Lead, s.Button = v.text.get(kind+"title"), v.text.get(kind+"lead"), v.text.get(kind+"submit")
	s.Rules = p.rules(v)
	return p.render(v, status, "init", s)
}

// refuseInit says what is wrong with an initialization code, and offers what
// can be done.
func (p *pages) refuseInit(v *visit, s *page, err error) error {
	if errors.Is(err, domain.ErrCodeWrong) {
		s.AskCode, s.AskPassword, s.CodeWrong, s.Code = true, !s.PasswordSet, true, ""
		s.Problem = v.text.get("init.code.wrong")
		return p.renderInit(v, http.StatusUnprocessableEntity, s)
	}
	state := p.codeState(v, err, codeTexts{done: "state.done.text", expired: "state.expired.text", locked: "state.locked.text"})
	if state == nil {
		return err
	}
	state.UserID, state.OrgID = s.UserID, s.OrgID
	state.Resend = errors.Is(err, domain.ErrCodeExpired) || errors.Is(err, domain.ErrCodeUsedUp)
	state.ToLogin = errors.Is(err, domain.ErrCodeMissing)
	return p.render(v, p.refusal(err), "state", state)
}

// codeTexts are the keys of the texts that differ between the kinds of codes.
type codeTexts struct{ done, expired, locked string }

// codeState is the page for a code that cannot be used, and nil when err is not
// about that.
func (p *pages) codeState(v *visit, err error, texts codeTexts) *page {
	var title, text string
	tone := "warn"
	switch {
	case errors.Is(err, domain.ErrCodeExpired):
		title, text = "state.expired.title", texts.expired
	case errors.Is(err, domain.ErrCodeUsedUp):
		title, text, tone = "state.attempts.title", "state.attempts.text", "bad"
	case errors.Is(err, domain.ErrCodeMissing):
		title, text = "state.done.title", texts.done
	case errors.Is(err, domain.ErrUserNotActive):
		title, text, tone = "state.locked.title", texts.locked, "bad"
	case errors.Is(err, domain.ErrCodeWrong):
		title, text, tone = "state.wrong.title", "state.wrong.text", "bad"
	default:
		return nil
	}
	return &page{Tone: tone, Heading: v.text.get(title), Lead: v.text.get(text)}
}

// refusal is the HTTP status of a code that cannot be used.
func (p *pages) refusal(err error) int {
	switch {
	case errors.Is(err, domain.ErrCodeExpired), errors.Is(err, domain.ErrCodeMissing):
		return http.StatusGone
	case errors.Is(err, domain.ErrCodeUsedUp):
		return http.StatusTooManyRequests
	case errors.Is(err, domain.ErrUserNotActive):
		return http.StatusForbidden
	}
	return http.StatusUnprocessableEntity
}

// wrongLink answers a link that lacks something.
func (p *pages) wrongLink(v *visit) error {
	return p.render(v, http.StatusUnprocessableEntity, "state", &page{Tone: "bad",
		Heading: v.text.get("state.wrong.title"), Lead: v.text.get("state.wrong.text")})
}

// resend has another mail sent. The answer is the same for everybody: it tells
// neither whether there is such a user nor what state the account is in.
func (p *pages) resend(v *visit) error {
	v.org = v.form("orgID")
	err := p.cfg.SignIn.ResendInitialization(v.r.Context(), v.form("userID"))
	var known *domain.Error
	if err != nil && (!errors.As(err, &known) || known.Kind == domain.KindInternal || known.Kind == domain.KindUnavailable) {
		return err
	}
	return p.render(v, http.StatusOK, "state", &page{Tone: "good",
		Heading: v.text.get("resend.done.title"), Lead: v.text.get("resend.done.text")})
}

// showMail opens the link of a mail that asks whether an address is the user's.
// Opening it confirms nothing: programs that look at mails do that too.
func (p *pages) showMail(v *visit) error {
	v.org = v.query("orgID")
	s := &page{UserID: v.query("userID"), OrgID: v.org, Code: v.query("code")}
	if s.UserID == "" {
		return p.wrongLink(v)
	}
	return p.renderMail(v, http.StatusOK, s)
}

// takeMail confirms the address.
func (p *pages) takeMail(v *visit) error {
	v.org = v.form("orgID")
	s := &page{UserID: v.form("userID"), OrgID: v.org, Code: v.form("code")}
	person, err := p.cfg.SignIn.VerifyEmail(v.r.Context(), s.UserID, s.Code)
	if errors.Is(err, domain.ErrCodeWrong) {
		s.CodeWrong, s.Code, s.Problem = true, "", v.text.get("init.code.wrong")
		return p.renderMail(v, http.StatusUnprocessableEntity, s)
	}
	if err != nil {
		state := p.codeState(v, err, codeTexts{done: "state.mail.text", expired: "state.expired.passkey", locked: "state.locked.text"})
		if state == nil {
			return err
		}
		state.ToLogin = errors.Is(err, domain.ErrCodeMissing)
		return p.render(v, p.refusal(err), "state", state)
	}
	v.org = person.Org
	return p.render(v, http.StatusOK, "state", &page{Tone: "good", ToLogin: true, LoginName: person.UserName,
		Heading: v.text.get("mail.done.title"), Lead: v.text.get("mail.done.text")})
}

func (p *pages) renderMail(v *visit, status int, s *page) error {
	s.Heading, s.Lead, s.Button, s.AskCode = v.text.get("mail.title"), v.text.get("mail.lead"), v.text.get("mail.submit"), true
	return p.render(v, status, "mail", s)
}
