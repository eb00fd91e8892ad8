package signin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/eventstore"
)

func claim(loginName string) eventstore.Claim {
	return eventstore.Claim(domain.LoginNameClaim(loginName))
}

// checkPassword checks a password of a user, who may not exist: that is
// ErrPasswordWrong too, at the same cost. The verdict is appended before it is
// told, so that guesses which come in at once are all counted; those behind the
// limit find the user locked, the right one among them.
func (s *Service) checkPassword(ctx context.Context, u *domain.User, plain string) (*domain.User, error) {
	for range attempts {
		good, err := s.verify(ctx, u, plain)
		if err != nil {
			return nil, err
		}
		if !u.Exists() {
			return nil, s.miss(ctx)
		}
		if s.delegated(u, plain) {
			if u, err = s.takePassword(ctx, u, plain); errors.Is(err, errOtherHash) {
				continue // u is as of now
			}
			return u, err
		}
		judged := u.PasswordHash
		u, err = s.change(ctx, u.ID, func(u *domain.User, _ time.Time) (domain.Decision, error) {
			if u.PasswordHash != judged {
				return domain.Decision{}, errOtherHash
			}
			return u.CheckedPassword(good, s.cfg.Lockout)
		})
		if errors.Is(err, errOtherHash) {
			continue // u is as of now
		}
		if err != nil {
			return nil, err
		}
		s.rehash(u, plain)
		return u, nil
	}
	return nil, ErrBusy
}

// errOtherHash says that a password's hash was replaced while it was being
// checked: by a rehash of the same password, or by another one's.
var errOtherHash = errors.New("signin: another hash than the one that was checked")

// miss counts a guess at nobody's password. It costs a look at a stream and a
// commit, as a guess at somebody's does.
func (s *Service) miss(ctx context.Context) error {
	if _, err := s.load(ctx, noID); err != nil {
		return err
	}
	_, err := s.cfg.Store.Pool().Exec(ctx, `
		INSERT INTO signin_misses (day, count) VALUES ($1, 1) ON CONFLICT (day) DO UPDATE SET count = signin_misses.count + 1`,
		s.cfg.Now().UTC().Truncate(24*time.Hour))
	if err != nil {
		return err
	}
	return domain.ErrPasswordWrong
}

// verify says whether plain is the user's password. It never takes much less
// than a hash of the house: without a password, and beside a weak hash, which is
// a cheap one, a password that nobody has is checked.
func (s *Service) verify(ctx context.Context, u *domain.User, plain string) (bool, error) {
	good := false
	if u.Exists() && u.HasPassword {
		var err error
		if good, err = s.verifyHash(ctx, u, plain); err != nil {
			return false, err
		}
		if !u.PasswordWeak {
			return good, nil
		}
	}
	dummy, err := s.dummy()
	if err != nil {
		return false, err
	}
	_, err = s.cfg.Passwords.Verify(ctx, dummy, plain, nil)
	return good, err
}

func (s *Service) verifyHash(ctx context.Context, u *domain.User, plain string) (bool, error) {
	format, err := password.Recognise(u.PasswordHash)
	var secrets password.Secrets
	if err == nil && format.Secret != "" && s.cfg.Secrets != nil {
		if secrets, err = s.cfg.Secrets(ctx, format.Secret); err != nil {
			return false, err
		}
	}
	good, err := s.cfg.Passwords.Verify(ctx, u.PasswordHash, plain, secrets)
	if unusable := (*password.Error)(nil); errors.As(err, &unusable) {
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "a user's password hash cannot be verified",
			slog.String("user", u.ID), slog.String("format", unusable.Format), slog.Any("error", unusable.Kind))
		return false, nil
	}
	return good, err
}

// rehash keeps a password that has just been good with a hash of the house,
// behind the answer.
func (s *Service) rehash(u *domain.User, plain string) {
	if !password.NeedsRehash(u.PasswordHash) {
		return
	}
	id, old := u.ID, u.PasswordHash
	s.later.run(func(ctx context.Context) {
		hash, err := s.cfg.Passwords.Hash(ctx, plain)
		if err == nil {
			_, err = s.change(ctx, id, func(u *domain.User, _ time.Time) (domain.Decision, error) {
				if u.PasswordHash != old {
					return domain.Decision{}, nil // somebody was faster, or it is another password
				}
				return u.RehashPassword(hash)
			})
		}
		if err != nil {
			s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "a password was not hashed anew; its next login tries again",
				slog.String("user", id), slog.Any("error", err))
		}
	})
}

// checkTOTP checks a code of the second factor.
func (s *Service) checkTOTP(ctx context.Context, u *domain.User, code string) (*domain.User, error) {
	u, err := s.change(ctx, u.ID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		if !u.HasTOTP {
			return domain.Decision{}, domain.ErrTOTPMissing
		}
		step, good := u.MatchTOTP(code, at)
		return u.CheckedTOTP(good, step, s.cfg.Lockout)
	})
	return u, err
}

// asked is what a session keeps of a passkey ceremony.
type asked struct {
	Origin  string               `json:"origin"`
	Session webauthn.SessionData `json:"session"`
}

const purposeLogin = "login:" // and the session's id

var verifications = map[string]protocol.UserVerificationRequirement{
	"": protocol.VerificationRequired, "required": protocol.VerificationRequired,
	"preferred": protocol.VerificationPreferred, "discouraged": protocol.VerificationDiscouraged,
}

// challenge begins a passkey ceremony for a session.
func (s *Service) challenge(u *domain.User, x *Session, c Challenge) (options json.RawMessage, state string, err error) {
	if !u.Exists() {
		return nil, "", ErrUserCheck
	}
	rp, err := s.relyingParty(c.Origin)
	if err != nil {
		return nil, "", err
	}
	verification, known := verifications[c.Verification]
	if !known || c.Domain != "" && c.Domain != rp.Config.RPID {
		return nil, "", ErrPasskeyOrigin
	}
	h, err := s.holder(u, rp.Config.RPID)
	if err != nil {
		return nil, "", err
	}
	if len(h.credentials) == 0 {
		return nil, "", ErrNoPasskey
	}
	assertion, session, err := rp.BeginLogin(h, webauthn.WithUserVerification(verification))
	if err != nil {
		return nil, "", domain.Wrapf(err, "beginning a passkey's check")
	}
	if options, err = json.Marshal(assertion); err != nil {
		return nil, "", err
	}
	state, err = s.box.seal(purposeLogin+x.ID, s.cfg.Now().Add(ceremonyLifetime), asked{rp.Config.RPOrigins[0], *session})
	return options, state, err
}

// checkPasskey checks a browser's answer to the session's challenge. verified
// is whether the authenticator has verified the person.
func (s *Service) checkPasskey(ctx context.Context, u *domain.User, x *Session, response []byte) (_ *domain.User, verified bool, err error) {
	if x.challenge == "" {
		return nil, false, ErrNoChallenge
	}
	var begun asked
	if err := s.box.open(purposeLogin+x.ID, s.cfg.Now(), x.challenge, &begun); err != nil {
		return nil, false, err
	}
	rp, err := s.relyingParty(begun.Origin)
	if err != nil {
		return nil, false, err
	}
	return s.usePasskey(ctx, rp, u, begun.Session, response)
}

// usePasskey judges an answer to a ceremony and appends the verdict.
func (s *Service) usePasskey(ctx context.Context, rp *webauthn.WebAuthn, u *domain.User, session webauthn.SessionData, response []byte) (*domain.User, bool, error) {
	used, verified := s.answered(rp, u, session, response)
	u, err := s.change(ctx, u.ID, func(u *domain.User, _ time.Time) (domain.Decision, error) {
		if used == nil {
			return u.CheckedPasskey(false, nil, 0, s.cfg.Lockout)
		}
		// The passkey may have been removed, or used elsewhere, since.
		for _, p := range u.Passkeys {
			if bytes.Equal(p.CredentialID, used.ID) {
				count := used.Authenticator.SignCount
				return u.CheckedPasskey(count > p.SignCount || count == 0 && p.SignCount == 0, used.ID, count, s.cfg.Lockout)
			}
		}
		return u.CheckedPasskey(false, nil, 0, s.cfg.Lockout)
	})
	return u, verified, err
}

// answered judges an answer by itself; nil is a bad one. Whether the counter went
// on is judged with the user's state.
func (s *Service) answered(rp *webauthn.WebAuthn, u *domain.User, session webauthn.SessionData, response []byte) (*webauthn.Credential, bool) {
	if len(response) > maxResponse {
		return nil, false
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return nil, false
	}
	h, err := s.holder(u, rp.Config.RPID)
	if err != nil {
		return nil, false
	}
	used, err := rp.ValidateLogin(h, session, parsed)
	if err != nil {
		return nil, false
	}
	return used, parsed.Response.AuthenticatorData.Flags.UserVerified()
}

// login is what a browser keeps while it logs in with a passkey.
type login struct {
	// User is "" when there is nobody, or nobody with a passkey.
	User string `json:"user"`
	asked
}

const purposePasskey = "passkey login"

// BeginLogin begins a login with a passkey, for the page that knows a login
// name only. It asks in the same way for somebody's passkeys and, in the name
// of who has none and of nobody, for one that does not exist.
func (s *Service) BeginLogin(ctx context.Context, origin, loginName string) (Ceremony, error) {
	rp, err := s.relyingParty(origin)
	if err != nil {
		return Ceremony{}, err
	}
	u, err := s.search(ctx, Caller{}, "", Checks{LoginName: &loginName})
	if err != nil {
		return Ceremony{}, err
	}
	h, err := s.holder(u, rp.Config.RPID)
	if err != nil {
		return Ceremony{}, err
	}
	if len(h.credentials) == 0 {
		h = holder{user: domain.NewUser("", ""), handle: s.handle("")}
		h.credentials = []webauthn.Credential{{ID: s.imaginary(loginName)}}
	}
	for i := range h.credentials {
		h.credentials[i].Transport = nil // the imaginary one has none either
	}
	assertion, session, err := rp.BeginLogin(h)
	if err != nil {
		return Ceremony{}, domain.Wrapf(err, "beginning a passkey's check")
	}
	return s.ceremony(assertion.Response, purposePasskey, login{h.user.ID, asked{rp.Config.RPOrigins[0], *session}})
}

// FinishLogin ends what BeginLogin began with a session, which has no step left
// but perhaps StepTOTP, when the authenticator did not verify the person.
// ErrPasskeyWrong is counted; ErrCeremony is a state that is not one, no longer
// one, or has begun a session before.
func (s *Service) FinishLogin(ctx context.Context, by Caller, state string, response []byte) (Answer, error) {
	var begun login
	if err := s.box.open(purposePasskey, s.cfg.Now(), state, &begun); err != nil {
		return Answer{}, err
	}
	rp, err := s.relyingParty(begun.Origin)
	if err != nil {
		return Answer{}, err
	}
	u, err := s.load(ctx, begun.User)
	if err != nil {
		return Answer{}, err
	}
	if !u.Exists() {
		return Answer{}, domain.ErrPasskeyWrong
	}
	u, verified, err := s.usePasskey(ctx, rp, u, begun.Session, response)
	if err != nil {
		return Answer{}, err
	}
	x, err := s.begin(by)
	if err != nil {
		return Answer{}, err
	}
	now := x.Created
	x.Person, x.Org, x.UserAt, x.PasskeyAt, x.PasskeyVerified = personOf(u), u.Org, now, now, verified
	a, err := s.renew(&x, s.cfg.Lifetime)
	if err != nil {
		return Answer{}, err
	}
	ceremony := sha256.Sum256([]byte(begun.Session.Challenge))
	return a, s.keep(ctx, x, ceremony[:])
}
