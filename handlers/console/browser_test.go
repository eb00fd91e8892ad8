package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/internal/browsertest"
)

// tab is one in a headless Chromium of its own.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func browse(t *testing.T) *tab {
	t.Helper()
	b := &tab{t, browsertest.Start(t)}
	b.do(chromedp.EmulateViewport(1280, 1000))
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
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

// wait waits until an element holds a text.
func (b *tab) wait(selector, text string) {
	b.t.Helper()
	var shown string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if shown = b.text(selector); strings.Contains(shown, text) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("waited for %q in %s, which has %q; the page shows\n%s", text, selector, shown, b.text("body"))
		}
	}
}

func (b *tab) click(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

func (b *tab) theme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// logIn does so by keyboard alone.
func (b *tab) logIn(s *site) {
	b.t.Helper()
	b.do(chromedp.Navigate(s.url + "/ui/admin"))
	b.wait("h1", "Operator's console")
	b.do(chromedp.SendKeys(chromedp.CSS("#token"), adminToken+kb.Enter))
	b.wait("#link-text", "Live")
}

// everybodyCanUse lets axe-core judge the page, in both themes.
func (b *tab) everybodyCanUse(what string) {
	b.t.Helper()
	axe, err := os.ReadFile("../../.tools/axe-core-4.14.1/axe.min.js")
	if err != nil {
		b.t.Fatalf("this test needs axe-core, which scripts/setup-test.sh fetches (make test runs it): %v", err)
	}
	// All rules in the light theme; in the dark one that of contrast, which is all
	// that differs.
	for theme, rules := range map[string]string{"light": "", "dark": `, runOnly: ["color-contrast"]`} {
		b.theme(theme)
		out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](string(axe)+`;
			axe.run(document, {resultTypes: ["violations"]`+rules+`}).then(r => JSON.stringify({held: r.passes.length, violations: r.violations}))`, chromedp.EvalAwaitPromise))
		if err != nil {
			b.t.Fatal(err)
		}
		var r struct {
			Held       int
			Violations []struct {
				ID, Impact, Help string
				Nodes            []struct{ HTML, FailureSummary string }
			}
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			b.t.Fatal(err)
		}
		if r.Held < 1 || rules == "" && r.Held < 10 {
			b.t.Errorf("%s, %s: axe-core has looked at hardly anything", what, theme)
		}
		for _, v := range r.Violations {
			b.t.Errorf("%s, %s: %s (%s): %s: %+v", what, theme, v.ID, v.Impact, v.Help, v.Nodes)
		}
	}
}

// park sets a stream aside, as a consumer does whose effects fail.
func (s *site) park(consumer, stream string) {
	s.t.Helper()
	for _, sql := range []string{
		`INSERT INTO consumers (name) VALUES ('` + consumer + `')`,
		`INSERT INTO consumer_ranges (consumer, first_slice, last_slice, epoch, position, dispatched) VALUES ('` + consumer + `', 0, 1023, 1, 2, 2)`,
		`INSERT INTO consumer_parked (consumer, stream, slice, org, sequence, position, epoch, type, attempts, error_class, state, next_attempt_at)
		 VALUES ('` + consumer + `', '` + stream + `', 0, 'org-1', 1, 3, 1, 'HumanAdded', 8, 'refused', 'parked', now())`,
	} {
		if _, err := s.store.Pool().Exec(context.Background(), sql); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestInABrowser(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	b := browse(t)
	b.do(chromedp.Navigate(s.url + "/ui/admin"))
	b.wait("h1", "Operator's console")
	b.everybodyCanUse("the login")
	b.logIn(s)
	if got := script[string](b, `document.cookie + localStorage.length + location.search`); got != "0" {
		t.Errorf("a script can see %q", got)
	}

	// Figures rise while an import goes on; only its end is said aloud.
	said := `(window.heard = [], new MutationObserver(() => heard.push(document.getElementById("said").textContent))
		.observe(document.getElementById("said"), {childList: true, characterData: true, subtree: true}), true)`
	script[bool](b, said)
	send, done := s.importing("autumn")
	send(1, 700)
	b.wait("#users", "700")
	b.wait("#jobs", "autumn")
	send(701, 1400)
	send(1, 3)
	b.wait("#users", "1,400")
	done()
	b.wait("#jobs", "finished")
	b.wait("#jobs", "3 failed")
	b.wait("#orgs", "Nordlicht Books")
	if got := script[[]string](b, "heard"); len(got) != 1 || !strings.Contains(got[0], "Import autumn is finished: 1,400 created, 3 failed.") {
		t.Errorf("said aloud: %q", got)
	}
	if script[string](b, `document.querySelector("#user-spark .line").getAttribute("d")`) == "" {
		t.Error("there is no line of rates")
	}
	b.click("#jobs [data-part=show]")
	b.wait("#jobs .failures", "Line 1,401")

	// A rebuild ends with the next version, and can be taken back.
	version := b.text("#models tr[data-key=users] [data-part=version]")
	b.click("#models tr[data-key=users] [data-part=rebuild]")
	b.wait("#models tr[data-key=users] [data-part=text]", "rebuilt")
	rebuilt := b.text("#models tr[data-key=users] [data-part=version]")
	if rebuilt == version {
		t.Errorf("version %s is still live", version)
	}
	b.click("#models tr[data-key=users] [data-part=back]")
	b.wait("#ask-title", "Roll users back?")
	b.press(kb.Escape)
	until(t, "the button", func() bool {
		return script[bool](b, `!document.getElementById("ask").open && !document.querySelector("[aria-disabled=true]")`)
	})
	b.click("#models tr[data-key=users] [data-part=back]")
	b.click("#ask-yes")
	b.wait("#models tr[data-key=users] [data-part=text]", "rolled back")
	if got := b.text("#models tr[data-key=users] [data-part=version]"); got != version {
		t.Errorf("version %s is live after the rollback", got)
	}

	// What is parked can be let go.
	s.park("mail", "01PARKED")
	b.wait("#consumers", "1 parked")
	b.wait("#parked", "mail: stream 01PARKED")
	b.everybodyCanUse("the console")
	b.click(`#parked button[aria-label="Release 01PARKED of mail"]`)
	b.wait("#said", "Release: stream 01PARKED goes on.")
	until(t, "nothing parked", func() bool { return b.text("#parked") == "" })

	// An event is skipped for a reason, which goes into the log.
	s.park("crm", "01POISON")
	b.wait("#parked", "crm: stream 01POISON")
	b.click(`#parked button[aria-label="Skip 01POISON of crm"]`)
	b.wait("#ask", "recorded in the log")
	b.click("#ask-yes") // without a reason nothing happens
	b.do(chromedp.SendKeys(chromedp.CSS("#ask-words"), "The CRM does not know her"), chromedp.KeyEvent(kb.Enter))
	b.wait("#said", "Skip: stream 01POISON goes on.")
	skipped, err := s.store.ReadStream(t.Context(), consumers.StreamPrefix+"crm", 0)
	if err != nil || len(skipped) != 1 || skipped[0].Type != consumers.TypeEventSkipped || skipped[0].Actor != access.AdminID {
		t.Fatalf("recorded: %+v, %v", skipped, err)
	}

	// Somebody is found, and what happened to them, by keyboard alone.
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), "ada.lind77"+kb.Enter))
	b.wait("#found-text", "11 users.")
	script[bool](b, `(document.getElementById("q").value = "", true)`)
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), "ada.lind777"+kb.Enter))
	b.wait("#found-text", "1 user.")
	b.press(kb.Tab + kb.Tab + kb.Enter)
	b.wait("#history-title", "Events of Ada Lind 777")
	b.wait("#timeline", "HumanAdded")
	b.wait("#timeline", "administrator")
	b.wait("#timeline", "sequence 1")
	if got := script[string](b, "document.activeElement.id"); got != "history-title" {
		t.Errorf("the focus is on %q", got)
	}
	b.everybodyCanUse("a timeline")

	// On a phone nothing is wider than the screen.
	b.do(chromedp.EmulateViewport(390, 844))
	if got := script[int](b, "document.documentElement.scrollWidth"); got > 390 {
		t.Errorf("the page is %d wide", got)
	}
	b.do(chromedp.EmulateViewport(1280, 1000))
	b.click(".top form button")
	b.wait("h1", "Operator's console")
	b.wait(".notice.good", "You are logged out.")
}

func (b *tab) press(keys string) { b.t.Helper(); b.do(chromedp.KeyEvent(keys)) }

// TestScreenshots writes pictures of the console into the folder that
// MUSTER_SCREENSHOTS names (make screenshots). It judges nothing, so without the
// variable there is nothing to do.
func TestScreenshots(t *testing.T) {
	folder := os.Getenv("MUSTER_SCREENSHOTS")
	if folder == "" {
		return
	}
	s := start(t, nil)
	b := browse(t)
	shoot := func(name string) {
		for _, theme := range []string{"light", "dark"} {
			b.theme(theme)
			picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
			if err == nil {
				err = os.WriteFile(filepath.Join(folder, name+"-"+theme+".png"), picture, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	b.do(chromedp.Navigate(s.url + "/ui/admin"))
	b.wait("h1", "Operator's console")
	shoot("admin-login")
	b.logIn(s)
	s.park("mail", "01M8ZK4T9QW3R5Y7N1B2C6D8FG")
	send, done := s.importing("crm-export-2026")
	for n := 1; n < 20000; { // waves, so that there is something to see
		for _, size := range []int{60, 110, 190, 260, 300, 320, 310, 330, 290, 250, 180, 120} {
			send(n, n+size-1)
			n += size
			time.Sleep(350 * time.Millisecond)
			if n >= 20000 {
				break
			}
		}
	}
	send(1, 12)
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), "ada.lind440"+kb.Enter))
	b.wait("#found-text", "users")
	b.click("#found li:nth-child(3) button")
	b.wait("#timeline", "HumanAdded")
	script[bool](b, `(document.activeElement.blur(), scrollTo(0, 0), true)`)
	shoot("admin")
	done()
}
