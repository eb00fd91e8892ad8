package domain

import (
	"bytes"
	"slices"
)

// User is what a stream of user events adds up to. The zero value is a user
// that does not exist; Apply folds events into it, in order of sequence.
//
// It can be built from opened events, for decisions, or from sealed ones: then
// everything personal is empty, and states, flags and counts still hold.
type User struct {
	// ID and Org are not in the events; whoever reads the stream sets them.
	ID, Org string
	// Sequence is the number of events folded.
	Sequence   int64
	State      State
	UserName   string
	Profile    Profile
	ExternalID string

	Email         string
	EmailVerified bool
	// Phone is in E.164, or empty.
	Phone         string
	PhoneVerified bool

	// HasPassword holds even when PasswordHash is sealed.
	HasPassword    bool
	PasswordHash   string
	PasswordFormat string
	PasswordWeak   bool
	ChangeRequired bool
	// OldSystem is the import job whose old system knows the user's password;
	// empty when there is none to ask, or no need to.
	OldSystem string
	// PasswordFailures, TOTPFailures and PasskeyFailures count the failed
	// checks since the last good one of that kind, or since UserUnlocked.
	PasswordFailures, TOTPFailures, PasskeyFailures int

	HasTOTP    bool
	TOTPSecret string
	// TOTPStep is the time step of the last code accepted.
	TOTPStep int64

	IDPLinks []IDPLink
	Metadata map[string][]byte
	Passkeys []Passkey

	// The pending codes; nil when there is none.
	InitCode, EmailCode, PhoneCode *PendingCode
	// PasskeyCodes are the pending registrations, oldest first.
	PasskeyCodes []PendingCode

	// InitFailures counts the wrong initialization codes over all codes, until
	// one was right.
	InitFailures int

	// Erased says that the personal part is gone for good.
	Erased bool
}

// Passkey is one of a user's passkeys.
type Passkey struct {
	CredentialID, Credential []byte
	Name                     string
	// SignCount is the authenticator's counter at its last use.
	SignCount uint32
}

// PendingCode is a code that waits to be used.
type PendingCode struct {
	// ID is set for passkey codes only.
	ID string
	SentCode
	// Failures counts wrong guesses.
	Failures int
}

// NewUser folds a whole stream.
func NewUser(id, org string, events ...Event) *User {
	u := &User{ID: id, Org: org}
	for _, e := range events {
		u.Apply(e)
	}
	return u
}

// Exists reports whether the user has been added and not removed.
func (u *User) Exists() bool { return u.State != StateUnspecified && u.State != StateDeleted }

// Apply folds the stream's next event. Events that it has no use for count
// into Sequence like any other.
func (u *User) Apply(e Event) {
	u.Sequence++
	switch e := e.(type) {
	case HumanAdded:
		u.State = StateActive
		u.UserName, u.Profile, u.ExternalID = e.UserName, e.Profile, e.ExternalID
		u.Email, u.Phone = e.Email, e.Phone
	case EmailVerified:
		u.EmailVerified, u.EmailCode = true, nil
	case PhoneVerified:
		u.PhoneVerified, u.PhoneCode = true, nil
	case PasswordSet:
		u.HasPassword, u.PasswordHash, u.PasswordFormat, u.PasswordWeak = true, e.Hash, e.Format, e.Weak
		u.ChangeRequired, u.PasswordFailures, u.OldSystem = e.ChangeRequired, 0, ""
	case PasswordDelegated:
		u.OldSystem, u.ChangeRequired = e.Job, e.ChangeRequired
	case PasswordRehashed:
		u.PasswordHash, u.PasswordFormat, u.PasswordWeak = e.Hash, e.Format, false
	case TOTPAdded:
		u.HasTOTP, u.TOTPSecret, u.TOTPStep, u.TOTPFailures = true, e.Secret, 0, 0
	case TOTPRemoved:
		u.HasTOTP, u.TOTPSecret, u.TOTPStep, u.TOTPFailures = false, "", 0, 0
	case IDPLinked:
		u.IDPLinks = append(u.IDPLinks, IDPLink(e))
	case IDPLinkRemoved:
		u.IDPLinks = slices.DeleteFunc(u.IDPLinks, func(l IDPLink) bool {
			return l.ConfigID == e.ConfigID && l.ExternalUserID == e.ExternalUserID
		})
	case MetadataSet:
		if u.Metadata == nil {
			u.Metadata = make(map[string][]byte, len(e.Entries))
		}
		for _, m := range e.Entries {
			u.Metadata[m.Key] = m.Value
		}
	case MetadataRemoved:
		for _, k := range e.Keys {
			delete(u.Metadata, k)
		}
	case InitializationCodeAdded:
		u.State, u.InitCode = StateInitial, &PendingCode{SentCode: e.SentCode}
	case InitializationSucceeded:
		u.State, u.InitCode, u.InitFailures = StateActive, nil, 0
	case InitializationFailed:
		u.InitFailures++
		u.InitCode.fail()
	case EmailCodeAdded:
		u.EmailCode = &PendingCode{SentCode: e.SentCode}
	case EmailCodeFailed:
		u.EmailCode.fail()
	case PhoneCodeAdded:
		u.PhoneCode = &PendingCode{SentCode: e.SentCode}
	case PhoneCodeFailed:
		u.PhoneCode.fail()
	case PasskeyRegistrationRequested:
		u.PasskeyCodes = append(u.PasskeyCodes, PendingCode{
			ID: e.CodeID, SentCode: SentCode{Secret: e.Secret, Lifetime: e.Lifetime, Issued: e.Issued},
		})
	case PasskeyRegistrationFailed:
		u.passkeyCode(e.CodeID).fail()
	case PasskeyAdded:
		u.Passkeys = append(u.Passkeys, Passkey{CredentialID: e.CredentialID, Credential: e.Credential, Name: e.Name})
		u.PasskeyCodes = slices.DeleteFunc(u.PasskeyCodes, func(c PendingCode) bool { return c.ID == e.CodeID })
	case PasskeyRemoved:
		u.Passkeys = slices.DeleteFunc(u.Passkeys, func(p Passkey) bool { return bytes.Equal(p.CredentialID, e.CredentialID) })
	case PasskeyChecked:
		u.PasskeyFailures = 0
		for i := range u.Passkeys {
			if bytes.Equal(u.Passkeys[i].CredentialID, e.CredentialID) {
				u.Passkeys[i].SignCount = e.SignCount
			}
		}
	case PasskeyCheckFailed:
		u.PasskeyFailures++
	case PasswordChecked:
		u.PasswordFailures = 0
	case PasswordCheckFailed:
		u.PasswordFailures++
	case TOTPChecked:
		u.TOTPStep, u.TOTPFailures = e.Step, 0
	case TOTPCheckFailed:
		u.TOTPFailures++
	case UserDeactivated:
		u.State = StateInactive
	case UserReactivated:
		u.State = StateActive
	case UserLocked:
		u.State = StateLocked
	case UserUnlocked:
		u.State = StateActive
		u.PasswordFailures, u.TOTPFailures, u.PasskeyFailures = 0, 0, 0
	case UsernameChanged:
		u.UserName = e.UserName
	case ProfileChanged:
		u.Profile = e.Profile
	case EmailChanged:
		u.Email, u.EmailVerified, u.EmailCode = e.Email, false, nil
	case PhoneChanged:
		u.Phone, u.PhoneVerified, u.PhoneCode = e.Phone, false, nil
	case PhoneRemoved:
		u.Phone, u.PhoneVerified, u.PhoneCode = "", false, nil
	case UserRemoved:
		u.State = StateDeleted
		u.InitCode, u.EmailCode, u.PhoneCode, u.PasskeyCodes = nil, nil, nil, nil
	case UserErased:
		*u = User{ID: u.ID, Org: u.Org, Sequence: u.Sequence, State: StateDeleted, Erased: true}
	}
}

func (c *PendingCode) fail() {
	if c != nil {
		c.Failures++
	}
}

func (u *User) passkeyCode(id string) *PendingCode {
	for i := range u.PasskeyCodes {
		if u.PasskeyCodes[i].ID == id {
			return &u.PasskeyCodes[i]
		}
	}
	return nil
}

// Claims returns the claims that the user must own, no more and no fewer:
// none when removed.
func (u *User) Claims() []Claim {
	if !u.Exists() {
		return nil
	}
	claims := make([]Claim, 0, 1+len(u.IDPLinks))
	claims = append(claims, LoginNameClaim(u.UserName))
	for _, l := range u.IDPLinks {
		claims = append(claims, IDPLinkClaim(l.ConfigID, l.ExternalUserID))
	}
	return claims
}
