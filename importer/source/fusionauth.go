package source

import (
	"encoding/base64"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// fusionAuth reads the body of FusionAuth's user import, which is also what
// people make of its database (docs/sources/fusionauth.md).
var fusionAuth = &spec{
	wrappers: []string{"users"},
	settings: []string{"encryptionScheme", "factor", "validateDbConstraints", "total"},
	convert:  convertFusionAuth,
}

func convertFusionAuth(w *row) error {
	w.source(w.get("id"))
	w.names(w.get("firstName"), w.get("lastName"), w.get("fullName"), w.get("fullName"), value{})
	w.userName(w.get("username"))
	w.email(w.get("email"), w.get("verified"))
	w.phones(value{}, w.get("mobilePhone"))
	w.language(w.get("preferredLanguages"))
	if a := w.get("active"); a.d != nil && !a.flag() {
		w.cmd().State = domain.StateInactive
	}
	w.members(w.get("data"), "")

	if sum := w.get("password").str(); sum != "" {
		scheme := w.get("encryptionScheme").str()
		factor, ok := w.get("factor").int()
		if d, in := w.r.current.(*docRows); in {
			if scheme == "" {
				scheme = d.setting("encryptionScheme").str()
			}
			if !ok {
				factor, ok = d.setting("factor").int()
			}
		}
		scheme = firstOf(scheme, w.r.opts.Scheme)
		if !ok {
			factor = int64(max(w.r.opts.Factor, 1))
		}
		salt := w.get("salt").str()
		if scheme == "" {
			w.noHash("neither the user nor the document in front of it names the encryption scheme")
		} else {
			w.hash(password.FromFusionAuth(scheme, int(factor), salt, sum))
		}
	}
	if w.get("passwordChangeRequired").flag() {
		w.cmd().ChangeRequired = w.cmd().HashedPassword != ""
	}
	for m := range w.get("twoFactor", "methods").elements() {
		m.get("id").use()
		if kind := m.get("method").str(); kind != "authenticator" {
			w.factor("a second factor by message can't be taken")
			continue
		}
		a := m.get("authenticator")
		if !w.totpKind("totp", a.get("algorithm").str(), a.get("codeLength").str(), a.get("timeStep").str()) {
			m.get("secret").use()
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(m.get("secret").str())
		if err != nil || len(secret) == 0 {
			w.factor("the TOTP secret is not base64")
			continue
		}
		w.totp(bare32.EncodeToString(secret))
	}
	return nil
}
