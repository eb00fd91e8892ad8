package source

import (
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// Second files of several SQL sources.
const (
	partIdentities Part = "identities"
	partFactors    Part = "factors"
)

// supabase reads rows of auth.users, beside them auth.identities and
// auth.mfa_factors (docs/sources/supabase.md).
var supabase = &spec{
	wrappers: []string{"users"},
	settings: []string{"aud"},
	csv:      dialect{nulls: true},
	convert:  convertSupabase,
	parts: map[Part]part{
		partIdentities: {func(v value, _ *losses) (keys, fields []string) {
			if k := v.get("user_id").str(); k != "" {
				keys = append(keys, k)
			}
			v.get("id").use()
			id := v.get("provider_id").str()
			if id == "" {
				id = subOf(v.get("identity_data"))
			}
			return keys, []string{v.get("provider").str(), id, v.get("email").str()}
		}},
		partFactors: columns("user_id", "factor_type", "status", "secret"),
	},
}

// subOf reads identity_data.sub, of JSON or of a string that holds some.
func subOf(v value) string {
	if v.kind() == text {
		var d doc
		if d.parse(v.node().text) != nil {
			return ""
		}
		v.use()
		return d.root().get("sub").str()
	}
	return v.get("sub").str()
}

func convertSupabase(w *row) error {
	switch {
	case w.get("is_anonymous").flag():
		return w.skip("anonymous user")
	case w.get("deleted_at").set():
		return w.skip("deleted")
	}
	w.source(w.get("id"))
	w.userName()
	w.email(w.get("email"), value{})
	if at := w.get("email_confirmed_at"); at.d != nil {
		w.setVerified(at.set())
	} else if at := w.get("confirmed_at"); at.d != nil {
		w.setVerified(at.set())
	}
	w.ignore("confirmed_at", "instance_id", "aud", "role", "is_sso_user")
	w.phones(value{}, w.get("phone"))
	w.phoneVerified = w.get("phone_confirmed_at").set()
	if w.phone != "" && !strings.HasPrefix(w.phone, "+") {
		w.phone = "+" + w.phone // stored in E.164, less the sign
	}
	w.falsy("is_super_admin")
	if until := w.get("banned_until"); until.set() {
		if t, ok := until.time(); !ok || t.After(time.Unix(w.r.opts.Now, 0)) {
			w.cmd().State = domain.StateLocked // not a time: "infinity"
		}
	}
	if hash := w.get("encrypted_password").str(); hash != "" {
		w.hash(password.Lift(hash, w.r.opts.Secrets, w.secretBase()))
	}
	if err := w.supabaseIdentities(); err != nil {
		return err
	}
	factors, err := w.sides(partFactors, w.id)
	if err != nil {
		return err
	}
	for _, f := range factors {
		switch {
		case f[1] != "verified": // begun, never finished
		case f[0] != "totp":
			w.factor("a second factor that is not TOTP can't be taken")
		default:
			w.totp(f[2])
		}
	}
	// One string of a row is looked into at a time: names last.
	app := firstThere(w.get("raw_app_meta_data"), w.get("app_metadata"))
	if m, ok := w.inner(app); ok {
		m.get("provider").use()
		m.get("providers").use()
		w.members(m, "app_metadata.")
	}
	user := firstThere(w.get("raw_user_meta_data"), w.get("user_metadata"))
	m, _ := w.inner(user)
	w.names(m.any("first_name", "given_name"), m.any("last_name", "family_name"), m.any("full_name", "name"),
		m.any("full_name", "name", "display_name"), m.any("user_name", "preferred_username", "nickname"))
	w.language(m.any("locale", "language"))
	if m.d != nil {
		for _, said := range []string{"email", "email_verified", "phone_verified", "sub", "iss"} {
			m.get(said).use() // the provider's copy of what the row says itself
		}
		w.members(m, "user_metadata.")
	}
	return nil
}

// firstThere is the first of the values that has something in it.
func firstThere(vs ...value) value {
	for _, v := range vs {
		if !v.empty() {
			return v
		}
	}
	return value{}
}

func (w *row) supabaseIdentities() error {
	link := func(provider, id, email string) {
		if provider != "email" && provider != "phone" {
			w.link(provider, id, email)
		}
	}
	own := w.get("identities")
	ids, ok := w.inner(own)
	if ok {
		for e := range ids.elements() {
			id := e.get("provider_id").str()
			sub := subOf(e.get("identity_data"))
			if id == "" {
				id = sub
			}
			link(e.get("provider").str(), id, e.get("email").str())
		}
	}
	rows, err := w.sides(partIdentities, w.id)
	for _, f := range rows {
		link(f[0], f[1], f[2])
	}
	return err
}
