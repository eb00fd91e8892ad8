// Package signin is what a person does to get in: completing an account with
// the code of a mail, registering a passkey with the code of a link, and
// logging in with a password, a second factor or a passkey.
//
// Every step takes the same way: the user's state is read fresh from the log,
// the domain decides, and the decision is appended with the sequence that it
// was judged by. Somebody who was faster makes it be decided anew. So limits
// hold over all instances of the service: a wrong guess is an event, and is
// counted before its answer goes out.
//
// Nothing here is kept in memory between two calls. A passkey's ceremony is
// handed to the browser sealed (see sealed.go); sessions are rows of a table.
package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
	"github.com/muster-id/muster/handlers/access"
)

// Actor is who a person's own steps are by, in the log. It is nobody's token.
const Actor = eventstore.SystemPrefix + "signin"

// Config is what a Service is made of. Fields without a default are required.
type Config struct {
	Store *eventstore.Store
	// Policy is what new passwords have to meet.
	Policy domain.Policy
	// Passwords verifies and hashes, a bounded number at a time. It is to be
	// the login's own, so that an import cannot keep people out.
	Passwords *password.Pool
	// Secrets finds the project's secret that a hash refers to. Default: none.
	Secrets func(ctx context.Context, ref string) (password.Secrets, error)
	// OldSystems asks for the passwords of users who came without. Default:
	// nobody is asked.
	OldSystems *OldSystems
	// PublicURL is where people reach the service, such as
	// "https://id.example.org". It decides which passkeys are good. Empty:
	// each call's own origin.
	PublicURL string
	// Lockout is the number of failed checks of one kind in a row that lock a
	// user; 0: never.
	Lockout int
	// Lifetime is how long a session is good for. Default 24 h.
	Lifetime time.Duration
	// Now is the clock. Default: the system's.
	Now func() time.Time
	// Rand gives codes and tokens. Default: crypto/rand.
	Rand io.Reader
	// Log never gets a secret or a person's data. Default: nothing.
	Log *slog.Logger
}

// Service is the application service. It is safe for concurrent use.
type Service struct {
	cfg Config
	// box seals what a browser keeps between two steps.
	box *box
	// handles is the key of passkeys' user handles.
	handles []byte
	// dummy is a hash that nobody knows the password of, made once: checking
	// it costs what checking a real one does.
	dummy func() (string, error)
	// later owns what is done behind an answer: hashing passwords anew.
	later *later
}

// The failures of this room beside the domain's.
var (
	ErrBusy            = domain.NewError(domain.KindAborted, "MUSTER-busy", "User is being changed by others, try again")
	ErrPasswordMissing = domain.NewError(domain.KindInvalidArgument, "MUSTER-nopassword", "A password is needed").OnField("password")
	ErrResendSoon      = domain.NewError(domain.KindResourceExhausted, "MUSTER-resend", "A mail was sent a moment ago, try again later")
	ErrResendRefused   = domain.NewError(domain.KindResourceExhausted, "MUSTER-resendlimit", "Too many wrong codes, ask who runs this service for a new one")
	ErrPasskeyOrigin   = domain.NewError(domain.KindFailedPrecondition, "MUSTER-origin", "Passkeys work under a host name with https, or under localhost")
	ErrPasskeyRefused  = domain.NewError(domain.KindInvalidArgument, "MUSTER-passkeyrefused", "Passkey was not accepted, begin again")
	ErrPasskeyKnown    = domain.NewError(domain.KindAlreadyExists, "MUSTER-passkeyknown", "Passkey is registered already")
	ErrCeremony        = domain.NewError(domain.KindFailedPrecondition, "MUSTER-ceremony", "Took too long, begin again")
)

// New returns a Service. Close ends what it does behind answers.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Lifetime <= 0 {
		cfg.Lifetime = 24 * time.Hour
	}
	cfg.PublicURL = strings.TrimRight(cfg.PublicURL, "/")
	box, err := newBox(cfg.Store.Keys().Derive("signin: what a browser keeps"), cfg.Rand)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, box: box, handles: cfg.Store.Keys().Derive("signin: passkeys' user handles")}
	s.dummy = sync.OnceValues(func() (string, error) {
		var secret [32]byte
		if _, err := io.ReadFull(cfg.Rand, secret[:]); err != nil {
			return "", err
		}
		return password.Hash(cfg.Rand, text64(secret[:]))
	})
	s.later = newLater()
	return s, nil
}

// Close waits until what was begun behind answers is done, or ctx ends. Calls
// that come later do nothing behind their answers.
func (s *Service) Close(ctx context.Context) error { return s.later.close(ctx) }

// Policy is what new passwords have to meet, for pages that show the rules.
func (s *Service) Policy() domain.Policy { return s.cfg.Policy }

// Person is what is known of a user, for the page that the user looks at.
type Person struct {
	ID, Org string
	// UserName is what the person logs in with.
	UserName string
	// DisplayName, PreferredLanguage and Email are as imported.
	DisplayName, PreferredLanguage, Email string
	EmailVerified                         bool
	// State is active for everybody who got as far as being shown.
	State domain.State
	// HasPassword and HasTOTP say which factors there are beside Passkeys, the
	// names of the passkeys. A password that the old system knows counts.
	HasPassword, HasTOTP bool
	Passkeys             []string
	// ChangeRequired says that a new password has to be set first.
	ChangeRequired bool
}

func personOf(u *domain.User) Person {
	p := Person{
		ID: u.ID, Org: u.Org, UserName: u.UserName, DisplayName: u.Profile.DisplayName,
		PreferredLanguage: u.Profile.PreferredLanguage, Email: u.Email, EmailVerified: u.EmailVerified,
		State: u.State, HasPassword: u.HasPassword || u.OldSystem != "", HasTOTP: u.HasTOTP,
	}
	p.ChangeRequired = p.HasPassword && u.ChangeRequired
	for _, k := range u.Passkeys {
		p.Passkeys = append(p.Passkeys, k.Name)
	}
	return p
}

// load reads a user's state from the log; a user who is not there is one that
// does not exist.
func (s *Service) load(ctx context.Context, id string) (*domain.User, error) {
	u := domain.NewUser(id, "")
	if id == "" || strings.HasPrefix(id, eventstore.SystemPrefix) {
		return u, nil
	}
	events, err := s.cfg.Store.ReadStream(ctx, id, 0)
	if err != nil || len(events) == 0 {
		return u, err
	}
	if err := s.cfg.Store.Open(ctx, events); err != nil {
		return nil, err
	}
	u.Org = events[0].Org
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			return nil, err
		}
		u.Apply(fact)
	}
	return u, nil
}

// attempts bounds how often a step is decided anew because somebody was
// faster. Wrong guesses at one user's password that come in at once are such.
const attempts = 10

// change loads a user, lets decide judge, and appends what it decided. A
// decision that comes with an error is appended first: it is what counts the
// failure. The user that is returned has the decision applied.
func (s *Service) change(ctx context.Context, id string, decide func(u *domain.User, at time.Time) (domain.Decision, error)) (*domain.User, error) {
	for range attempts {
		u, err := s.load(ctx, id)
		if err != nil {
			return nil, err
		}
		err = s.append(ctx, u, decide)
		if faster := (*eventstore.SequenceError)(nil); errors.As(err, &faster) {
			continue
		}
		return u, err
	}
	return nil, ErrBusy
}

// append takes one decision about u and appends it.
func (s *Service) append(ctx context.Context, u *domain.User, decide func(u *domain.User, at time.Time) (domain.Decision, error)) error {
	at := s.cfg.Now()
	d, verdict := decide(u, at)
	if len(d.Events) == 0 {
		return verdict
	}
	if _, err := s.cfg.Store.Append(ctx, access.NewAppend(d, Actor, at)); err != nil {
		return err
	}
	for _, e := range d.Events {
		u.Apply(e)
	}
	return verdict
}
