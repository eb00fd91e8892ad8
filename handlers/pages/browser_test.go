package pages_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/internal/browsertest"
)

// tab is one with cookies of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// newTab opens one, in a language ("" is the browser's own).
func newTab(browser context.Context, t *testing.T, language string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(func(event any) { complain(t, event) }))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	call(b, log.Enable, cdp.Empty{})
	b.do(chromedp.EmulateViewport(1100, 820))
	if language != "" {
		call(b, network.Enable, network.EnableParams{})
		call(b, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}})
	}
	return b
}

// complain fails the test when a page breaks its own policy, or its script ends
// in an error.
func complain(t *testing.T, event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity || strings.Contains(e.Entry.Text, "Security Policy") {
			t.Errorf("the browser says: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		t.Errorf("the page's script: %+v", e.ExceptionDetails)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%v; the page shows\n%s", err, b.text("body"))
	}
}

// script evaluates an expression in the page; an error is the zero value, since
// a page may be on its way out.
func script[T any](b *tab, expression string) T {
	v, _ := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	return v
}

func (b *tab) text(selector string) string {
	return strings.TrimSpace(script[string](b, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector)))
}

func (b *tab) open(url string) { b.t.Helper(); b.do(chromedp.Navigate(url)) }

// see waits until the page's heading is this.
func (b *tab) see(heading string) {
	b.t.Helper()
	b.wait("h1", heading)
}

// problem waits until the page tells of a problem that holds this text.
func (b *tab) problem(text string) {
	b.t.Helper()
	b.wait("#problem", text)
}

// settled holds when the page is loaded and typing goes where it is to begin.
const settled = `document.readyState === "complete" &&
	(document.querySelector("[autofocus]") === null || document.activeElement !== document.body)`

// wait waits until an element holds a text.
func (b *tab) wait(selector, text string) {
	b.t.Helper()
	var shown string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if shown = b.text(selector); strings.Contains(shown, text) && script[bool](b, settled) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("waited for %q in %s; the page shows\n%s", text, selector, b.text("body"))
		}
	}
}

func (b *tab) fill(id, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS("#"+id), text))
}

// press sends a key to whatever has the focus.
func (b *tab) press(keys string) { b.t.Helper(); b.do(chromedp.KeyEvent(keys)) }

// click clicks the button or link with this text.
func (b *tab) click(text string) {
	b.t.Helper()
	b.do(chromedp.Click(fmt.Sprintf(`//*[self::button or self::a][contains(normalize-space(.), %q)]`, text)))
}

// logIn goes through the first two steps.
func (b *tab) logIn(s *site, name, plain string) {
	b.t.Helper()
	b.open(s.url + "/ui/login")
	b.see("Log in")
	b.fill("login-name", name)
	b.click("Continue")
	b.see("Welcome back")
	b.fill("password", plain)
	b.click("Log in")
}

// call runs a command of the browser's protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// theme makes the page light or dark, at once.
func (b *tab) theme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
}

// authenticator gives the tab a device that keeps passkeys and verifies the
// person.
func (b *tab) authenticator() webauthn.AuthenticatorID {
	b.t.Helper()
	call(b, webauthn.Enable, webauthn.EnableParams{})
	return call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}}).AuthenticatorID
}

// TestInABrowser lets people do what the pages are for, in one Chromium on one
// service.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.serveMails()
	chromium := browsertest.Start(t)
	run := func(name, language string, f func(t *testing.T, b *tab)) {
		t.Run(name, func(t *testing.T) { f(t, newTab(chromium, t, language)) })
	}

	run("passkey", "", func(t *testing.T, b *tab) {
		p := s.person(withPasskeyLink)
		device := b.authenticator()
		b.open(p.passkey)
		b.see("Create a passkey")
		b.fill("name", "My <b>phone</b>")
		b.click("Create passkey")
		b.see("Passkey added")
		if u := s.user(p); len(u.Passkeys) != 1 || u.Passkeys[0].Name != "My <b>phone</b>" || len(u.PasskeyCodes) != 0 {
			t.Fatalf("passkeys: %+v", u.Passkeys)
		}
		b.click("Go to the login")
		b.see("Log in")
		b.click("Continue") // the name is there
		b.see("Welcome back")
		b.click("Log in with a passkey")
		b.see("You are in")
		if got := b.text(".facts"); !strings.Contains(got, "My <b>phone</b>") || !strings.Contains(got, p.email) {
			t.Errorf("what is known: %s", got)
		}
		b.click("Log out")
		b.wait(".notice.good", "You are logged out.")

		// Somebody who cannot unlock the device is not let in.
		call(b, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: device})
		b.fill("login-name", p.name)
		b.click("Continue")
		b.see("Welcome back")
		b.click("Log in with a passkey")
		b.problem("That did not work")

		// The link is used up.
		b.open(p.passkey)
		b.see("This link has been used")
	})

	run("mail, password", "", func(t *testing.T, b *tab) {
		p := s.person(nil)
		b.open(s.mails.link(t, p.email, 1))
		b.see("Set up your account")
		if got := len(script[[]string](b, `[...document.querySelectorAll("[data-rule].met")].map(e => e.dataset.rule)`)); got != 0 {
			t.Errorf("%d rules are met by nothing", got)
		}
		b.fill("password", "correct")
		if got := strings.Join(script[[]string](b, `[...document.querySelectorAll("[data-rule].met")].map(e => e.dataset.rule)`), " "); got != "lower" {
			t.Errorf("rules met: %q", got)
		}
		b.fill("password", "-Horse-7")
		b.fill("again", goodPlain[:7])
		if got := len(script[[]string](b, `[...document.querySelectorAll("[data-rule].met")].map(e => e.dataset.rule)`)); got != 5 {
			t.Errorf("%d rules are met", got)
		}
		if got := script[string](b, `document.getElementById("again").validationMessage`); got != "The two passwords are not the same." {
			t.Errorf("validation: %q", got)
		}
		script[string](b, `document.getElementById("again").value = ""`)
		b.fill("again", "correct-Horse-7")
		b.click("Set password")
		b.see("All done")
		if u := s.user(p); u.State != domain.StateActive || !u.EmailVerified || !u.HasPassword {
			t.Fatalf("the user: %+v", u)
		}
		b.logIn(s, p.name, "correct-Horse-7")
		b.see("You are in")
		if got := b.text(".facts"); !strings.Contains(got, p.email) || !strings.Contains(got, "Confirmed") || !strings.Contains(got, orgName) {
			t.Errorf("what is known: %s", got)
		}
		b.open(s.initLinkWith(p, "ABC123", false))
		b.see("Nothing left to do")
	})

	run("keyboard only", "", func(t *testing.T, b *tab) {
		p := s.person(func(c *domain.ImportHuman) { withTOTP(c); c.ChangeRequired = true })
		b.open(s.url + "/ui/login")
		b.see("Log in")
		b.press(p.name + kb.Enter) // the focus is in the field
		b.see("Welcome back")
		b.press("wrong" + kb.Enter)
		b.problem("Login name or password is wrong")
		b.press(goodPlain + kb.Tab + kb.Tab + kb.Enter) // past the eye, to the button
		b.see("One more step")
		b.press("000000" + kb.Enter)
		b.problem("This code is wrong")
		b.press(totp(t, 0) + kb.Enter)
		b.see("Choose a new password")
		b.press("Another-horse-8" + kb.Tab + kb.Tab + "Another-horse-8" + kb.Enter)
		b.see("You are in")
		b.press(kb.Tab + kb.Enter)
		b.wait(".notice.good", "You are logged out.")
		if u := s.user(p); u.ChangeRequired {
			t.Error("a change is still required")
		}
	})

	run("expired, with a new mail", "", func(t *testing.T, b *tab) {
		p := s.personAt(100*time.Hour, nil)
		b.open(s.initLink(p))
		b.see("This link has expired")
		b.click("Send me a new mail")
		b.see("Look into your mailbox")
		b.open(s.mails.link(t, p.email, 1))
		b.see("Set up your account")
	})

	run("code typed by hand, until it is dead", "", func(t *testing.T, b *tab) {
		p := s.person(nil)
		b.open(s.initLinkWith(p, "", false))
		b.see("Set up your account")
		for i := range domain.MaxCodeAttempts {
			b.fill("code", fmt.Sprintf("zzzzz%d", i))
			b.fill("password", goodPlain)
			b.fill("again", goodPlain)
			b.click("Set password")
			b.problem("This code is not the right one")
			if got := script[string](b, `document.activeElement.id + document.getElementById("code").value`); got != "code" {
				t.Errorf("the focus is in %q", got)
			}
			script[bool](b, `document.getElementById("problem").textContent = ""`)
		}
		b.fill("code", s.user(p).InitCode.Secret)
		b.fill("password", goodPlain)
		b.fill("again", goodPlain)
		b.click("Set password")
		b.see("Too many attempts")
	})

	run("German", "fr;q=0.3, de-CH, en;q=0.5", func(t *testing.T, b *tab) {
		p := s.person(func(c *domain.ImportHuman) { c.Password = goodPlain })
		b.open(s.initLink(p))
		b.see("Adresse bestätigen")
		if got := script[string](b, "document.documentElement.lang"); got != "de" {
			t.Errorf("language %q", got)
		}
		b.click("Adresse bestätigen")
		b.see("Alles erledigt")
		if u := s.user(p); !u.EmailVerified {
			t.Error("the address is not confirmed")
		}
	})
	run("everybody can use the pages", "", func(t *testing.T, b *tab) { everybodyCanUse(t, s, b) })
}
