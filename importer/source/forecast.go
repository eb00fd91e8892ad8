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
// Users is the sum of Password, OldSystem, IDP, Passkey, Verify, Reset, Blocked and
// Cannot: each person is counted once. It follows the import's own rule for
// who has to complete the account by a mail first (domain.Human.Codes), so that
// Password is exactly who can log in with the old password at once.
type Forecast struct {
	// Users is how many people there are.
	Users int64 `json:"users"`
	// Password: they have a password that can be verified, and nothing else
	// is asked of them.
	Password int64 `json:"password"`
	// OldSystem: they get in with their password through the system that they
	// come from, which checks it at the first login.
	OldSystem int64 `json:"oldSystem"`
	// IDP: no such password, but a link to a provider.
	IDP int64 `json:"idp"`
	// Passkey: neither, but a link to register a passkey.
	Passkey int64 `json:"passkey"`
	// Verify: a password or the link for a passkey, but an e-mail address that
	// is not verified: a code from a mail comes first, then these serve.
	Verify int64 `json:"verify"`
	// Reset: none of these; an address that a code can be sent to, with which
	// they set a password.
	Reset int64 `json:"reset"`
	// Blocked: inactive or locked, as they were at the source.
	Blocked int64 `json:"blocked"`
	// Cannot: no way in at all.
	Cannot int64 `json:"cannot"`

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
	// The rule of domain.Human: no provider vouches for the person, and the
	// address is not known to be theirs or there is nothing to log in with.
	asked := !usable && c.OldSystem && (c.HashedPassword != "" || len(c.IDPLinks) == 0)
	way := usable || asked || c.RequestPasskey
	initial := c.Email.Mode == domain.VerifyByRule && len(c.IDPLinks) == 0 && (!c.Email.Verified || !way)
	switch {
	case c.State == domain.StateInactive || c.State == domain.StateLocked:
		f.Blocked++
		return
	case c.Email.Address == "" && (initial || !way && len(c.IDPLinks) == 0):
		f.Cannot++
		return
	case initial && way:
		f.Verify++
	case usable:
		f.Password++
	case asked:
		f.OldSystem++
	case len(c.IDPLinks) > 0:
		f.IDP++
	case c.RequestPasskey:
		f.Passkey++
	default:
		f.Reset++
	}
	if (usable || asked) && c.ChangeRequired {
		f.ChangeRequired++
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
	f.OldSystem += o.OldSystem
	f.IDP += o.IDP
	f.Passkey += o.Passkey
	f.Reset += o.Reset
	f.Blocked += o.Blocked
	f.Cannot += o.Cannot
	f.Verify += o.Verify
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
