package pages_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http"
	netmail "net/mail"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/emersion/go-smtp"

	"github.com/muster-id/muster/consumers"
	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/importer"
	"github.com/muster-id/muster/internal/logtest"
	"github.com/muster-id/muster/internal/servicetest"
)

const (
	adminToken = servicetest.AdminToken
	goodPlain  = "Correct-horse-7"
	orgName    = "Nordlicht Books"
	lockout    = 3
)

// site is the whole service on a real port, with a mail server beside it.
type site struct {
	t     testing.TB
	url   string // http://localhost:port, as people see it
	deps  handlers.Deps
	store *eventstore.Store
	log   *logtest.Log
	mails *mailbox
}

// start runs a service. change may adjust what it is made of.
func start(t testing.TB, change func(*handlers.Deps)) *site {
	t.Helper()
	ctx := context.Background()
	s := &site{t: t, log: &logtest.Log{}, store: servicetest.Store(t), mails: &mailbox{}}
	l := servicetest.Listen(t)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://localhost:" + port

	orgs := access.NewOrganisations(s.store, time.Now)
	for id, name := range map[string]string{"org-1": orgName, "org-2": "Second & <b>Sons</b>"} {
		if _, err := orgs.Create(ctx, id, name, access.AdminID); err != nil {
			t.Fatal(err)
		}
	}
	log := s.log.Logger()
	service, err := signin.New(signin.Config{
		Store: s.store, Policy: domain.DefaultPolicy(), Passwords: password.NewPool(2, rand.Reader), Lockout: lockout, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := service.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	s.deps = handlers.Deps{
		Store: s.store, Tokens: access.NewTokens(s.store.Pool(), adminToken, "org-1", time.Now), Organisations: orgs,
		Importer: s.importer(time.Now), SignIn: service, DefaultOrg: "org-1", Log: log,
	}
	if change != nil {
		change(&s.deps)
	}
	servicetest.Serve(t, l, s.deps, make(chan struct{}))
	return s
}

func (s *site) importer(now func() time.Time) *importer.Importer {
	return &importer.Importer{Store: s.store, Passwords: password.NewPool(2, rand.Reader), Policy: domain.DefaultPolicy(), Now: now, Rand: rand.Reader}
}

// serveMails starts the mail consumer, with a mail server to send through.
func (s *site) serveMails() {
	s.t.Helper()
	s.mails.serve(s.t)
	mail, err := consumers.NewMail(s.store, consumers.MailConfig{URL: s.mails.url, Origin: s.url})
	if err != nil {
		s.t.Fatal(err)
	}
	subscriber, err := consumers.NewSubscriber(s.store, mail.Subscription(consumers.Config{Flush: 20 * time.Millisecond}))
	if err != nil {
		s.t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		s.t.Fatal(err)
	}
	router.AddMiddleware(consumers.Classify)
	router.AddConsumerHandler("mail", consumers.MailConsumer, subscriber, mail.Handle)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); router.Run(ctx) }()
	s.t.Cleanup(func() { stop(); router.Close(); <-ran; mail.Close() })
}

var count atomic.Int64

// person is somebody who was imported.
type person struct {
	id, name, email string
	passkey         string // the link, when one was asked for
}

// person imports somebody, as of some time ago; change may adjust the command.
func (s *site) personAt(ago time.Duration, change func(*domain.ImportHuman)) person {
	s.t.Helper()
	name := fmt.Sprintf("ada.lind%d", count.Add(1))
	cmd := domain.ImportHuman{UserName: name, Profile: domain.Profile{FirstName: "Ada", LastName: "Lind", PreferredLanguage: "en"},
		Email: domain.Email{Address: name + "@example.org"}}
	if change != nil {
		change(&cmd)
	}
	out, err := s.importer(func() time.Time { return time.Now().Add(-ago) }).Import(context.Background(), importer.Caller{ID: "test", Org: "org-1"}, cmd, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	p := person{id: out.Result.Stream, name: cmd.UserName, email: cmd.Email.Address}
	if out.Passkey != nil {
		p.passkey = domain.PasskeyLink(s.url, p.id, "org-1", *out.Passkey)
	}
	return p
}

func (s *site) person(change func(*domain.ImportHuman)) person {
	s.t.Helper()
	return s.personAt(0, change)
}

// user is a person's state in the log.
func (s *site) user(p person) *domain.User {
	s.t.Helper()
	events, err := s.store.ReadStream(context.Background(), p.id, 0)
	if err == nil {
		err = s.store.Open(context.Background(), events)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	u := domain.NewUser(p.id, "org-1")
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			s.t.Fatal(err)
		}
		u.Apply(fact)
	}
	return u
}

// initLink is the link that a person's mail holds.
func (s *site) initLink(p person) string {
	s.t.Helper()
	u := s.user(p)
	if u.InitCode == nil {
		s.t.Fatalf("%s has no initialization code", p.name)
	}
	return s.initLinkWith(p, u.InitCode.Secret, u.HasPassword)
}

func (s *site) initLinkWith(p person, code string, passwordSet bool) string {
	return fmt.Sprintf("%s/ui/login/user/init?userID=%s&loginname=%s&code=%s&orgID=org-1&passwordset=%t&authRequestID=",
		s.url, p.id, url.QueryEscape(p.name), code, passwordSet)
}

// mailLink is the link of the mail that asks whether the address is a person's.
func (s *site) mailLink(p person) string {
	s.t.Helper()
	u := s.user(p)
	if u.EmailCode == nil {
		s.t.Fatalf("%s has no e-mail code", p.name)
	}
	return fmt.Sprintf("%s/ui/login/mail/verification?userID=%s&code=%s&orgID=org-1&authRequestID=", s.url, p.id, u.EmailCode.Secret)
}

// lock locks a person, as an administrator does.
func (s *site) lock(p person) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.url+"/management/v1/users/"+p.id+"/_lock", strings.NewReader("{}"))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		s.t.Fatalf("locking: %s", res.Status)
	}
}

func withPassword(c *domain.ImportHuman) { c.Email.Verified, c.Password = true, goodPlain }
func withPasskeyLink(c *domain.ImportHuman) {
	c.Email.Verified, c.RequestPasskey = true, true
}

func withIDP(c *domain.ImportHuman) {
	c.IDPLinks = []domain.IDPLink{{ConfigID: "idp-1", ExternalUserID: c.UserName, DisplayName: "Ada"}}
}

const totpSecret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

func withTOTP(c *domain.ImportHuman) { withPassword(c); c.TOTPSecret = totpSecret }

// totp is what an authenticator app shows, some steps of 30 seconds from now.
func totp(t testing.TB, steps int64) string {
	t.Helper()
	key, err := base32.StdEncoding.DecodeString(totpSecret)
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha1.New, key)
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()/30+steps)))
	sum := m.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1_000_000)
}

// mailbox is an SMTP server that keeps what it accepts.
type mailbox struct {
	url string
	mu  sync.Mutex
	got []string
}

func (m *mailbox) serve(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return mailSession{m}, nil }))
	server.Domain = "mail.test"
	server.ErrorLog = quiet{}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	m.url = "smtp://" + l.Addr().String()
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

type mailSession struct{ m *mailbox }

func (mailSession) Reset()                               {}
func (mailSession) Logout() error                        { return nil }
func (mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.got = append(s.m.got, string(b))
	return nil
}

// to returns the mails to an address, oldest first.
func (m *mailbox) to(address string) (mails []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, raw := range m.got {
		if head, err := netmail.ReadMessage(strings.NewReader(raw)); err == nil && strings.Contains(head.Header.Get("To"), address) {
			mails = append(mails, raw)
		}
	}
	return mails
}

var linkInMail = regexp.MustCompile(`http://localhost:\d+/ui/\S+`)

// link waits for the n-th mail to an address and returns the link in it.
func (m *mailbox) link(t testing.TB, address string, n int) string {
	t.Helper()
	var mails []string
	until(t, fmt.Sprintf("mail %d to %s", n, address), func() bool { mails = m.to(address); return len(mails) >= n })
	text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(mails[n-1])))
	if err != nil {
		t.Fatal(err)
	}
	link := linkInMail.FindString(string(text))
	if link == "" {
		t.Fatalf("no link in %s", text)
	}
	return link
}

// until polls until ok holds.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}
