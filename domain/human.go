package domain

import (
	"strings"
	"time"
)

// Human is an import command whose every field has been checked and brought
// into its final form. Only ImportHuman.Normalise makes one.
type Human struct {
	// UserID is the id that the caller chose, or empty.
	UserID   string
	UserName string
	Profile  Profile
	Email    Email
	// Phone is in E.164; nil for none.
	Phone *Phone
	// Password is the plain password that the service has to hash; empty when
	// there is none or when PasswordHash is set.
	Password string
	// PasswordHash is the hash that the caller brought, PasswordFormat and
	// PasswordWeak what Policy.Recognise said of it.
	PasswordHash   string
	PasswordFormat string
	PasswordWeak   bool
	// OldSystem says that the old system is asked for the password, which is
	// not here.
	OldSystem      bool
	ChangeRequired bool
	RequestPasskey bool
	// TOTPSecret is in base32, upper case, without padding.
	TOTPSecret string
	IDPLinks   []IDPLink
	// Metadata has distinct keys, in the order of the command.
	Metadata   []Metadata
	ExternalID string
	// State is StateInactive, StateLocked, or StateUnspecified for nothing
	// special.
	State         State
	Silent        bool
	PasskeyOrigin string
}

// Facts is what a decision needs from outside: everything that takes a clock,
// randomness or much computing.
type Facts struct {
	// UserID is the new user's id, when the caller chose none (Human.UserID).
	UserID string
	// Org is the organisation that will own the user.
	Org string
	// PasswordHash is the house's hash of Human.Password, required exactly
	// when Human.NeedsHash.
	PasswordHash string
	// Init, Email, Phone and Passkey are fresh codes, required as Human.Codes
	// says.
	Init, Email, Phone, Passkey Code
	// Job and Line are the import job and its line, for HumanAdded; empty for
	// a single import.
	Job  string
	Line int64
	// At is the time of the decision; codes expire counted from it.
	At time.Time
}

// CodeNeeds says which codes a decision wants.
type CodeNeeds struct{ Init, Email, Phone, Passkey bool }

// Decision is what is to be appended to one stream, whole or not at all.
type Decision struct {
	Stream, Org string
	// Expected is the sequence that the stream must have: 0 for a new one.
	Expected int64
	Events   []Event
	// Take are claims that the stream must own afterwards, Release those that
	// it gives up.
	Take, Release []Claim
}

// The kinds of claims.
const (
	// ClaimLoginName is a user name, unique over the whole service.
	ClaimLoginName = "login_name"
	// ClaimIDPLink is an identity at a provider; its scope is the provider's
	// configuration id.
	ClaimIDPLink = "idp_link"
	// ClaimDomain is a domain, of at most one organisation.
	ClaimDomain = "organisation_domain"
)

// Claim is a value that at most one user, or organisation, may own.
type Claim struct {
	Kind, Scope, Value string
}

// LoginNameClaim returns the claim of a user name.
//
// Case is folded rune by rune with Unicode's simple lower-case mapping, which
// is what PostgreSQL's lower does in a UTF-8 database. So "İ" becomes "i", "Σ"
// always becomes "σ", and "ß" and "ss" stay apart; nothing is composed or
// decomposed, so "é" in one code point and in two are two names.
func LoginNameClaim(userName string) Claim {
	return Claim{Kind: ClaimLoginName, Value: foldCase(strings.TrimSpace(userName))}
}

// IDPLinkClaim returns the claim of an identity at a provider. Case is folded
// as LoginNameClaim does, in both ids.
func IDPLinkClaim(configID, externalUserID string) Claim {
	return Claim{Kind: ClaimIDPLink, Scope: foldCase(configID), Value: foldCase(externalUserID)}
}

func foldCase(s string) string { return strings.ToLower(s) }

// ConflictError is what a caller gets when somebody else owns a claim.
func (c Claim) ConflictError() *Error {
	switch c.Kind {
	case ClaimIDPLink:
		return ErrIDPLinkTaken
	case ClaimDomain:
		return ErrDomainTaken
	}
	return ErrUserExists.OnField("userName")
}

// NeedsHash reports whether a plain password has to be hashed for Import.
func (h Human) NeedsHash() bool { return h.Password != "" }

func (h Human) hasPassword() bool { return h.Password != "" || h.PasswordHash != "" || h.OldSystem }

// initial reports whether the person has to complete the account by a mail
// before getting in: there is no other way in, or only one through an address
// that may be somebody else's.
func (h Human) initial() bool {
	return h.Email.Mode == VerifyByRule && len(h.IDPLinks) == 0 &&
		(!h.Email.Verified || !h.RequestPasskey && !h.hasPassword())
}

// Codes says which codes Import wants.
func (h Human) Codes() CodeNeeds {
	initial := h.initial()
	return CodeNeeds{
		Init:    initial,
		Email:   !h.Email.Verified && h.Email.Mode != VerifyNone && !initial,
		Phone:   h.Phone != nil && !h.Phone.Verified && h.Phone.Mode != VerifyNone,
		Passkey: h.RequestPasskey,
	}
}

// Import decides on the events of a new user.
func (h Human) Import(f Facts) Decision {
	needs := h.Codes()
	events := make([]Event, 0, 8+len(h.IDPLinks))
	added := HumanAdded{Job: f.Job, Line: f.Line, UserName: h.UserName, Profile: h.Profile, Email: h.Email.Address, ExternalID: h.ExternalID}
	if h.Phone != nil {
		added.Phone = h.Phone.Number
	}
	events = append(events, added)
	if h.Email.Verified {
		events = append(events, EmailVerified{})
	}
	if h.Phone != nil && h.Phone.Verified {
		events = append(events, PhoneVerified{})
	}
	switch {
	case h.NeedsHash():
		events = append(events, PasswordSet{Hash: f.PasswordHash, ChangeRequired: h.ChangeRequired, Format: HouseFormat})
	case h.PasswordHash != "":
		events = append(events, PasswordSet{Hash: h.PasswordHash, ChangeRequired: h.ChangeRequired, Format: h.PasswordFormat, Weak: h.PasswordWeak})
	case h.OldSystem:
		events = append(events, PasswordDelegated{Job: f.Job, ChangeRequired: h.ChangeRequired})
	}
	if h.TOTPSecret != "" {
		events = append(events, TOTPAdded{Secret: h.TOTPSecret})
	}
	for _, l := range h.IDPLinks {
		events = append(events, IDPLinked(l))
	}
	if len(h.Metadata) > 0 {
		events = append(events, MetadataSet{Entries: h.Metadata})
	}
	if needs.Init {
		events = append(events, InitializationCodeAdded{f.Init.sent(f.At, h.Silent)})
	}
	if needs.Email {
		events = append(events, EmailCodeAdded{f.Email.sent(f.At, h.Silent || h.Email.Mode == VerifyReturn), h.Email.URLTemplate})
	}
	if needs.Phone {
		events = append(events, PhoneCodeAdded{f.Phone.sent(f.At, h.Silent || h.Phone.Mode == VerifyReturn)})
	}
	if needs.Passkey {
		events = append(events, PasskeyRegistrationRequested{
			CodeID: f.Passkey.ID, Secret: f.Passkey.Secret, Lifetime: f.Passkey.Lifetime, Issued: micros(f.At),
		})
	}
	switch h.State {
	case StateInactive:
		events = append(events, UserDeactivated{})
	case StateLocked:
		events = append(events, UserLocked{})
	}
	stream := h.UserID
	if stream == "" {
		stream = f.UserID
	}
	return Decision{Stream: stream, Org: f.Org, Events: events, Take: h.Claims()}
}

// Claims are what the user will own.
func (h Human) Claims() []Claim {
	claims := make([]Claim, 0, 1+len(h.IDPLinks))
	claims = append(claims, LoginNameClaim(h.UserName))
	for _, l := range h.IDPLinks {
		claims = append(claims, IDPLinkClaim(l.ConfigID, l.ExternalUserID))
	}
	return claims
}

// micros cuts a time to what events store.
func micros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
