package source

import (
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// kratos reads identities as Ory Kratos' admin API takes and lists them
// (docs/sources/kratos.md). Traits have the operator's own schema: common names
// are tried, --map names others.
var kratos = &spec{wrappers: []string{"identities"}, convert: convertKratos}

func convertKratos(w *row) error {
	w.source(w.get("id"))
	t := w.get("traits")
	full := t.get("name")
	if full.kind() == object {
		full = value{}
	}
	w.names(
		t.any("name.first", "name.given", "name.first_name", "first_name", "firstName", "given_name"),
		t.any("name.last", "name.family", "name.last_name", "last_name", "lastName", "family_name"),
		full, t.any("display_name", "displayName"), t.any("nickname", "nick_name"))
	w.userName(t.any("username", "user_name", "userName", "login"))
	w.email(t.any("email", "emails"), value{})
	w.phones(value{}, t.any("phone", "phone_number", "phoneNumber", "mobile"))
	w.language(t.any("locale", "language", "preferred_language"))
	w.gender(t.any("gender"))
	if w.get("state").str() == "inactive" {
		w.cmd().State = domain.StateInactive
	}
	for a := range w.get("verifiable_addresses").elements() {
		v := a.get("value").peek()
		switch {
		case strings.EqualFold(v, w.cmd().Email.Address):
			w.setVerified(a.get("verified").flag())
			a.use()
		case w.phone != "" && v == w.phone:
			w.phoneVerified = a.get("verified").flag()
			a.use()
		}
	}
	for a := range w.get("recovery_addresses").elements() {
		if strings.EqualFold(a.get("value").peek(), w.cmd().Email.Address) {
			a.use()
		}
	}
	if v := w.get("external_id"); !v.empty() {
		w.metadata("external_id", v.json())
	}
	w.members(w.get("metadata_public"), "metadata_public.")
	w.members(w.get("metadata_admin"), "metadata_admin.")
	w.kratosCredentials(w.get("credentials"))
	w.ignore("schema_id", "schema_url", "state_changed_at")
	w.members(t, "traits.")
	return nil
}

// any finds the first of some dotted paths that is there.
func (v value) any(paths ...string) value {
	for _, p := range paths {
		if w := v.path(p); !w.empty() {
			return w
		}
	}
	return value{}
}

func (w *row) kratosCredentials(c value) {
	for kind := range c.elements() {
		for _, name := range []string{"type", "identifiers", "version", "created_at", "updated_at"} {
			kind.get(name).use()
		}
		config := kind.get("config")
		switch kind.key() {
		case "password":
			switch hash := config.get("hashed_password").str(); {
			case hash != "":
				w.hash(password.FromKratos(hash, w.r.opts.Secrets, w.secretBase()))
			case !config.get("password").empty():
				w.cmd().Password = config.get("password").str()
			case config.get("use_password_migration_hook").flag():
				w.noHash("Kratos itself still had to ask another system for the password")
			}
		case "oidc", "saml":
			for p := range config.get("providers").elements() {
				w.link(p.get("provider").str(), p.get("subject").str(), "")
				p.get("use_auto_link").use()
			}
		case "totp":
			w.totp(config.get("totp_url").str())
		case "webauthn", "passkey":
			w.factor("passkeys are bound to the old address and can't be taken")
		case "lookup_secret":
			w.factor("recovery codes can't be taken")
		}
	}
}
