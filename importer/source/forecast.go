package source

import (
	"errors"
	"maps"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// Forecast says how the people of an import will get in at their first login.
// The zero value is ready; each user is fed in with Add, and only those that
// the import takes (or, in a dry run, would take) should be.
//
// Users is the sum of Password, IDP, Passkey, Reset, Blocked and Cannot: each
// person is counted once, by the first of these that holds, Blocked and Cannot
// before all. How many have a second factor, must set a new password or have
// to prove their address first is counted beside that.
type Forecast struct {
	// Users is how many people there are.
	Users int64 `json:"users"`
	// Password: they have a password that can be verified.
	Password int64 `json:"password"`
	// IDP: no such password, but a link to a provider.
	IDP int64 `json:"idp"`
	// Passkey: neither, but they get a link to register a passkey.
	Passkey int64 `json:"passkey"`
	// Reset: nothing of these; an address to send a code to.
	Reset int64 `json:"reset"`
	// Blocked: inactive or locked, as they were at the source.
	Blocked int64 `json:"blocked"`
	// Cannot: no way in at all.
	Cannot int64 `json:"cannot"`

	// Unverified are those counted under Password or IDP whose e-mail address
	// is not verified: they may have to enter a code from a mail as well.
	Unverified int64 `json:"unverified"`
	// ChangeRequired must set a new password at their first login.
	ChangeRequired int64 `json:"changeRequired"`
	// TOTP have a second factor.
	TOTP int64 `json:"totp"`
	// Formats has each hash format with its users, "plain" for passwords that
	// are hashed here.
	Formats map[string]FormatForecast `json:"formats,omitempty"`
	// Refused has, by reason, the hashes that nobody here can verify.
	Refused map[string]int64 `json:"refused,omitempty"`
}

// FormatForecast is what is said of one hash format.
type FormatForecast struct {
	Users int64 `json:"users"`
	// Weak are those whose hash an attacker would have it too easy with; it
	// is replaced at the first login. Weakness says why (of the last one).
	Weak     int64  `json:"weak,omitempty"`
	Weakness string `json:"weakness,omitempty"`
	// Secret are those whose hash needs a project's secret.
	Secret int64 `json:"secret,omitempty"`
}

// Plain is the name in Formats of passwords that came in clear.
const Plain = "plain"

// Add counts one user.
func (f *Forecast) Add(c domain.ImportHuman) {
	f.Users++
	usable := f.password(c)
	if c.TOTPSecret != "" {
		f.TOTP++
	}
	switch {
	case c.State == domain.StateInactive || c.State == domain.StateLocked:
		f.Blocked++
		return
	case usable:
		f.Password++
		if c.ChangeRequired {
			f.ChangeRequired++
		}
	case len(c.IDPLinks) > 0:
		f.IDP++
	case c.RequestPasskey:
		f.Passkey++
		return
	case c.Email.Address != "":
		f.Reset++
		return
	default:
		f.Cannot++
		return
	}
	if !c.Email.Verified {
		f.Unverified++
	}
}

// password counts the password and reports whether it can be verified.
func (f *Forecast) password(c domain.ImportHuman) bool {
	if f.Formats == nil {
		f.Formats, f.Refused = map[string]FormatForecast{}, map[string]int64{}
	}
	if c.HashedPassword == "" {
		if c.Password == "" {
			return false
		}
		p := f.Formats[Plain]
		p.Users++
		f.Formats[Plain] = p
		return true
	}
	format, err := password.Recognise(c.HashedPassword)
	if err != nil {
		var e *password.Error
		if errors.As(err, &e) {
			tally(f.Refused, e.Error())
		}
		return false
	}
	p := f.Formats[format.Name]
	p.Users++
	if format.Weak() {
		p.Weak++
		p.Weakness = format.Weakness
	}
	if format.Secret != "" {
		p.Secret++
	}
	f.Formats[format.Name] = p
	return true
}

// Merge adds another forecast's counts, as when a job is resumed.
func (f *Forecast) Merge(o Forecast) {
	f.Users += o.Users
	f.Password += o.Password
	f.IDP += o.IDP
	f.Passkey += o.Passkey
	f.Reset += o.Reset
	f.Blocked += o.Blocked
	f.Cannot += o.Cannot
	f.Unverified += o.Unverified
	f.ChangeRequired += o.ChangeRequired
	f.TOTP += o.TOTP
	if f.Formats == nil {
		f.Formats, f.Refused = maps.Clone(o.Formats), maps.Clone(o.Refused)
		return
	}
	for name, p := range o.Formats {
		q := f.Formats[name]
		q.Users, q.Weak, q.Secret = q.Users+p.Users, q.Weak+p.Weak, q.Secret+p.Secret
		q.Weakness = firstOf(p.Weakness, q.Weakness)
		f.Formats[name] = q
	}
	for reason, n := range o.Refused {
		f.Refused[reason] += n
	}
}
