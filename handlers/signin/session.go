package signin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed" // the statements
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
)

var (
	//go:embed sql/insert.sql
	insertSession string
	//go:embed sql/update.sql
	updateSession string
)

// TokenPrefix begins every session's token, so that scanners of repositories
// and logs recognise one that leaked.
const TokenPrefix = "mss_"

// MaxLifetime is the longest that a session can be good for.
const MaxLifetime = 90 * 24 * time.Hour

// The failures of sessions.
var (
	ErrSessionMissing = domain.NewError(domain.KindNotFound, "QUERY-SFeaa", "Session does not exist")
	ErrSessionToken   = domain.NewError(domain.KindPermissionDenied, "COMMAND-sGr42", "Session token is invalid")
	ErrSessionChanged = domain.NewError(domain.KindAborted, "MUSTER-session", "Session is being changed by another request, try again")
	ErrUserCheck      = domain.NewError(domain.KindFailedPrecondition, "MUSTER-usercheck", "The user has to be checked first")
	ErrUserOther      = domain.NewError(domain.KindInvalidArgument, "COMMAND-Sfw3f", "The session's user cannot be changed")
	ErrUserMissing    = domain.NewError(domain.KindNotFound, "COMMAND-Sfw3r", "User could not be found")
	ErrNoChallenge    = domain.NewError(domain.KindFailedPrecondition, "COMMAND-Ioqu5", "No passkey challenge is pending")
	ErrNoPasskey      = domain.NewError(domain.KindFailedPrecondition, "MUSTER-nopasskey", "User has no passkey here")
	ErrLifetime       = domain.NewError(domain.KindInvalidArgument, "MUSTER-lifetime", "Lifetime must be more than nothing and at most 90 days")
	ErrFirst          = domain.NewError(domain.KindFailedPrecondition, "MUSTER-steps", "Other checks come first")
)

// Session is what a login has come to. Times are UTC; zero ones did not happen.
type Session struct {
	ID, Org, Creator string
	Sequence         int64
	// Person is who it belongs to, as of now; the zero Person before the user
	// has been checked.
	Person Person
	// When the user was named, and when each check was last passed.
	UserAt, PasswordAt, TOTPAt, PasskeyAt time.Time
	// PasskeyVerified says that the passkey's authenticator has verified the
	// person, which makes it two factors in one.
	PasskeyVerified           bool
	Created, Changed, Expires time.Time

	tokenHash []byte
	challenge string
}

// Step is what a session still wants before the person is in.
type Step string

// The steps, in their order.
const (
	StepUser     Step = "user"     // who it is
	StepPassword Step = "password" // a password, or a passkey
	StepTOTP     Step = "totp"     // the second factor
	StepChange   Step = "change"   // a new password, see ChangePassword
	StepDone     Step = "done"
)

// Next is the next step that the person has to take. A passkey that verified
// the person needs no second factor, and nobody who came with one has to
// change a password.
func (s Session) Next() Step {
	passkey := !s.PasskeyAt.IsZero() && s.PasskeyVerified
	switch {
	case s.Person.ID == "":
		return StepUser
	case passkey:
		return StepDone
	case s.PasswordAt.IsZero():
		return StepPassword
	case s.Person.HasTOTP && s.TOTPAt.IsZero() && s.PasskeyAt.IsZero():
		return StepTOTP
	case s.Person.ChangeRequired:
		return StepChange
	}
	return StepDone
}

// Checks are what a session is asked to check; nil is nothing. They are made in
// this order, and the first that fails ends the call: the session stays as it
// was, or is not made. What failed, and what passed before it, is in the user's
// stream all the same.
type Checks struct {
	// UserID or LoginName says who it is.
	UserID, LoginName *string
	Password          *string
	// Passkey is the browser's AuthenticationResponseJSON to the session's
	// challenge.
	Passkey []byte
	TOTP    *string
}

// Challenge asks for a passkey ceremony to begin.
type Challenge struct {
	// Origin is where the person's browser is; MUSTER_PUBLIC_URL, when set,
	// counts instead.
	Origin string
	// Domain, when not empty, has to be the origin's host.
	Domain string
	// Verification is "required" (also when empty), "preferred" or
	// "discouraged".
	Verification string
}

// Request is what is asked of a session.
type Request struct {
	Checks    Checks
	Challenge *Challenge
	// Lifetime counts from now; 0 keeps it as it is, or is the default.
	Lifetime time.Duration
}

// Answer is what comes of it.
type Answer struct {
	Session Session
	// Token is the session's new and only one. Only its hash is kept.
	Token string
	// Options is the ceremony that was asked for, nil otherwise: a
	// CredentialRequestOptions in JSON, with the member publicKey.
	Options json.RawMessage
}

// Caller is who asks for sessions.
type Caller struct {
	// ID is the token's that called; Actor for a page of our own.
	ID string
	// Org is where sessions are made and looked for; "" is anywhere.
	Org string
	// Trusted callers need no session token to act on a session of Org.
	Trusted bool
}

// CreateSession begins a session. With a password among the checks, an unknown
// user is ErrPasswordWrong, after the time that a wrong password takes;
// without one, ErrUserMissing. Other errors are ErrPasswordWrong, ErrTOTPWrong,
// ErrPasskeyWrong, each counted; ErrUserNotActive (locked, deactivated, not
// complete); and those above.
func (s *Service) CreateSession(ctx context.Context, by Caller, req Request) (Answer, error) {
	if req.Lifetime == 0 {
		req.Lifetime = s.cfg.Lifetime
	}
	x, err := s.begin(by)
	if err != nil {
		return Answer{}, err
	}
	a, err := s.check(ctx, by, &x, req)
	if err != nil {
		return Answer{}, err
	}
	return a, s.keep(ctx, x, nil)
}

// begin makes a session that is kept nowhere yet.
func (s *Service) begin(by Caller) (Session, error) {
	now := s.now()
	id, err := ulid.New(ulid.Timestamp(now), s.cfg.Rand)
	return Session{ID: id.String(), Org: by.Org, Creator: by.ID, Sequence: 1, Created: now}, err
}

// keep stores a new session. A ceremony begins one session: ErrCeremony.
func (s *Service) keep(ctx context.Context, x Session, ceremony []byte) error {
	done, err := s.cfg.Store.Pool().Exec(ctx, insertSession, x.ID, x.Org, x.Creator, x.tokenHash, x.Person.ID, moment(x.UserAt), moment(x.PasswordAt),
		moment(x.TOTPAt), moment(x.PasskeyAt), x.PasskeyVerified, text(x.challenge), x.Changed, x.Expires, ceremony)
	if err == nil && done.RowsAffected() == 0 {
		err = ErrCeremony
	}
	return err
}

func (s *Service) now() time.Time { return s.cfg.Now().UTC().Truncate(time.Microsecond) }

// SetSession makes more checks for a session. token is the session's; a
// trusted caller may leave it empty. Errors as those of CreateSession, and
// ErrSessionMissing (also expired), ErrSessionToken, ErrSessionChanged.
func (s *Service) SetSession(ctx context.Context, by Caller, id, token string, req Request) (Answer, error) {
	x, err := s.find(ctx, by, id, token)
	if err != nil {
		return Answer{}, err
	}
	if len(req.Checks.Passkey) > 0 {
		if err := s.take(ctx, &x); err != nil {
			return Answer{}, err
		}
	}
	a, err := s.check(ctx, by, &x, req)
	if err != nil {
		return Answer{}, err
	}
	done, err := s.cfg.Store.Pool().Exec(ctx, updateSession, x.ID, x.Sequence-1, x.tokenHash, x.Person.ID, moment(x.UserAt), moment(x.PasswordAt),
		moment(x.TOTPAt), moment(x.PasskeyAt), x.PasskeyVerified, text(x.challenge), x.Changed, x.Expires)
	if err == nil && done.RowsAffected() == 0 {
		err = ErrSessionChanged
	}
	return a, err
}

// GetSession returns a session to whoever has its token, or to a trusted
// caller without. ErrSessionMissing (also expired, or its user has gone),
// ErrSessionToken, ErrUserNotActive (locked or deactivated since).
func (s *Service) GetSession(ctx context.Context, by Caller, id, token string) (Session, error) {
	return s.find(ctx, by, id, token)
}

// DeleteSession ends a session, under the conditions of GetSession.
func (s *Service) DeleteSession(ctx context.Context, by Caller, id, token string) (Session, error) {
	x, err := s.find(ctx, by, id, token)
	if err != nil {
		return Session{}, err
	}
	// It stays for a while, so that the ceremony that it began with begins no
	// other.
	x.Sequence++
	x.Changed = s.now()
	_, err = s.cfg.Store.Pool().Exec(ctx, `UPDATE sessions SET expires_at = $2, sequence = sequence + 1 WHERE id = $1`, id, x.Changed)
	return x, err
}

// ChangePassword gives the session's user a new password. The session must have
// nothing else before it: StepChange or StepDone, with the password checked.
// The user's other sessions end. Errors are the policy's, ErrPasswordSame,
// ErrFirst, and those of GetSession.
func (s *Service) ChangePassword(ctx context.Context, by Caller, id, token, plain string) (Session, error) {
	x, err := s.find(ctx, by, id, token)
	if err != nil {
		return Session{}, err
	}
	if step := x.Next(); x.PasswordAt.IsZero() || step != StepChange && step != StepDone {
		return Session{}, ErrFirst
	}
	old, err := s.load(ctx, x.Person.ID)
	if err != nil {
		return Session{}, err
	}
	hash, err := s.newHash(ctx, plain)
	if err != nil {
		return Session{}, err
	}
	if same, err := s.verify(ctx, old, plain); err != nil {
		return Session{}, err
	} else if same {
		return Session{}, domain.ErrPasswordSame
	}
	u, err := s.change(ctx, x.Person.ID, func(u *domain.User, _ time.Time) (domain.Decision, error) {
		return u.SetPassword(hash, false)
	})
	if err != nil {
		return Session{}, err
	}
	x.Person = personOf(u)
	_, err = s.cfg.Store.Pool().Exec(ctx, `UPDATE sessions SET expires_at = $3, sequence = sequence + 1 WHERE user_id = $1 AND id <> $2 AND expires_at > $3`,
		u.ID, x.ID, s.now())
	return x, err
}

// find reads a session that by may act on.
func (s *Service) find(ctx context.Context, by Caller, id, token string) (Session, error) {
	x := Session{ID: id}
	var user string
	var userAt, passwordAt, totpAt, passkeyAt *time.Time
	var challenge *string
	err := s.cfg.Store.Pool().QueryRow(ctx, `
		SELECT org, creator, token_hash, sequence, user_id, user_at, password_at, totp_at, passkey_at, verified, challenge,
		       created_at, changed_at, expires_at
		FROM sessions WHERE id = $1`, id).
		Scan(&x.Org, &x.Creator, &x.tokenHash, &x.Sequence, &user, &userAt, &passwordAt, &totpAt, &passkeyAt, &x.PasskeyVerified, &challenge,
			&x.Created, &x.Changed, &x.Expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, ErrSessionMissing
	}
	if err != nil {
		return Session{}, err
	}
	if by.Org != "" && by.Org != x.Org || !s.cfg.Now().Before(x.Expires) {
		return Session{}, ErrSessionMissing
	}
	hash := sha256.Sum256([]byte(token))
	good := subtle.ConstantTimeCompare(hash[:], x.tokenHash) == 1
	if !good && (token != "" || !by.Trusted) {
		return Session{}, ErrSessionToken
	}
	x.UserAt, x.PasswordAt, x.TOTPAt, x.PasskeyAt = when(userAt), when(passwordAt), when(totpAt), when(passkeyAt)
	x.Created, x.Changed, x.Expires = x.Created.UTC(), x.Changed.UTC(), x.Expires.UTC()
	if challenge != nil {
		x.challenge = *challenge
	}
	if user == "" {
		return x, nil
	}
	u, err := s.load(ctx, user)
	if err != nil {
		return Session{}, err
	}
	switch {
	case !u.Exists():
		return Session{}, ErrSessionMissing
	case u.State != domain.StateActive:
		return Session{}, domain.ErrUserNotActive
	}
	x.Person = personOf(u)
	return x, nil
}

// take takes a session's challenge out, for good: of two answers to one
// ceremony, one is looked at.
func (s *Service) take(ctx context.Context, x *Session) error {
	if x.challenge == "" {
		return ErrNoChallenge
	}
	done, err := s.cfg.Store.Pool().Exec(ctx,
		`UPDATE sessions SET challenge = NULL, sequence = sequence + 1 WHERE id = $1 AND sequence = $2`, x.ID, x.Sequence)
	if err != nil {
		return err
	}
	if done.RowsAffected() == 0 {
		return ErrSessionChanged
	}
	x.Sequence++
	return nil
}

// check makes the checks, begins the ceremony, and gives the session a new
// token. x is changed in memory only.
func (s *Service) check(ctx context.Context, by Caller, x *Session, req Request) (Answer, error) {
	if req.Lifetime < 0 || req.Lifetime > MaxLifetime {
		return Answer{}, ErrLifetime
	}
	u, err := s.named(ctx, by, x, req.Checks)
	if err != nil {
		return Answer{}, err
	}
	if req.Checks.Password != nil {
		if u, err = s.checkPassword(ctx, u, *req.Checks.Password); err != nil {
			return Answer{}, err
		}
		x.PasswordAt = s.now()
	}
	if len(req.Checks.Passkey) > 0 {
		if u, x.PasskeyVerified, err = s.checkPasskey(ctx, u, x, req.Checks.Passkey); err != nil {
			return Answer{}, err
		}
		x.PasskeyAt, x.challenge = s.now(), ""
	}
	if req.Checks.TOTP != nil {
		if u, err = s.checkTOTP(ctx, u, *req.Checks.TOTP); err != nil {
			return Answer{}, err
		}
		x.TOTPAt = s.now()
	}
	if u.Exists() {
		if x.Person.ID == "" {
			x.UserAt = s.now()
		}
		x.Person, x.Org = personOf(u), u.Org
	}
	var options json.RawMessage
	if req.Challenge != nil {
		if options, x.challenge, err = s.challenge(u, x, *req.Challenge); err != nil {
			return Answer{}, err
		}
	}
	if !x.Expires.IsZero() {
		x.Sequence++ // it is not new
	}
	a, err := s.renew(x, req.Lifetime)
	a.Options = options
	return a, err
}

// renew gives a session a new token, and a new end unless lifetime is 0.
func (s *Service) renew(x *Session, lifetime time.Duration) (Answer, error) {
	x.Changed = s.now()
	if lifetime > 0 {
		x.Expires = x.Changed.Add(lifetime)
	}
	var secret [32]byte
	if _, err := io.ReadFull(s.cfg.Rand, secret[:]); err != nil {
		return Answer{}, err
	}
	token := TokenPrefix + text64(secret[:])
	hash := sha256.Sum256([]byte(token))
	x.tokenHash = hash[:]
	return Answer{Session: *x, Token: token}, nil
}

// named finds whom a session is about, as of now. Without a user it is one that
// does not exist, and that is fine as long as nothing is checked of it.
func (s *Service) named(ctx context.Context, by Caller, x *Session, c Checks) (*domain.User, error) {
	u, err := s.search(ctx, by, x.Person.ID, c)
	if err != nil {
		return nil, err
	}
	asked := c.UserID != nil || c.LoginName != nil
	switch {
	case x.Person.ID != "" && u.ID != x.Person.ID:
		return nil, ErrUserOther
	case u.Exists() && (u.State == domain.StateActive || c.Password != nil):
		return u, nil
	case u.Exists():
		return nil, domain.ErrUserNotActive
	case asked && c.Password == nil:
		return nil, ErrUserMissing
	case !asked && (c.Password != nil || c.TOTP != nil || len(c.Passkey) > 0):
		return nil, ErrUserCheck
	}
	return u, nil
}

// search looks a user up, by id or login name, else by the id that is known.
func (s *Service) search(ctx context.Context, by Caller, known string, c Checks) (*domain.User, error) {
	id := known
	switch {
	case c.UserID != nil:
		id = *c.UserID
	case c.LoginName != nil:
		owner, err := s.cfg.Store.Owner(ctx, claim(*c.LoginName))
		if err != nil {
			return nil, err
		}
		id = owner
	}
	u, err := s.load(ctx, cmp.Or(id, noID))
	switch {
	case err != nil:
		return nil, err
	case id == "", !u.Exists(), by.Org != "" && u.Org != by.Org: // somebody else's is nobody
		return domain.NewUser("", ""), nil
	}
	return u, nil
}

// noID is looked for in the name of who does not exist, as anybody would be.
// What is found does not matter: it may be somebody's, who is not meant.
const noID = "-"

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func when(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
