package domain

import (
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/muster-id/muster/domain/password"
)

// The limits of an import, in characters (runes) unless said otherwise.
const (
	maxName          = 200
	maxExternalID    = 1000
	maxEmailBytes    = 254
	maxLocalBytes    = 64
	maxPhone         = 200
	maxLanguageBytes = 35
	maxMetadataKey   = 200
	maxMetadataBytes = 500_000
)

// Warning is something that a caller should hear of although the import goes
// on. Text holds no value that the caller sent.
type Warning struct {
	// Field is the JSON path, as in Error.Field.
	Field string
	Text  string
}

// undetermined is the language tag of a person whose language is not known.
const undetermined = "und"

// Normalise checks the whole command and brings it into its final form. The
// error is an *Error about the first broken rule, in the wire's order: user
// name, profile, e-mail, phone, reserved domains, password, hash, provider links; then our own:
// TOTP secret, metadata, state, ids.
//
// It repeats the limits that the wire's edge has, so that sources which do not
// pass the edge cannot bring anything in that the edge would have refused.
func (c ImportHuman) Normalise(p Policy) (Human, []Warning, error) {
	n := normaliser{policy: p, h: Human{
		RequestPasskey: c.RequestPasskey, Silent: c.Silent, PasskeyOrigin: c.PasskeyOrigin,
		Email: c.Email,
	}}
	for _, step := range [...]func(*ImportHuman) error{
		n.names, n.email, n.userName, n.phone, n.reserved, n.password, n.idpLinks, n.totp, n.metadata, n.rest,
	} {
		if err := step(&c); err != nil {
			return Human{}, nil, err
		}
	}
	return n.h, n.warnings, nil
}

type normaliser struct {
	policy   Policy
	h        Human
	warnings []Warning
}

func (n *normaliser) warn(field, text string) {
	n.warnings = append(n.warnings, Warning{Field: field, Text: text})
}

// text checks a string that ends up in the database: PostgreSQL's text can
// hold neither NUL nor invalid UTF-8. The limit is in runes.
func text(field, s string, limit int) error {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 || s[i] >= utf8.RuneSelf {
			if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				return ErrTextInvalid.OnField(field)
			}
			break
		}
	}
	if len(s) > limit && utf8.RuneCountInString(s) > limit {
		return ErrTooLong.OnField(field)
	}
	return nil
}

// names judges the user name and the profile.
func (n *normaliser) names(c *ImportHuman) error {
	n.h.UserName = strings.TrimSpace(c.UserName)
	if n.h.UserName == "" && !c.UserNameFallback {
		return ErrUserNameEmpty
	}
	if err := text("userName", n.h.UserName, maxName); err != nil {
		return err
	}
	profile, warning, err := c.Profile.normalise(c.TrimNames)
	if warning != nil {
		n.warnings = append(n.warnings, *warning)
	}
	n.h.Profile = profile
	return err
}

// Normalise brings a profile into the form that events have, for the commands
// of a user's later life. The warning is nil or about the language.
func (p Profile) Normalise() (Profile, *Warning, error) { return p.normalise(true) }

func (p Profile) normalise(trim bool) (Profile, *Warning, error) {
	if trim {
		for _, s := range [...]*string{&p.FirstName, &p.LastName, &p.NickName, &p.DisplayName} {
			*s = strings.TrimSpace(*s)
		}
	}
	switch {
	case p.FirstName == "":
		return p, nil, ErrFirstNameEmpty
	case p.LastName == "":
		return p, nil, ErrLastNameEmpty
	}
	for _, f := range [...]struct{ field, value string }{
		{"profile.firstName", p.FirstName}, {"profile.lastName", p.LastName},
		{"profile.nickName", p.NickName}, {"profile.displayName", p.DisplayName},
	} {
		if err := text(f.field, f.value, maxName); err != nil {
			return p, nil, err
		}
	}
	if p.DisplayName == "" {
		p.DisplayName = p.FirstName + " " + p.LastName
	}
	if p.Gender < GenderUnspecified || p.Gender > GenderDiverse {
		p.Gender = GenderUnspecified
	}
	var warning *Warning
	p.PreferredLanguage, warning = normaliseLanguage(p.PreferredLanguage)
	return p, warning, nil
}

// normaliseLanguage returns the canonical BCP 47 tag, as far as there is one
// in s: a part that is unknown or malformed is left out.
func normaliseLanguage(s string) (string, *Warning) {
	if s == "" {
		return undetermined, nil
	}
	if len(s) == 2 && canonicalPairs()[pair(s[0], s[1])] {
		return s, nil
	}
	tag := undetermined
	if len(s) <= maxLanguageBytes {
		// An error still comes with the part of the tag that was understood.
		t, _ := language.Parse(s)
		tag = t.String()
	}
	if tag == undetermined && !strings.EqualFold(s, undetermined) {
		return tag, &Warning{Field: "profile.preferredLanguage", Text: "not a language; und was stored"}
	}
	return tag, nil
}

// canonicalPairs tells which languages of two small letters are in canonical
// form already, which nearly all are that come: parsing costs as much as a tenth
// of the rest of an import's rules.
var canonicalPairs = sync.OnceValue(func() *[1 << 16]bool {
	var known [1 << 16]bool
	for a := byte('a'); a <= 'z'; a++ {
		for b := byte('a'); b <= 'z'; b++ {
			s := string([]byte{a, b})
			t, err := language.Parse(s)
			known[pair(a, b)] = err == nil && t.String() == s
		}
	}
	return &known
})

func pair(a, b byte) uint16 { return uint16(a)<<8 | uint16(b) }

func (n *normaliser) email(*ImportHuman) (err error) {
	n.h.Email.Address, err = NormaliseEmail(n.h.Email.Address)
	if err == nil {
		err = text("email.urlTemplate", n.h.Email.URLTemplate, 2000)
	}
	return err
}

// NormaliseEmail trims an e-mail address and checks it: what net/mail reads as
// a bare address, with a local part of at most 64 and 254 bytes in all. Case
// is kept.
func NormaliseEmail(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", ErrEmailEmpty
	}
	if len(s) > maxEmailBytes {
		return "", ErrEmailInvalid
	}
	if err := text("email.email", s, maxEmailBytes); err != nil {
		return "", err
	}
	a, err := mail.ParseAddress(s)
	switch {
	case err != nil:
		return "", ErrEmailInvalid
	case a.Name != "":
		return "", ErrEmailNamed
	case a.Address != s || strings.LastIndexByte(s, '@') > maxLocalBytes:
		return "", ErrEmailInvalid
	}
	return s, nil
}

// userName settles the fall-back, once the e-mail address is known to be good.
func (n *normaliser) userName(*ImportHuman) error {
	if n.h.UserName == "" {
		n.h.UserName = n.h.Email.Address
	}
	return text("userName", n.h.UserName, maxName)
}

func (n *normaliser) phone(c *ImportHuman) error {
	if c.Phone == nil {
		return nil
	}
	number, err := NormalisePhone(c.Phone.Number)
	if err != nil {
		return err
	}
	phone := *c.Phone
	phone.Number = number
	n.h.Phone = &phone
	return nil
}

// reserved judges the user name's domain, once everything else that the edge
// knows is in its final form.
func (n *normaliser) reserved(*ImportHuman) error { return n.policy.checkReserved(n.h.UserName) }

// password judges the hash, or else the plain password; beside a hash the
// plain one is dropped unseen.
func (n *normaliser) password(c *ImportHuman) error {
	n.h.ChangeRequired = c.ChangeRequired
	switch {
	case c.HashedPassword != "":
		format, err := n.policy.recognise(c.HashedPassword)
		if err != nil && c.OldSystem {
			n.h.OldSystem = true
			n.warn("hashedPassword.value", "the hash cannot be verified; the old system is asked at the first login")
			return nil
		}
		if err != nil {
			return ErrHashUnsupported.Because(err)
		}
		if err := text("hashedPassword.value", c.HashedPassword, password.MaxEncoded); err != nil {
			return err
		}
		if format.Weak() {
			n.warn("hashedPassword.value", "the hash is weak: "+format.Weakness)
		}
		n.h.PasswordHash, n.h.PasswordFormat, n.h.PasswordWeak = c.HashedPassword, format.Name, format.Weak()
	case c.Password != "":
		if err := CheckPlain(c.Password); err != nil {
			return err
		}
		if err := n.policy.CheckPassword(c.Password); err != nil {
			return err
		}
		n.h.Password = c.Password
	case c.OldSystem && len(c.IDPLinks) == 0:
		n.h.OldSystem = true
	case c.ChangeRequired:
		n.h.ChangeRequired = false
		n.warn("passwordChangeRequired", "ignored, because there is no password to change")
	}
	return nil
}

// CheckPlain says whether a plain password can be hashed at all: valid UTF-8
// without a NUL, at most password.MaxPlain bytes. The policy is another matter.
func CheckPlain(plain string) error {
	if err := text("password", plain, password.MaxPlain); err != nil {
		return err
	}
	if len(plain) > password.MaxPlain {
		return ErrTooLong.OnField("password")
	}
	return nil
}

func (n *normaliser) idpLinks(c *ImportHuman) error {
	for i, l := range c.IDPLinks {
		field := func(name string) string { return fmt.Sprintf("idps[%d].%s", i, name) }
		switch {
		case l.ConfigID == "":
			return ErrIDPLinkInvalid.OnField(field("configId"))
		case l.ExternalUserID == "":
			return ErrIDPLinkInvalid.OnField(field("externalUserId"))
		case n.policy.IDPConfigs != nil && !slices.Contains(n.policy.IDPConfigs, l.ConfigID):
			return ErrIDPConfigUnknown.OnField(field("configId"))
		}
		if err := text(field("configId"), l.ConfigID, maxName); err != nil {
			return err
		}
		if err := text(field("externalUserId"), l.ExternalUserID, maxName); err != nil {
			return err
		}
		if err := text(field("displayName"), l.DisplayName, maxName); err != nil {
			return err
		}
		for _, other := range c.IDPLinks[:i] {
			if IDPLinkClaim(other.ConfigID, other.ExternalUserID) == IDPLinkClaim(l.ConfigID, l.ExternalUserID) {
				return ErrIDPLinkTaken.OnField(field("externalUserId"))
			}
		}
	}
	n.h.IDPLinks = slices.Clone(c.IDPLinks)
	return nil
}

func (n *normaliser) totp(c *ImportHuman) error {
	if c.TOTPSecret == "" {
		return nil
	}
	secret, bits, err := normaliseTOTP(c.TOTPSecret)
	if err != nil {
		return err
	}
	if bits < 80 {
		n.warn("otpCode", "the TOTP secret is shorter than 80 bits")
	}
	n.h.TOTPSecret = secret
	return nil
}

func (n *normaliser) metadata(c *ImportHuman) error {
	if len(c.Metadata) == 0 {
		return nil
	}
	entries := make([]Metadata, 0, len(c.Metadata))
	at := make(map[string]int, len(c.Metadata))
	for i, m := range c.Metadata {
		field := fmt.Sprintf("metadata[%d].", i)
		if m.Key == "" || utf8.RuneCountInString(m.Key) > maxMetadataKey {
			return ErrMetadataKey.OnField(field + "key")
		}
		if err := text(field+"key", m.Key, maxMetadataKey); err != nil {
			return err
		}
		if len(m.Value) > maxMetadataBytes {
			return ErrMetadataValue.OnField(field + "value")
		}
		if j, dup := at[m.Key]; dup {
			n.warn(field+"key", "the key occurs twice; the last value was stored")
			entries[j] = m
			continue
		}
		at[m.Key] = len(entries)
		entries = append(entries, m)
	}
	n.h.Metadata = entries
	return nil
}

// rest judges the state and the ids.
func (n *normaliser) rest(c *ImportHuman) error {
	switch c.State {
	case StateUnspecified, StateActive, StateInitial:
	case StateInactive, StateLocked:
		n.h.State = c.State
	default:
		return ErrStateInvalid
	}
	if err := text("externalId", c.ExternalID, maxExternalID); err != nil {
		return err
	}
	n.h.ExternalID = c.ExternalID
	if c.UserID != "" {
		if err := CheckUserID(c.UserID); err != nil {
			return err
		}
		n.h.UserID = c.UserID
	}
	return nil
}

// CheckUserID judges an id that a caller chose: 1 to 200 characters, no "$" in
// front (those are the service's own streams), nothing unprintable.
func CheckUserID(id string) error {
	if err := text("userId", id, maxName); err != nil {
		return err
	}
	if id == "" || id[0] == '$' || strings.ContainsFunc(id, unicode.IsControl) {
		return ErrUserIDInvalid
	}
	return nil
}
