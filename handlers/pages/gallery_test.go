package pages_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/internal/browsertest"
)

// exhibit is a page in a state that it can be in.
type exhibit struct {
	name string
	show func(b *tab, s *site)
}

// gallery has every page in every state that looks different.
var gallery = []exhibit{
	{"login", func(b *tab, s *site) { b.open(s.url + "/ui/login"); b.see("Log in") }},
	{"login-password", func(b *tab, s *site) {
		b.open(s.url + "/ui/login")
		b.see("Log in")
		b.fill("login-name", "ada.lind")
		b.click("Continue")
		b.see("Welcome back")
	}},
	{"login-wrong", func(b *tab, s *site) {
		b.logIn(s, "nobody", "wrong")
		b.problem("Login name or password is wrong")
	}},
	{"login-totp", func(b *tab, s *site) {
		b.logIn(s, s.person(withTOTP).name, goodPlain)
		b.see("One more step")
	}},
	{"login-change", func(b *tab, s *site) {
		b.logIn(s, s.person(func(c *domain.ImportHuman) { withPassword(c); c.ChangeRequired = true }).name, goodPlain)
		b.see("Choose a new password")
	}},
	{"login-in", func(b *tab, s *site) {
		b.logIn(s, s.person(withTOTP).name, goodPlain)
		b.see("One more step")
		b.fill("code", totp(b.t, 0))
		b.click("Confirm")
		b.see("You are in")
	}},
	{"login-out", func(b *tab, s *site) {
		b.logIn(s, s.person(withPassword).name, goodPlain)
		b.see("You are in")
		b.click("Log out")
		b.wait(".notice.good", "You are logged out.")
	}},
	{"init", func(b *tab, s *site) {
		b.open(s.initLink(s.person(nil)))
		b.see("Set up your account")
		b.fill("password", "Horse")
	}},
	{"init-weak", func(b *tab, s *site) {
		b.open(s.initLink(s.person(nil)))
		b.see("Set up your account")
		b.fill("password", "short")
		b.fill("again", "short")
		b.click("Set password")
		b.problem("The password still needs: at least 8 characters.")
	}},
	{"init-code", func(b *tab, s *site) {
		b.open(s.initLinkWith(s.person(nil), "", false))
		b.see("Set up your account")
	}},
	{"init-wrong", func(b *tab, s *site) {
		b.open(s.initLinkWith(s.person(nil), "abc123", false))
		b.problem("This code is not the right one")
	}},
	{"init-confirm", func(b *tab, s *site) {
		b.open(s.initLink(s.person(func(c *domain.ImportHuman) { c.Password = goodPlain })))
		b.see("Confirm your address")
	}},
	{"init-success", func(b *tab, s *site) {
		b.open(s.initLink(s.person(func(c *domain.ImportHuman) { c.Password = goodPlain })))
		b.see("Confirm your address")
		b.click("Confirm address")
		b.see("All done")
	}},
	{"init-expired", func(b *tab, s *site) {
		b.open(s.initLink(s.personAt(100*time.Hour, nil)))
		b.see("This link has expired")
	}},
	{"init-attempts", func(b *tab, s *site) {
		p := s.person(nil)
		for i := range domain.MaxCodeAttempts {
			b.open(s.initLinkWith(p, fmt.Sprintf("AAAAA%d", i), false))
		}
		b.open(s.initLink(p))
		b.see("Too many attempts")
	}},
	{"init-done", func(b *tab, s *site) {
		b.open(s.initLinkWith(s.person(withPassword), "ABC123", false))
		b.see("Nothing left to do")
	}},
	{"init-locked", func(b *tab, s *site) {
		p := s.person(nil)
		link := s.initLink(p)
		s.lock(p)
		b.open(link)
		b.see("This account cannot be used")
	}},
	{"init-resent", func(b *tab, s *site) {
		b.open(s.initLink(s.personAt(100*time.Hour, nil)))
		b.see("This link has expired")
		b.click("Send me a new mail")
		b.see("Look into your mailbox")
	}},
	{"mail", func(b *tab, s *site) {
		b.open(s.mailLink(s.person(withIDP)))
		b.see("Confirm your address")
	}},
	{"mail-success", func(b *tab, s *site) {
		b.open(s.mailLink(s.person(withIDP)))
		b.see("Confirm your address")
		b.click("Confirm address")
		b.see("Thank you")
	}},
	{"passkey", func(b *tab, s *site) {
		b.open(s.person(withPasskeyLink).passkey)
		b.see("Create a passkey")
	}},
	{"passkey-failed", func(b *tab, s *site) {
		link := s.person(withPasskeyLink).passkey
		b.open(link)
		b.see("Create a passkey")
		// The link is dead by the time that the button is pressed.
		for i := range domain.MaxCodeAttempts {
			script[int](b, fmt.Sprintf(`fetch(%q).then(r => r.status)`, fmt.Sprintf("%s%d", link, i)))
		}
		b.click("Create passkey")
		b.problem("Too many attempts")
	}},
	{"passkey-success", func(b *tab, s *site) {
		b.authenticator()
		b.open(s.person(withPasskeyLink).passkey)
		b.see("Create a passkey")
		b.fill("name", "My phone")
		b.click("Create passkey")
		b.see("Passkey added")
	}},
	{"passkey-expired", func(b *tab, s *site) {
		b.open(s.personAt(2*time.Hour, withPasskeyLink).passkey)
		b.see("This link has expired")
	}},
	{"passkey-locked", func(b *tab, s *site) {
		p := s.person(withPasskeyLink)
		s.lock(p)
		b.open(p.passkey)
		b.see("This account cannot be used")
	}},
	{"passkey-wrong", func(b *tab, s *site) {
		b.open(s.person(withPasskeyLink).passkey + "x")
		b.see("This link is not valid")
	}},
	{"not-found", func(b *tab, s *site) { b.open(s.url + "/ui/nothing/here"); b.see("Page not found") }},
}

var themes = []string{"light", "dark"}

// axe is the script that judges. scripts/setup-test.sh fetches it; without it
// there is no test, and no test is no success.
func axe(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../../.tools/axe-core-4.14.1/axe.min.js")
	if err != nil {
		t.Fatalf("this test needs axe-core, which scripts/setup-test.sh fetches (make test runs it): %v", err)
	}
	return string(script)
}

// violation is what axe-core finds wrong.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// judge lets axe-core look at the page as it is; options are axe.run's.
func (b *tab) judge(axe, options string) (held int, violations []violation) {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](axe+`;
		axe.run(document, `+options+`).then(r => JSON.stringify({held: r.passes.length, violations: r.violations}))`, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	var r struct {
		Held       int
		Violations []violation
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		b.t.Fatal(err)
	}
	return r.Held, r.Violations
}

// everybodyCanUse has axe-core look at every page: by all of its rules in the
// light theme, by that of contrast, which is all that differs, in the dark one.
func everybodyCanUse(t *testing.T, s *site, b *tab) {
	rules := axe(t)
	for _, e := range gallery {
		t.Run(e.name, func(t *testing.T) {
			b := &tab{t, b.ctx}
			b.theme("light")
			e.show(b, s)
			held, found := b.judge(rules, `{resultTypes: ["violations"]}`)
			b.theme("dark")
			heldDark, foundDark := b.judge(rules, `{resultTypes: ["violations"], runOnly: ["color-contrast"]}`)
			if held < 10 || heldDark != 1 && len(foundDark) == 0 {
				t.Errorf("axe-core has looked at hardly anything: %d rules hold, %d in the dark", held, heldDark)
			}
			for _, v := range append(found, foundDark...) {
				if v.Impact == "serious" || v.Impact == "critical" {
					t.Errorf("%s: %s: %+v", v.ID, v.Help, v.Nodes)
				} else {
					t.Logf("%s (%s): %s", v.ID, v.Impact, v.Help)
				}
			}
			// On the narrowest phone, nothing has to be pushed sideways.
			b.do(chromedp.EmulateViewport(320, 640))
			if wide := script[int](b, "document.documentElement.scrollWidth"); wide != 320 {
				t.Errorf("on 320 pixels the page is %d wide", wide)
			}
			b.do(chromedp.EmulateViewport(1100, 820))
			call(b, network.ClearBrowserCookies, cdp.Empty{})
		})
	}
}

// TestScreenshots writes a picture of every page in both themes into the folder
// that MUSTER_SCREENSHOTS names, for people to look at (make screenshots). It
// judges nothing, so without the variable there is nothing to do.
func TestScreenshots(t *testing.T) {
	folder := os.Getenv("MUSTER_SCREENSHOTS")
	if folder == "" {
		return
	}
	s := start(t, nil)
	chromium := browsertest.Start(t)
	for _, e := range gallery {
		t.Run(e.name, func(t *testing.T) {
			b := newTab(chromium, t, "")
			e.show(b, s)
			for _, theme := range themes {
				b.theme(theme)
				picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, e.name+"-"+theme+".png"), picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
