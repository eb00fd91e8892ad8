package source

import (
	"fmt"
	"strings"

	"github.com/muster-id/muster/domain"
)

// partPasswords is Auth0's file of hashes, which its support hands out.
const partPasswords Part = "passwords"

// auth0 reads a user export job's NDJSON or CSV, beside it the hashes
// (docs/sources/auth0.md). The two belong together by the user's id: an
// address may be in several connections, each with a password of its own.
var auth0 = &spec{
	wrappers: []string{"users"},
	settings: []string{"start", "limit", "length", "total"},
	convert:  convertAuth0,
	parts: map[Part]part{partPasswords: {func(v value, _ *losses) (keys, fields []string) {
		for _, id := range []value{v.get("_id", "$oid"), v.get("_id"), v.get("alt_id")} {
			if s := id.str(); s != "" {
				keys = append(keys, s)
			}
		}
		// Who it is and where, the users' file says itself.
		for _, name := range []string{"email", "email_verified", "tenant", "connection", "_tmp_is_unique"} {
			v.get(name).use()
		}
		return keys, []string{v.get("passwordHash").str()}
	}}},
}

func convertAuth0(w *row) error {
	w.source(w.get("user_id"), w.get("Id"), w.get("id"))
	id := w.id
	w.names(w.get("given_name"), w.get("family_name"), w.get("name"), w.get("name"), w.get("nickname"))
	if w.cmd().Profile.DisplayName == w.get("email").peek() {
		// Auth0 fills name with the address when there is none.
		w.cmd().Profile.DisplayName, w.full = "", ""
	}
	w.userName(w.get("username"))
	w.email(w.get("email"), w.get("email_verified"))
	w.phones(w.get("phone_verified"), w.get("phone_number"))
	w.language(w.get("locale"))
	if w.get("blocked").flag() {
		w.cmd().State = domain.StateLocked
	}
	if strings.HasPrefix(id, "sms|") && w.phone == "" {
		w.phone, w.phoneVerified = w.pick("phone", w.get("name")), true
	}
	w.members(w.get("user_metadata"), "user_metadata.")
	w.members(w.get("app_metadata"), "app_metadata.")

	// All ids under which the user may have a password: the account's own
	// first, then those of accounts that were linked to it.
	var ids []string
	if own, ok := strings.CutPrefix(id, "auth0|"); ok {
		ids = append(ids, own)
	}
	identity := func(provider, user, connection string) {
		switch provider {
		case "auth0":
			ids = append(ids, user)
		case "sms", "email": // a code by message: no provider, no password
		default:
			name := connection
			if _, ok := w.r.opts.Map.IDPs[name]; !ok {
				if _, ok := w.r.opts.Map.IDPs[provider]; ok || name == "" {
					name = provider
				}
			}
			w.link(name, user, "")
		}
	}
	for e := range w.get("identities").elements() {
		e.get("isSocial").use()
		identity(e.get("provider").str(), e.get("user_id").str(), e.get("connection").str())
	}
	for i := 0; ; i++ { // as CSV columns
		prefix := fmt.Sprintf("identities[%d].", i)
		user := w.get(prefix + "user_id")
		if user.d == nil {
			break
		}
		w.ignore(prefix + "isSocial")
		identity(w.get(prefix+"provider").str(), user.str(), w.get(prefix+"connection").str())
	}
	return w.auth0Password(ids)
}

func (w *row) auth0Password(ids []string) error {
	w.hash(w.get("password_hash").str(), nil) // the form of Auth0's import
	for i, id := range ids {
		if i > 0 && id == ids[0] {
			continue
		}
		found, err := w.sides(partPasswords, id)
		if err != nil {
			return err
		}
		for _, f := range found {
			switch {
			case w.cmd().HashedPassword == "":
				w.hash(f[0], nil)
			case w.cmd().HashedPassword != f[0]:
				w.warn("hashedPassword", "the user has several passwords; that of the main account was kept")
			}
		}
	}
	for e := range w.get("mfa_factors").elements() {
		w.totp(e.get("totp", "secret").str())
	}
	return nil
}
