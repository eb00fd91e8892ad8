package consumers_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/internal/logtest"
)

// mailServer is an SMTP server that keeps what it accepts.
type mailServer struct {
	url string
	mu  sync.Mutex
	// beforeRcpt is called before RCPT TO is answered, with no lock held.
	beforeRcpt func(conn net.Conn)
	// onRcpt answers RCPT TO; nil accepts.
	onRcpt func(to string) error
	// onData is called with the whole mail, before the confirmation.
	onData func(conn net.Conn) error
	got    []string
}

type mailSession struct {
	s    *mailServer
	conn *smtp.Conn
}

func (m *mailSession) Reset()                                      {}
func (m *mailSession) Logout() error                               { return nil }
func (m *mailSession) Mail(from string, _ *smtp.MailOptions) error { return nil }
func (m *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if m.s.beforeRcpt != nil {
		m.s.beforeRcpt(m.conn.Conn())
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.onRcpt != nil {
		return m.s.onRcpt(to)
	}
	return nil
}

func (m *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err // the client went silent before the dot
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.onData != nil {
		if err := m.s.onData(m.conn.Conn()); err != nil {
			return err
		}
	}
	m.s.got = append(m.s.got, string(b))
	return nil
}

func (s *mailServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// serveMail starts the server on an address ("" for any).
func (s *mailServer) serve(t *testing.T, addr string) (stop func()) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &mailSession{s: s, conn: c}, nil }))
	srv.Domain = "mail.test"
	srv.ErrorLog = nopLog{}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	s.url = "smtp://" + l.Addr().String()
	var once sync.Once
	stop = func() { once.Do(func() { l.Close(); srv.Close(); <-done }) }
	t.Cleanup(stop)
	return stop
}

type nopLog struct{}

func (nopLog) Printf(string, ...any) {}
func (nopLog) Println(...any)        {}

var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func now() time.Time { return issued.Add(time.Minute) }

// person appends a user with a code and returns the user's id.
func person(t *testing.T, store *eventstore.Store, email string, events ...domain.Event) string {
	t.Helper()
	id := ulid.Make().String()
	added := domain.HumanAdded{UserName: "ada & co", Email: email,
		Profile: domain.Profile{FirstName: "Ada", LastName: "Lind", DisplayName: "Ada Lind", PreferredLanguage: "de-CH"}}
	appendAll(t, store, eventstore.Append{Stream: id, Org: "org 1", Actor: "test", Expected: eventstore.NoStream, At: issued,
		Events: encode(append([]domain.Event{added}, events...)...)})
	return id
}

func sent(secret string) domain.SentCode {
	return domain.SentCode{Secret: secret, Lifetime: 72 * time.Hour, Issued: issued}
}

func initCode(secret string) domain.Event {
	return domain.InitializationCodeAdded{SentCode: sent(secret)}
}

// startMail runs the mail consumer.
func startMail(t *testing.T, store *eventstore.Store, cfg consumers.MailConfig, base consumers.Config) (*consumers.Mail, func()) {
	t.Helper()
	cfg.Origin, cfg.Now = "https://login.example.test", now
	if cfg.PerSecond == 0 {
		cfg.PerSecond = 1000
	}
	m, err := consumers.NewMail(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if base.Backoff == nil {
		base.Backoff = quick
	}
	base.Flush = 20 * time.Millisecond
	if base.LeaseTTL == 0 {
		base.LeaseTTL = 400 * time.Millisecond
	}
	_, stop := consume(t, store, consumers.MailConsumer, m.Subscription(base), m.Handle)
	return m, stop
}

func settledLag(t *testing.T, store *eventstore.Store) {
	t.Helper()
	admin := consumers.NewAdmin(store)
	until(t, "the mail consumer to catch up", func() bool { return lag(t, admin, consumers.MailConsumer) == 0 })
}

// parts splits a mail into its header, text and HTML.
func parts(t *testing.T, raw string) (h netmail.Header, subject, text, html string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	mr := multipart.NewReader(m.Body, params["boundary"])
	for _, dst := range []*string{&text, &html} {
		p, err := mr.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(quotedprintable.NewReader(bufio.NewReader(p)))
		if err != nil {
			t.Fatal(err)
		}
		*dst = string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	}
	return m.Header, subject, text, html
}

func TestMailsSayWhatTheyAreFor(t *testing.T) {
	store := openStore(t)
	dir := filepath.Join(t.TempDir(), "mail")
	emailCode := domain.EmailCodeAdded{SentCode: sent("EEE")}
	templated := domain.EmailCodeAdded{SentCode: sent("T+T"), URLTemplate: "https://app.test/v?u={{.UserID}}&c={{.Code}}&o={{.OrgID}}"}
	silent := domain.InitializationCodeAdded{SentCode: sent("SIL")}
	silent.Silent = true
	expired := domain.InitializationCodeAdded{SentCode: sent("EXP")}
	expired.Lifetime = time.Second
	hash := domain.PasswordSet{Hash: "$2y$…"}

	newer := sent("NEW")
	newer.Issued = issued.Add(time.Second)
	want := map[string]struct{ subject, link, text string }{
		person(t, store, "init@example.test", initCode("A B&1")):                           {"Benutzer initialisieren", "/ui/login/user/init?userID=ID&loginname=ada%20%26%20co&code=A%20B%261&orgID=org%201&passwordset=false&authRequestID=", "Bestätigen Sie"},
		person(t, store, "hash@example.test", hash, initCode("BBB")):                       {"Benutzer initialisieren", "/ui/login/user/init?userID=ID&loginname=ada%20%26%20co&code=BBB&orgID=org%201&passwordset=true&authRequestID=", "Bestätigen Sie"},
		person(t, store, "verified@example.test", domain.EmailVerified{}, initCode("CCC")): {"Benutzer initialisieren", "/ui/login/user/init?userID=ID&loginname=ada%20%26%20co&code=CCC&orgID=org%201&passwordset=false&authRequestID=", "Ihr Passwort"},
		person(t, store, "email@example.test", emailCode):                                  {"E-Mail-Adresse bestätigen", "/ui/login/mail/verification?userID=ID&code=EEE&orgID=org%201&authRequestID=", "gehört"},
		person(t, store, "template@example.test", templated):                               {"E-Mail-Adresse bestätigen", "app.test/v?u=ID&c=T%2BT&o=org%201", "gehört"},
		person(t, store, "newer@example.test", initCode("OLD"), domain.InitializationCodeAdded{SentCode: newer}): {
			"Benutzer initialisieren", "code=NEW&", "Bestätigen Sie"},
	}
	person(t, store, "silent@example.test", silent)
	person(t, store, "expired@example.test", expired)
	person(t, store, "removed@example.test", initCode("XXX"), domain.UserRemoved{})
	person(t, store, "done@example.test", initCode("YYY"), domain.InitializationSucceeded{}, domain.EmailVerified{})
	person(t, store, "proved@example.test", emailCode, domain.EmailVerified{})
	startMail(t, store, consumers.MailConfig{Folder: dir}, consumers.Config{})
	settledLag(t, store)

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(want) {
		t.Errorf("%d mails, want %d", len(files), len(want))
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, subject, text, html := parts(t, string(raw))
		effect := strings.TrimSuffix(filepath.Base(f), ".eml")
		if h.Get("Message-ID") != "<"+effect+"@login.example.test>" {
			t.Errorf("Message-ID %s in file %s", h.Get("Message-ID"), filepath.Base(f))
		}
		found := false
		for id, w := range want {
			if !strings.Contains(text, id) {
				continue
			}
			found = true
			if subject != w.subject || !strings.Contains(text, strings.Replace(w.link, "=ID&", "="+id+"&", 1)) || !strings.Contains(text, w.text) {
				t.Errorf("%s:\nsubject %q\n%s\nwant %+v", h.Get("To"), subject, text, w)
			}
			if !strings.Contains(html, strings.ReplaceAll(strings.Replace(w.link, "=ID&", "="+id+"&", 1), "&", "&amp;")) {
				t.Errorf("%s: the HTML lacks the link:\n%s", h.Get("To"), html)
			}
		}
		if !found {
			t.Errorf("a mail that nobody should get, to %s", h.Get("To"))
		}
	}
}

func TestOneMailThroughRefusalsAndOutages(t *testing.T) {
	store := openStore(t)
	server := &mailServer{}
	stop := server.serve(t, "")
	stop() // the server is down at first
	busy := 3
	server.onRcpt = func(to string) error {
		switch {
		case strings.HasPrefix(to, "poison"):
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox " + to}
		case strings.HasPrefix(to, "busy") && busy > 0:
			busy--
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
		}
		return nil
	}
	poison := person(t, store, "poison@example.test", initCode("PPP"))
	person(t, store, "busy@example.test", initCode("BBB"))
	for range 20 {
		person(t, store, "ada@example.test", initCode("AAA"))
	}
	admin := consumers.NewAdmin(store)
	startMail(t, store, consumers.MailConfig{URL: server.url}, consumers.Config{Attempts: 6, AsideAfter: time.Hour, LeaseTTL: 3 * time.Second})
	time.Sleep(200 * time.Millisecond) // some dozens of tries against the closed port
	if p, err := admin.Parked(t.Context(), "", 0); err != nil || len(p) > 0 {
		t.Fatalf("an outage parked %v, %v", p, err)
	}
	server.serve(t, strings.TrimPrefix(server.url, "smtp://"))
	settledLag(t, store)
	parked, err := admin.Parked(t.Context(), consumers.MailConsumer, 0)
	if err != nil || len(parked) != 1 || parked[0].Stream != poison || parked[0].Class != "address_refused" || parked[0].Attempts != 1 {
		t.Errorf("parked: %+v, %v", parked, err)
	}
	// Nothing has come between a dot and its confirmation, so nothing is in
	// doubt: each mail is there, once.
	mailsAreAsRecorded(t, store, server)
	if uncertain, err := admin.UncertainMails(t.Context()); err != nil || len(uncertain) > 0 || server.count() != 21 {
		t.Errorf("%d mails, uncertain: %v, %v", server.count(), uncertain, err)
	}
	// Whatever is delivered again, no mail is sent again.
	if err := admin.Reset(t.Context(), consumers.MailConsumer, 0); err != nil {
		t.Fatal(err)
	}
	settledLag(t, store)
	if server.count() != 21 {
		t.Errorf("%d mails after everything was delivered again", server.count())
	}
	// A skip leaves a record that says why, sealed.
	until(t, "the poison again", func() bool { p, _ := admin.Parked(t.Context(), "", 0); return len(p) == 1 })
	if err := admin.Skip(t.Context(), consumers.MailConsumer, poison, "operator", "gone, says Bo"); err != nil {
		t.Fatal(err)
	}
	until(t, "nothing parked", func() bool { p, _ := admin.Parked(t.Context(), "", 0); return len(p) == 0 })
	events, err := store.ReadStream(t.Context(), consumers.StreamPrefix+consumers.MailConsumer, 0)
	if err != nil || len(events) != 1 || events[0].Type != consumers.TypeEventSkipped || bytes.Contains(events[0].Data, []byte("Bo")) {
		t.Fatalf("record of the skip: %+v, %v", events, err)
	}
	if err := store.Open(t.Context(), events); err != nil || !bytes.Contains(events[0].Personal, []byte("gone, says Bo")) {
		t.Errorf("the reason reads %q, %v", events[0].Personal, err)
	}
}

// mailsAreAsRecorded compares what the server has accepted with what is on
// record: what is recorded as sent is there, what is there is recorded as sent
// or as uncertain, and nothing is there twice.
func mailsAreAsRecorded(t *testing.T, store *eventstore.Store, server *mailServer) {
	t.Helper()
	server.mu.Lock()
	got := map[string]int{}
	for _, raw := range server.got {
		h, _, _, _ := parts(t, raw)
		id, _, _ := strings.Cut(strings.TrimPrefix(h.Get("Message-ID"), "<"), "@")
		got[id]++
	}
	server.mu.Unlock()
	rows, err := store.Pool().Query(t.Context(), `SELECT effect::text, state FROM consumer_effects WHERE consumer = 'mail'`)
	if err != nil {
		t.Fatal(err)
	}
	var effect, state string
	_, err = pgx.ForEachRow(rows, []any{&effect, &state}, func() error {
		n := got[effect]
		delete(got, effect)
		if n > 1 || state == "finished" && n != 1 || state == "started" {
			t.Errorf("mail %s is recorded as %s and was accepted %d times", effect, state, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range got {
		t.Errorf("mail %s was accepted and is not on record", id)
	}
}

// TestAMailServerThatHangsUpOrFallsSilent: before the dot nothing is in doubt
// and nothing is the mail's fault; over a lease that is lost the mailer hangs up
// by itself, so that the next holder need not wait for the server.
func TestAMailServerThatHangsUpOrFallsSilent(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	var calls atomic.Int32
	silent, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	server := &mailServer{beforeRcpt: func(conn net.Conn) {
		switch calls.Add(1) {
		case 1, 2:
			conn.Close() // without a reply
		case 3:
			close(silent)
			<-over
		}
	}}
	server.serve(t, "")
	person(t, store, "ada@example.test", initCode("AAA"))
	startMail(t, store, consumers.MailConfig{URL: server.url}, consumers.Config{Attempts: 1})
	select {
	case <-silent:
	case <-time.After(10 * time.Second):
		t.Fatal("after hanging up the server is not called again")
	}
	if _, err := store.Pool().Exec(t.Context(), `UPDATE consumer_ranges SET owner = NULL, token = token + 1, expires_at = '-infinity'`); err != nil {
		t.Fatal(err)
	}
	settledLag(t, store)
	admin := consumers.NewAdmin(store)
	parked, err := admin.Parked(t.Context(), consumers.MailConsumer, 0)
	if err != nil || len(parked) > 0 {
		t.Errorf("parked: %+v, %v", parked, err)
	}
	if uncertain, err := admin.UncertainMails(t.Context()); err != nil || len(uncertain) > 0 || server.count() != 1 {
		t.Errorf("%d mails, uncertain: %+v, %v", server.count(), uncertain, err)
	}
	mailsAreAsRecorded(t, store, server)
}

// TestMailsWhileLeasesAreLost: a consumer that loses its leases in the middle
// of handing mails over leaves none unsent without saying so.
func TestMailsWhileLeasesAreLost(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	server := &mailServer{}
	server.serve(t, "")
	for range 60 {
		person(t, store, "ada@example.test", initCode("AAA"))
	}
	taken := 0
	server.onData = func(net.Conn) error {
		if taken++; taken%7 == 0 { // under the server's lock: nobody else is served meanwhile
			if _, err := store.Pool().Exec(t.Context(), `UPDATE consumer_ranges SET owner = NULL, token = token + 1, expires_at = '-infinity'`); err != nil {
				return err
			}
			until(t, "the loss to be noticed", func() bool {
				var owned int
				err := store.Pool().QueryRow(t.Context(), `SELECT count(*) FROM consumer_ranges WHERE owner IS NOT NULL`).Scan(&owned)
				return err == nil && owned > 0
			})
		}
		return nil
	}
	startMail(t, store, consumers.MailConfig{URL: server.url}, consumers.Config{Attempts: 100, AsideAfter: time.Hour})
	settledLag(t, store)
	// What the former holder of a lease was handing over it brings to its end.
	admin := consumers.NewAdmin(store)
	until(t, "every mail, and none in doubt", func() bool {
		uncertain, err := admin.UncertainMails(t.Context())
		return err == nil && len(uncertain) == 0 && server.count() == 60
	})
	mailsAreAsRecorded(t, store, server)
}

// TestMailsInFiveLanguages: each has its own words in text and HTML, and a
// folder replaces any of the files.
func TestMailsInFiveLanguages(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	dir, own := filepath.Join(t.TempDir(), "mail"), t.TempDir()
	for name, content := range map[string]string{
		"fr.json": `{"init":{"subject":"À nous, {{.LoginName}}","title":"t","greeting":"g","text":"Texte à nous","button":"b","footer":"f"},
			"init_password":{"subject":"s"},"email":{"subject":"s"}}`,
		"mail.html.tmpl": `<p lang="{{.Language}}">{{.Text}} <b>{{.DisplayName}}</b> <a href="{{.Link}}">ours</a></p>`,
	} {
		if err := os.WriteFile(filepath.Join(own, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	words := map[string]string{"en": "login name", "de-AT": "Anmeldename", "fr-CH": "Texte à nous", "it": "accesso", "es-MX": "inicio de sesión", "ja": "login name"}
	of := map[string]string{}
	for lang := range words {
		id := ulid.Make().String()
		of[id] = lang
		appendAll(t, store, eventstore.Append{Stream: id, Org: "org1", Actor: "test", Expected: eventstore.NoStream, At: issued,
			Events: encode(domain.HumanAdded{UserName: "ada", Email: "ada@example.test",
				Profile: domain.Profile{DisplayName: "<Ada>", PreferredLanguage: lang}}, initCode("AAA"))})
	}
	startMail(t, store, consumers.MailConfig{Folder: dir, Templates: own}, consumers.Config{})
	settledLag(t, store)
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil || len(files) != len(words) {
		t.Fatal(files, err)
	}
	texts := map[string]bool{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, subject, text, html := parts(t, string(raw))
		for id, lang := range of {
			if !strings.Contains(text, id) {
				continue
			}
			want := strings.ToLower(lang[:2])
			if want == "ja" {
				want = "en"
			}
			if h.Get("Content-Language") != want || !strings.Contains(text, words[lang]) || !strings.Contains(html, words[lang]) {
				t.Errorf("%s is written to in %s:\n%s\n%s", lang, h.Get("Content-Language"), text, html)
			}
			if !strings.Contains(html, `<p lang="`+want+`">`) || !strings.Contains(html, "<b>&lt;Ada&gt;</b>") || strings.Contains(text, "&lt;") {
				t.Errorf("%s: the folder's HTML is not used, or not escaped:\n%s", lang, html)
			}
			if (want == "fr") != (subject == "À nous, ada") {
				t.Errorf("%s: subject %q", lang, subject)
			}
			texts[subject] = true
		}
	}
	if len(texts) != 5 {
		t.Errorf("subjects: %v", texts)
	}
	// What is broken is found at the start.
	if err := os.WriteFile(filepath.Join(own, "it.json"), []byte(`{"init":{"subject":"{{.Nonsense}}"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := consumers.NewMail(store, consumers.MailConfig{Folder: dir, Templates: own, Origin: "https://a.example"}); err == nil || !strings.Contains(err.Error(), "it.json") {
		t.Errorf("a broken file: %v", err)
	}
}

// TestMailsHaveARate: beyond it the consumer pauses, and parks nobody.
func TestMailsHaveARate(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	server := &mailServer{}
	server.serve(t, "")
	for range 3 {
		person(t, store, "ada@example.test", initCode("AAA"))
	}
	var log logtest.Log
	startMail(t, store, consumers.MailConfig{URL: server.url, PerSecond: 0.0001},
		consumers.Config{Attempts: 1, HandlerTimeout: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))})
	until(t, "one mail, and a pause", func() bool { return server.count() >= 1 && strings.Contains(log.String(), "class=rate_limit") })
	if p, err := consumers.NewAdmin(store).Parked(t.Context(), "", 0); err != nil || len(p) > 0 || server.count() != 1 {
		t.Errorf("%d mails, parked: %v, %v", server.count(), p, err)
	}
}

func TestADoubtfulMailIsNotSentTwice(t *testing.T) {
	store := openStore(t)
	server := &mailServer{}
	server.serve(t, "")
	cut := errors.New("cut")
	server.onData = func(conn net.Conn) error {
		server.got = append(server.got, "accepted, but nobody was told")
		conn.Close()
		return cut
	}
	doubtful := person(t, store, "ada@example.test", initCode("AAA"))
	_, stop := startMail(t, store, consumers.MailConfig{URL: server.url}, consumers.Config{})
	settledLag(t, store)
	admin := consumers.NewAdmin(store)
	if err := admin.Reset(t.Context(), consumers.MailConsumer, 0); err != nil {
		t.Fatal(err)
	}
	settledLag(t, store)
	uncertain, err := admin.UncertainMails(t.Context())
	if err != nil || len(uncertain) != 1 || uncertain[0].Stream != doubtful {
		t.Errorf("uncertain: %+v, %v", uncertain, err)
	}
	if server.count() != 1 {
		t.Errorf("sent %d times", server.count())
	}
	// The stream is not held up: the next code is mailed.
	server.mu.Lock()
	server.onData = nil
	server.mu.Unlock()
	next := sent("BBB")
	next.Issued = now()
	appendAll(t, store, eventstore.Append{Stream: doubtful, Org: "org 1", Actor: "test", Expected: eventstore.Any, At: now(),
		Events: encode(domain.InitializationCodeAdded{SentCode: next})})
	until(t, "the next code", func() bool { return server.count() == 2 })

	// A process that died between writing down that it starts and that it
	// finished is in the same doubt.
	died := person(t, store, "died@example.test")
	appendAll(t, store, eventstore.Append{Stream: died, Org: "org 1", Actor: "test", Expected: eventstore.Any, At: now(),
		Events: encode(domain.EmailCodeAdded{SentCode: domain.SentCode{Secret: "CCC", Lifetime: time.Hour, Issued: issued, Silent: true}})})
	stop()
	appendAll(t, store, eventstore.Append{Stream: died, Org: "org 1", Actor: "test", Expected: eventstore.Any, At: now(), Events: encode(initCode("DDD"))})
	events, err := store.ReadStream(t.Context(), died, 2)
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	_, err = store.Pool().Exec(t.Context(), `INSERT INTO consumer_effects (consumer, effect, state, stream) VALUES ('mail', $1, 'started', $2)`,
		consumers.EffectID(consumers.MailConsumer, events[0].ID, 0), died)
	if err != nil {
		t.Fatal(err)
	}
	startMail(t, store, consumers.MailConfig{URL: server.url}, consumers.Config{})
	settledLag(t, store)
	if uncertain, err = admin.UncertainMails(t.Context()); err != nil || len(uncertain) != 2 || server.count() != 2 {
		t.Errorf("%d uncertain, %v, %d mails", len(uncertain), err, server.count())
	}
}
