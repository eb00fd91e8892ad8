package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	gomail "github.com/wneessen/go-mail"
	"golang.org/x/time/rate"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// MailConsumer is the name under which the mail handler is meant to be
// subscribed: effect ids, and with them Message-IDs, depend on it.
const MailConsumer = "mail"

// MailConfig says how mails are made and sent.
type MailConfig struct {
	// URL is the server to send through:
	//
	//	smtp://user:password@host:587      STARTTLS when the server offers it
	//	starttls://user:password@host:587  STARTTLS or nothing
	//	smtps://user:password@host:465     TLS from the first byte
	//
	// with the optional parameter from=address, or from=Name <address>,
	// percent-encoded. Empty: mails become files in Folder.
	URL string
	// Folder receives a file for each mail, named after its effect id, in the
	// form that mail programs open (.eml), readable by the owner only.
	Folder string
	// Origin is the scheme and host that links begin with.
	Origin string
	// Templates is a folder with files that replace the built-in ones of the
	// same name: mail.html.tmpl, mail.txt.tmpl, en.json, de.json, …; empty for
	// none.
	Templates string
	// PerSecond bounds the mails that this process sends. Default 20.
	PerSecond float64
	// Now is the clock that expiry is judged by and that mails are dated with.
	Now func() time.Time
	Log *slog.Logger
}

// Mail is the consumer that mails initialization and e-mail codes. Handle is an
// ordinary Watermill handler; Subscription is how to subscribe for it.
//
// Nothing is mailed for a code that is silent (bulk import), expired, used up,
// or replaced by a newer one, nor to a user who is gone.
//
// # One mail per effect
//
// The Message-ID is the effect id, so a mail is recognisable. Through SMTP, at
// most one mail is sent per effect id whatever crashes on our side: the effect
// is written down as started after the server has accepted sender, recipient
// and text, immediately before the final dot that hands the mail over, and as
// finished after the server's confirmation. Whatever fails before the dot, or
// is refused after it, was not sent and is tried again. What remains: when the
// process, the connection or the server dies between the dot and the
// confirmation, nobody can know. Such an effect becomes uncertain, is counted
// and listed, and is not tried again; the user's next code is mailed as usual
// (_resend_initialization). A server that loses a mail after confirming it, or
// delivers it twice, is beyond this.
//
// Files are written whole and renamed, under a name that is the effect id:
// exactly one per effect, whatever crashes.
type Mail struct {
	store     *eventstore.Store
	cfg       MailConfig
	transport transport
	from      string // of the header: "Name <address>"
	sender    string // of the envelope
	domain    string // of Message-IDs
	limit     *rate.Limiter
	templates *templates

	sent, skipped, uncertain atomic.Int64
}

// transport hands one mail over. It calls handover immediately before the point
// from which on the mail may reach somebody, and gives up when that fails.
type transport interface {
	send(ctx context.Context, id uuid.UUID, from, to string, msg *gomail.Msg, handover func() error) error
	// once reports whether sending the same mail again is harmless.
	repeatable() bool
	close()
}

// NewMail makes the handler. It opens no connection yet.
func NewMail(store *eventstore.Store, cfg MailConfig) (*Mail, error) {
	if cfg.PerSecond <= 0 {
		cfg.PerSecond = 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Origin = strings.TrimRight(cfg.Origin, "/")
	origin, err := url.Parse(cfg.Origin)
	if err != nil || origin.Host == "" {
		return nil, errors.New("consumers: the public URL must have a scheme and a host")
	}
	m := &Mail{store: store, cfg: cfg, domain: origin.Hostname(), limit: rate.NewLimiter(rate.Limit(cfg.PerSecond), max(1, int(cfg.PerSecond)))}
	m.from = "Muster <noreply@" + m.domain + ">"
	if cfg.URL != "" {
		var from string
		if m.transport, from, err = newSMTP(cfg.URL); from != "" {
			m.from = from
		}
	} else {
		m.transport, err = newFolder(cfg.Folder)
	}
	if err != nil {
		return nil, err
	}
	sender, err := netmail.ParseAddress(m.from)
	if err != nil {
		return nil, errors.New("consumers: the mail's sender is not an address")
	}
	m.sender = sender.Address
	m.templates, err = loadTemplates(cfg.Templates)
	return m, err
}

// Subscription returns base with what the handler needs: the events it knows,
// opened, few at once, and retries over about an hour before a stream is
// parked. What base sets itself is kept.
func (m *Mail) Subscription(base Config) Config {
	base.Types = []string{domain.InitializationCodeAdded{}.Type(), domain.EmailCodeAdded{}.Type()}
	base.OpenSealed = true
	if base.InFlight == 0 {
		base.InFlight = 8
	}
	if base.Attempts == 0 {
		base.Attempts = 12
	}
	if base.HandlerTimeout == 0 {
		base.HandlerTimeout = 2 * time.Minute
	}
	if base.Backoff == nil {
		_ = base.setDefaults() // for Rand; its error comes again in NewSubscriber
		base.Backoff = Exponential(time.Second, 10*time.Minute, base.Rand)
	}
	return base
}

// Close ends idle connections.
func (m *Mail) Close() { m.transport.close() }

// Handle mails the code of one event, or decides that nothing is to be mailed.
func (m *Mail) Handle(msg *message.Message) error {
	ctx := msg.Context()
	de, ev, err := EventOf(msg)
	if err != nil {
		return &Failure{Class: ClassUndecodable, Permanent: true}
	}
	effect, err := uuid.Parse(msg.UUID)
	if err != nil {
		return &Failure{Class: ClassUndecodable, Permanent: true}
	}
	var code domain.SentCode
	var urlTemplate string
	switch e := de.(type) {
	case domain.InitializationCodeAdded:
		code = e.SentCode
	case domain.EmailCodeAdded:
		code, urlTemplate = e.SentCode, e.URLTemplate
	default:
		return nil
	}
	if code.Silent || code.Secret == "" || code.Expired(m.cfg.Now()) {
		m.skipped.Add(1)
		return nil
	}
	if done, err := m.settled(ctx, effect); done || err != nil {
		return err
	}
	u, err := m.user(ctx, ev)
	if err != nil {
		return err
	}
	kind := mailKind(u, de, code)
	if kind == "" {
		m.skipped.Add(1)
		return nil
	}
	if err := m.limit.Wait(ctx); err != nil {
		return &Failure{Class: "rate_limit", Outage: true, Err: err}
	}
	mail, err := m.compose(effect, kind, u, code, urlTemplate)
	if err != nil {
		return err
	}
	err = m.transport.send(ctx, effect, m.sender, u.Email, mail, func() error { return m.start(ctx, effect, ev.Stream) })
	return m.conclude(ctx, effect, ev, err)
}

// user folds the stream as it is now, opened.
func (m *Mail) user(ctx context.Context, ev eventstore.Event) (*domain.User, error) {
	events, err := m.store.ReadStream(ctx, ev.Stream, 0)
	if err == nil {
		err = m.store.Open(ctx, events)
	}
	if err != nil {
		return nil, &Failure{Class: "database", Outage: true, Err: err}
	}
	u := &domain.User{ID: ev.Stream, Org: ev.Org}
	for _, e := range events {
		if e.Erased {
			return &domain.User{}, nil
		}
		de, err := decodeDomain(e)
		if err != nil {
			return nil, &Failure{Class: ClassUndecodable, Permanent: true}
		}
		u.Apply(de)
	}
	return u, nil
}

// The kinds of mails; they are keys in the files of texts.
const (
	kindInit     = "init"          // prove the address, choose a password if there is none
	kindPassword = "init_password" // the address is verified: choose a password only
	kindEmail    = "email"         // prove the address
)

// mailKind tells which mail a code is for; "" when it is not pending any more.
func mailKind(u *domain.User, e domain.Event, code domain.SentCode) string {
	if !u.Exists() || u.Erased || u.Email == "" {
		return ""
	}
	pending := func(c *domain.PendingCode) bool {
		return c != nil && c.Secret == code.Secret && c.Issued.Equal(code.Issued)
	}
	switch e.(type) {
	case domain.InitializationCodeAdded:
		switch {
		case !pending(u.InitCode):
			return ""
		case u.EmailVerified && !u.HasPassword:
			return kindPassword
		}
		return kindInit
	case domain.EmailCodeAdded:
		if pending(u.EmailCode) && !u.EmailVerified {
			return kindEmail
		}
	}
	return ""
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// link is where the mail's button leads. Every value is percent-encoded.
func (m *Mail) link(kind string, u *domain.User, secret, template string) string {
	if template != "" {
		return strings.NewReplacer(
			"{{.UserID}}", escape(u.ID), "{{.Code}}", escape(secret), "{{.OrgID}}", escape(u.Org), "{{.LoginName}}", escape(u.UserName),
		).Replace(template)
	}
	if kind == kindEmail {
		return fmt.Sprintf("%s/ui/login/mail/verification?userID=%s&code=%s&orgID=%s&authRequestID=",
			m.cfg.Origin, escape(u.ID), escape(secret), escape(u.Org))
	}
	return fmt.Sprintf("%s/ui/login/user/init?userID=%s&loginname=%s&code=%s&orgID=%s&passwordset=%t&authRequestID=",
		m.cfg.Origin, escape(u.ID), escape(u.UserName), escape(secret), escape(u.Org), u.HasPassword || u.OldSystem != "")
}

func (m *Mail) compose(effect uuid.UUID, kind string, u *domain.User, code domain.SentCode, urlTemplate string) (*gomail.Msg, error) {
	parts, err := m.templates.render(u.Profile.PreferredLanguage, kind, values{
		DisplayName: u.Profile.DisplayName, LoginName: u.UserName, Code: code.Secret,
		Link:  m.link(kind, u, code.Secret, urlTemplate),
		Hours: max(1, int(code.Lifetime.Round(time.Hour)/time.Hour)),
	})
	if err != nil {
		return nil, &Failure{Class: "template", Err: errors.New("a mail template cannot be filled in")}
	}
	msg := gomail.NewMsg()
	if err := msg.From(m.from); err != nil {
		return nil, &Failure{Class: "sender_invalid", Outage: true}
	}
	if err := msg.AddToFormat(u.Profile.DisplayName, u.Email); err != nil {
		return nil, &Failure{Class: "address_invalid", Permanent: true}
	}
	msg.Subject(parts.subject)
	msg.SetMessageIDWithValue(effect.String() + "@" + m.domain)
	msg.SetDateWithValue(m.cfg.Now())
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("Content-Language", parts.language)
	msg.SetBodyString(gomail.TypeTextPlain, parts.text)
	msg.AddAlternativeString(gomail.TypeTextHTML, parts.html)
	return msg, nil
}

// settled reports whether nothing may be sent for an effect any more.
func (m *Mail) settled(ctx context.Context, effect uuid.UUID) (bool, error) {
	var state string
	err := m.store.Pool().QueryRow(ctx, `SELECT state FROM consumer_effects WHERE consumer = $1 AND effect = $2`, MailConsumer, effect).Scan(&state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, &Failure{Class: "database", Outage: true, Err: err}
	case state == "started" && m.transport.repeatable():
		return false, nil
	case state == "started":
		return true, m.doubt(ctx, effect)
	}
	return true, nil
}

// errInHand says that somebody else is handing the same mail over.
var errInHand = errors.New("another attempt is handing this mail over")

// start writes down that the mail is about to be handed over. It outlives the
// message's context: a record of which it is not known whether it was made is
// a mail in doubt.
func (m *Mail) start(ctx context.Context, effect uuid.UUID, stream string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	tag, err := m.store.Pool().Exec(ctx, `
		INSERT INTO consumer_effects (consumer, effect, state, stream) VALUES ($1, $2, 'started', $3)
		ON CONFLICT (consumer, effect) DO NOTHING`, MailConsumer, effect, stream)
	if err == nil && tag.RowsAffected() == 0 && !m.transport.repeatable() {
		err = errInHand
	}
	return err
}

// uncertainError wraps a transport's error after the point of no return.
type uncertainError struct{ err error }

func (e *uncertainError) Error() string { return "the mail may or may not have been accepted" }
func (e *uncertainError) Unwrap() error { return e.err }

// conclude writes down how sending ended. It outlives the message's context:
// what has happened has happened.
func (m *Mail) conclude(ctx context.Context, effect uuid.UUID, ev eventstore.Event, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	pool := m.store.Pool()
	var uncertain *uncertainError
	switch {
	case err == nil:
		m.sent.Add(1)
		_, err := pool.Exec(ctx, `UPDATE consumer_effects SET state = 'finished', finished_at = now() WHERE consumer = $1 AND effect = $2`, MailConsumer, effect)
		if err != nil {
			// It comes again, and is then uncertain instead of finished: that
			// is still not a second mail.
			return &Failure{Class: "database", Outage: true, Err: err}
		}
		return nil
	case errors.As(err, &uncertain):
		return m.doubt(ctx, effect)
	case errors.Is(err, errInHand):
		return &Failure{Class: "in_hand", Err: errInHand}
	}
	// Not sent, for certain: the effect is free again.
	if _, derr := pool.Exec(ctx, `DELETE FROM consumer_effects WHERE consumer = $1 AND effect = $2 AND state = 'started'`, MailConsumer, effect); derr != nil {
		m.cfg.Log.Warn("a mail that was not sent stays on record as started", "position", ev.Position, "err", derr)
	}
	return err
}

// doubt writes down that an effect may or may not have happened.
func (m *Mail) doubt(ctx context.Context, effect uuid.UUID) error {
	_, err := m.store.Pool().Exec(ctx, `UPDATE consumer_effects SET state = 'uncertain' WHERE consumer = $1 AND effect = $2 AND state = 'started'`, MailConsumer, effect)
	if err != nil {
		return &Failure{Class: "database", Outage: true, Err: err}
	}
	m.uncertain.Add(1)
	m.cfg.Log.Warn("a mail may or may not have been sent; it is not sent again", "effect", effect)
	return nil
}

// UncertainMail is a mail of which nobody knows whether it was sent.
type UncertainMail struct {
	// Effect is the mail's Message-ID before the "@".
	Effect uuid.UUID
	// Stream is the user's id.
	Stream string
	At     time.Time
}

// UncertainMails returns the mails that may or may not have been sent, oldest
// first, at most 1000.
func (a *Admin) UncertainMails(ctx context.Context) ([]UncertainMail, error) {
	rows, err := a.store.Pool().Query(ctx, `
		SELECT effect, stream, started_at FROM consumer_effects
		WHERE consumer = $1 AND state = 'uncertain' ORDER BY started_at LIMIT 1000`, MailConsumer)
	if err != nil {
		return nil, fmt.Errorf("consumers: uncertain mails: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (u UncertainMail, err error) {
		return u, row.Scan(&u.Effect, &u.Stream, &u.At)
	})
}
