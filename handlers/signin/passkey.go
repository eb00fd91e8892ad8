package signin

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// ceremonyLifetime is how long a browser may take over one ceremony.
const ceremonyLifetime = 5 * time.Minute

// maxResponse bounds what a browser answers to a ceremony, in bytes.
const maxResponse = 64 << 10

// Ceremony is one begun with WebAuthn: what the browser is asked, and what it
// has to hand back with its answer.
type Ceremony struct {
	// Options is PublicKeyCredentialCreationOptions or
	// PublicKeyCredentialRequestOptions in its JSON form, as
	// PublicKeyCredential.parse…OptionsFromJSON takes it.
	Options json.RawMessage
	// State is sealed; it fits into a form field.
	State string
}

// relyingParty is who passkeys are registered with: an origin and its host.
func (s *Service) relyingParty(origin string) (*webauthn.WebAuthn, error) {
	if s.cfg.PublicURL != "" {
		origin = s.cfg.PublicURL
	}
	u, err := url.Parse(origin)
	if err != nil {
		return nil, ErrPasskeyOrigin
	}
	host := strings.ToLower(u.Hostname())
	local := host == "localhost" || strings.HasSuffix(host, ".localhost")
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return nil, ErrPasskeyOrigin
	}
	timeout := webauthn.TimeoutConfig{Enforce: true, Timeout: ceremonyLifetime, TimeoutUVD: ceremonyLifetime}
	w, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: host, RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Registration: timeout, Login: timeout},
	})
	if err != nil {
		return nil, ErrPasskeyOrigin.Because(err)
	}
	return w, nil
}

// kept is a passkey as the log keeps it: what checking it takes, and the host
// that it is good under. Nothing of the attestation is kept: none is asked for.
type kept struct {
	Host       string              `json:"host"`
	Credential webauthn.Credential `json:"credential"`
}

// holder is a user as the WebAuthn library wants one: with the passkeys of one
// host.
type holder struct {
	user        *domain.User
	handle      []byte
	credentials []webauthn.Credential
}

// WebAuthnID implements webauthn.User.
func (h holder) WebAuthnID() []byte { return h.handle }

// WebAuthnName implements webauthn.User.
func (h holder) WebAuthnName() string { return h.user.UserName }

// WebAuthnDisplayName implements webauthn.User.
func (h holder) WebAuthnDisplayName() string { return h.user.Profile.DisplayName }

// WebAuthnCredentials implements webauthn.User.
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.credentials }

// handle is what authenticators know the user by. It tells them nothing: a
// user's id may be a caller's own, such as an e-mail address.
func (s *Service) handle(userID string) []byte {
	m := hmac.New(sha256.New, s.handles)
	m.Write([]byte(userID))
	return m.Sum(nil)
}

func (s *Service) holder(u *domain.User, host string) (holder, error) {
	h := holder{user: u, handle: s.handle(u.ID)}
	for _, p := range u.Passkeys {
		var k kept
		if err := json.Unmarshal(p.Credential, &k); err != nil {
			return h, domain.Wrapf(err, "reading a passkey")
		}
		if k.Host == host {
			k.Credential.Authenticator.SignCount = max(k.Credential.Authenticator.SignCount, p.SignCount)
			h.credentials = append(h.credentials, k.Credential)
		}
	}
	return h, nil
}

// CheckPasskeyLink judges the code of a passkey link without using it, and says
// who it belongs to. A wrong one is counted. Errors are ErrUserNotActive (also
// for nobody's id), or ErrPasskeyCode because of ErrCodeMissing (used, or never
// made), ErrCodeExpired, ErrCodeUsedUp or ErrCodeWrong.
func (s *Service) CheckPasskeyLink(ctx context.Context, userID, codeID, code string) (Person, error) {
	u, err := s.checkPasskeyLink(ctx, userID, codeID, code)
	if err != nil {
		return Person{}, err
	}
	return personOf(u), nil
}

func (s *Service) checkPasskeyLink(ctx context.Context, userID, codeID, code string) (*domain.User, error) {
	u, err := s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		return u.CheckPasskeyCode(codeID, code, at)
	})
	return u, err
}

// registration is what a browser keeps while it registers a passkey.
type registration struct {
	User    string               `json:"user"`
	Code    string               `json:"code"`
	Session webauthn.SessionData `json:"session"`
}

const purposeRegistration = "registration"

// BeginPasskey begins the registration of a passkey by a link. origin is the
// scheme and host that the person's browser shows; MUSTER_PUBLIC_URL, when set,
// counts instead. Errors as those of CheckPasskeyLink, and ErrPasskeyOrigin.
func (s *Service) BeginPasskey(ctx context.Context, origin, userID, codeID, code string) (Ceremony, error) {
	rp, err := s.relyingParty(origin)
	if err != nil {
		return Ceremony{}, err
	}
	u, err := s.checkPasskeyLink(ctx, userID, codeID, code)
	if err != nil {
		return Ceremony{}, err
	}
	h, err := s.holder(u, rp.Config.RPID)
	if err != nil {
		return Ceremony{}, err
	}
	creation, session, err := rp.BeginRegistration(h,
		webauthn.WithExclusions(webauthn.Credentials(h.credentials).CredentialDescriptors()))
	if err != nil {
		return Ceremony{}, domain.Wrapf(err, "beginning a passkey's registration")
	}
	return s.ceremony(creation.Response, purposeRegistration, registration{userID, codeID, *session})
}

func (s *Service) ceremony(options any, purpose string, state any) (Ceremony, error) {
	asked, err := json.Marshal(options)
	if err != nil {
		return Ceremony{}, err
	}
	sealed, err := s.box.seal(purpose, s.cfg.Now().Add(ceremonyLifetime), state)
	return Ceremony{Options: asked, State: sealed}, err
}

// FinishPasskey ends what BeginPasskey began: response is the browser's
// RegistrationResponseJSON, name what the user calls the passkey. It uses the
// link's code up: of two at once, one gets in. Errors as those of BeginPasskey,
// ErrCeremony (too late, or another one's state), ErrPasskeyRefused and
// ErrPasskeyKnown.
func (s *Service) FinishPasskey(ctx context.Context, origin, userID, codeID, code, state, name string, response []byte) (Person, error) {
	rp, err := s.relyingParty(origin)
	if err != nil {
		return Person{}, err
	}
	var begun registration
	if err := s.box.open(purposeRegistration, s.cfg.Now(), state, &begun); err != nil {
		return Person{}, err
	}
	if begun.User != userID || begun.Code != codeID {
		return Person{}, ErrCeremony
	}
	u, err := s.checkPasskeyLink(ctx, userID, codeID, code)
	if err != nil {
		return Person{}, err
	}
	passkey, err := s.registered(rp, u, begun.Session, response)
	if err != nil {
		return Person{}, err
	}
	passkey.Name = name
	u, err = s.change(ctx, userID, func(u *domain.User, at time.Time) (domain.Decision, error) {
		for _, p := range u.Passkeys {
			if bytes.Equal(p.CredentialID, passkey.CredentialID) {
				return domain.Decision{}, ErrPasskeyKnown
			}
		}
		return u.AddPasskey(codeID, code, passkey, at)
	})
	if err != nil {
		return Person{}, err
	}
	return personOf(u), nil
}

// registered judges a browser's answer to a registration.
func (s *Service) registered(rp *webauthn.WebAuthn, u *domain.User, session webauthn.SessionData, response []byte) (domain.Passkey, error) {
	if len(response) > maxResponse {
		return domain.Passkey{}, ErrPasskeyRefused
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return domain.Passkey{}, ErrPasskeyRefused.Because(err)
	}
	h, err := s.holder(u, rp.Config.RPID)
	if err != nil {
		return domain.Passkey{}, err
	}
	made, err := rp.CreateCredential(h, session, parsed)
	if err != nil {
		return domain.Passkey{}, ErrPasskeyRefused.Because(err)
	}
	made.Attestation = webauthn.CredentialAttestation{}
	credential, err := json.Marshal(kept{Host: rp.Config.RPID, Credential: *made})
	return domain.Passkey{CredentialID: made.ID, Credential: credential, SignCount: made.Authenticator.SignCount}, err
}

// imaginary is the id of a passkey that nobody has: it is asked for in the name
// of who has none, and of nobody, so that the question tells nothing.
func (s *Service) imaginary(loginName string) []byte {
	c := s.cfg.Store.Keys().ClaimHash(eventstore.Claim(domain.LoginNameClaim(loginName)))
	m := hmac.New(sha256.New, s.handles)
	m.Write([]byte("imaginary"))
	m.Write(c[:])
	return m.Sum(nil)
}
