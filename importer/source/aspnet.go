package source

import (
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// Second files of ASP.NET Core Identity.
const (
	partLogins Part = "logins"
	partTokens Part = "tokens"
	partClaims Part = "claims"
)

// aspNet reads AspNetUsers and beside it AspNetUserLogins, AspNetUserTokens and
// AspNetUserClaims, as CSV or JSON (docs/sources/aspnet.md).
var aspNet = &spec{
	csv:     dialect{nulls: true},
	convert: convertASPNet,
	parts: map[Part]part{
		partLogins: columns("UserId", "LoginProvider", "ProviderKey", "ProviderDisplayName"),
		partTokens: {func(v value, l *losses) (keys, fields []string) {
			if k := v.get("UserId").str(); k != "" {
				keys = append(keys, k)
			}
			v.get("LoginProvider").use()
			switch name := v.get("Name").str(); name {
			case "AuthenticatorKey", "RecoveryCodes":
				return keys, []string{name, v.get("Value").str()}
			default:
				l.add("tokens[" + name64(name) + "]")
				v.use()
				return keys, nil
			}
		}},
		partClaims: {func(v value, _ *losses) (keys, fields []string) {
			v.get("Id").use()
			if k := v.get("UserId").str(); k != "" {
				keys = append(keys, k)
			}
			return keys, []string{v.get("ClaimType").str(), v.get("ClaimValue").str()}
		}},
	},
}

func convertASPNet(w *row) error {
	w.source(w.get("Id"))
	w.names(w.get("FirstName"), w.get("LastName"), w.get("FullName"), w.get("DisplayName"), value{})
	w.userName(w.get("UserName"))
	w.email(w.get("Email"), w.get("EmailConfirmed"))
	w.phones(w.get("PhoneNumberConfirmed"), w.get("PhoneNumber"))
	w.ignore("NormalizedUserName", "NormalizedEmail", "SecurityStamp", "ConcurrencyStamp", "LockoutEnabled", "AccessFailedCount")
	if t, ok := w.get("LockoutEnd").time(); ok && t.After(time.Unix(w.r.opts.Now, 0)) {
		w.cmd().State = domain.StateLocked
	}
	if hash := w.get("PasswordHash").str(); hash != "" {
		w.hash(password.FromASPNet(hash))
	}
	claims, err := w.sides(partClaims, w.id)
	if err != nil {
		return err
	}
	p := &w.cmd().Profile
	for _, f := range claims {
		kind := f[0][strings.LastIndexByte(f[0], '/')+1:]
		switch strings.ToLower(kind) {
		case "givenname", "given_name":
			p.FirstName = firstOf(p.FirstName, f[1])
		case "surname", "family_name":
			p.LastName = firstOf(p.LastName, f[1])
		case "name":
			w.full = firstOf(w.full, f[1])
		case "locale", "locality":
			p.PreferredLanguage = firstOf(p.PreferredLanguage, language(f[1]))
		default:
			w.metadata(f[0], []byte(f[1]))
		}
	}
	links, err := w.sides(partLogins, w.id)
	if err != nil {
		return err
	}
	for _, f := range links {
		w.link(f[0], f[1], f[2])
	}
	second := w.get("TwoFactorEnabled").flag()
	tokens, err := w.sides(partTokens, w.id)
	for _, f := range tokens {
		switch {
		case f[0] == "RecoveryCodes":
			w.factor("recovery codes can't be taken")
		case second:
			w.totp(f[1])
		}
		// A key without the flag was shown once and never confirmed.
	}
	if second && w.cmd().TOTPSecret == "" {
		w.factor("the authenticator's key is not in the files")
	}
	return err
}
