package source

import (
	"encoding/base64"
	"maps"
	"slices"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/importer/jsontext"
)

// AppendLine appends a user to dst as a line of our own stream, with its line
// break: what `muster export` writes and an import reads. ParseLine gives the
// same command back, except that what has no place in the stream (how codes
// are sent, user name fall-backs) is the reader's to decide, and that
// StateActive and StateInitial come back as StateUnspecified.
//
// The line holds the hash and the TOTP secret in clear: it is meant for the one
// who may have them. Empty fields are left out. The error is about a state
// that cannot be imported.
func AppendLine(dst []byte, c domain.ImportHuman) ([]byte, error) {
	state, err := stateName(c.State)
	if err != nil {
		return dst, err
	}
	w := lineWriter{dst}
	w.open('{')
	w.text("userId", c.UserID)
	w.text("userName", c.UserName)
	w.object("profile")
	w.text("firstName", c.Profile.FirstName)
	w.text("lastName", c.Profile.LastName)
	w.text("nickName", c.Profile.NickName)
	w.text("displayName", c.Profile.DisplayName)
	w.text("preferredLanguage", c.Profile.PreferredLanguage)
	if g := c.Profile.Gender; g > 0 && int(g) < len(genders) {
		w.text("gender", genders[g])
	}
	w.shut('}')
	w.object("email")
	w.text("email", c.Email.Address)
	w.flag("isEmailVerified", c.Email.Verified)
	w.shut('}')
	if c.Phone != nil {
		w.object("phone")
		w.text("phone", c.Phone.Number)
		w.flag("isPhoneVerified", c.Phone.Verified)
		w.shut('}')
	}
	w.text("password", c.Password)
	if c.HashedPassword != "" {
		w.object("hashedPassword")
		w.text("value", c.HashedPassword)
		w.shut('}')
	}
	w.flag("passwordChangeRequired", c.ChangeRequired)
	w.flag("requestPasswordlessRegistration", c.RequestPasskey)
	w.text("otpCode", c.TOTPSecret)
	if len(c.IDPLinks) > 0 {
		w.list("idps")
		for _, l := range c.IDPLinks {
			w.element()
			w.text("configId", l.ConfigID)
			w.text("externalUserId", l.ExternalUserID)
			w.text("displayName", l.DisplayName)
			w.shut('}')
		}
		w.shut(']')
	}
	if len(c.Metadata) > 0 {
		w.list("metadata")
		for _, m := range c.Metadata {
			w.element()
			w.text("key", m.Key)
			w.text("value", base64.StdEncoding.EncodeToString(m.Value))
			w.shut('}')
		}
		w.shut(']')
	}
	w.text("state", state)
	w.text("externalId", c.ExternalID)
	w.shut('}')
	return append(w.b, '\n'), nil
}

// FromUser is the command that would make a user as it is now, in another
// place: its id, names, addresses, hash, TOTP secret, links, metadata and state.
// What cannot move is left out: passkeys, which are bound to the address of the
// login page, pending codes, and counts of failures.
//
// A hash that was made with a project's secret (Firebase, a pepper) only names
// that secret; whoever takes the user in needs it as well.
func FromUser(u *domain.User) domain.ImportHuman {
	c := domain.ImportHuman{
		UserID: u.ID, UserName: u.UserName, Profile: u.Profile, ExternalID: u.ExternalID,
		Email:          domain.Email{Address: u.Email, Verified: u.EmailVerified},
		HashedPassword: u.PasswordHash, ChangeRequired: u.ChangeRequired && u.HasPassword,
		TOTPSecret: u.TOTPSecret, IDPLinks: slices.Clone(u.IDPLinks), State: u.State,
	}
	if u.Phone != "" {
		c.Phone = &domain.Phone{Number: u.Phone, Verified: u.PhoneVerified}
	}
	for _, key := range slices.Sorted(maps.Keys(u.Metadata)) {
		c.Metadata = append(c.Metadata, domain.Metadata{Key: key, Value: u.Metadata[key]})
	}
	return c
}

// lineWriter writes JSON; a comma goes in front of all but the first.
type lineWriter struct{ b []byte }

func (w *lineWriter) open(c byte) { w.b = append(w.b, c) }
func (w *lineWriter) shut(c byte) { w.b = append(w.b, c) }

func (w *lineWriter) comma() {
	if n := len(w.b); n > 0 && w.b[n-1] != '{' && w.b[n-1] != '[' {
		w.b = append(w.b, ',')
	}
}

func (w *lineWriter) key(k string) {
	w.comma()
	w.b = append(jsontext.AppendString(w.b, k), ':')
}

func (w *lineWriter) object(k string) { w.key(k); w.open('{') }
func (w *lineWriter) list(k string)   { w.key(k); w.open('[') }
func (w *lineWriter) element()        { w.comma(); w.open('{') }

func (w *lineWriter) text(k, v string) {
	if v != "" {
		w.key(k)
		w.b = jsontext.AppendString(w.b, v)
	}
}

func (w *lineWriter) flag(k string, v bool) {
	if v {
		w.key(k)
		w.b = append(w.b, "true"...)
	}
}
