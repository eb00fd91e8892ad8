package source

import (
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// firebase reads what `firebase auth:export` writes, as JSON or as CSV
// (docs/sources/firebase.md).
var firebase = &spec{
	wrappers: []string{"users"},
	csv:      dialect{positional: firebaseColumns()},
	convert:  convertFirebase,
}

// firebaseProviders are the providers that have four columns each in the CSV:
// from the eighth column on, and after the custom attributes.
var firebaseProviders = [2][]string{
	{"google.com", "facebook.com", "twitter.com", "github.com"},
	{"apple.com", "microsoft.com", "gc.apple.com", "playgames.google.com", "linkedin.com", "yahoo.com"},
}

// firebaseColumns names the 52 columns of the CSV, which has no header.
func firebaseColumns() []string {
	providers := func(names []string) (columns []string) {
		for _, p := range names {
			for _, c := range []string{"rawId", "email", "displayName", "photoUrl"} {
				columns = append(columns, p+"/"+c)
			}
		}
		return columns
	}
	columns := []string{"localId", "email", "emailVerified", "passwordHash", "salt", "displayName", "photoUrl"}
	columns = append(columns, providers(firebaseProviders[0])...)
	columns = append(columns, "createdAt", "lastLoginAt", "phoneNumber", "disabled", "customAttributes")
	return append(columns, providers(firebaseProviders[1])...)
}

func convertFirebase(w *row) error {
	w.source(w.get("localId"))
	w.names(value{}, value{}, w.get("displayName"), w.get("displayName"), value{})
	w.userName()
	w.email(w.get("email"), w.get("emailVerified"))
	// A number gets into an account by a code that was sent to it.
	w.phones(value{}, w.get("phoneNumber"))
	w.phoneVerified = w.phone != ""
	if w.get("disabled").flag() {
		w.cmd().State = domain.StateInactive
	}
	if claims, ok := w.inner(w.get("customAttributes")); ok {
		w.members(claims, "")
	}
	for p := range w.get("providerUserInfo").elements() {
		provider := p.get("providerId").str()
		id := p.get("rawId")
		if provider == "password" || provider == "phone" {
			p.use()
			continue
		}
		w.link(provider, id.str(), firstOf(p.get("email").str(), p.get("displayName").str()))
	}
	for _, group := range firebaseProviders {
		for _, provider := range group {
			if id := w.get(provider + "/rawId"); !id.empty() {
				w.link(provider, id.str(), firstOf(w.get(provider+"/email").str(), w.get(provider+"/displayName").str()))
			}
		}
	}
	for range w.get("mfaInfo").elements() {
		w.factor("a second factor by message can't be taken")
		break
	}
	salt, hash := w.get("salt").str(), w.get("passwordHash").str()
	if hash == "" {
		return nil
	}
	ref := w.secretBase()
	f := w.r.opts.Secrets[ref].Firebase
	if f == nil {
		// A single-string spelling may carry the key itself.
		if strings.HasPrefix(hash, "$") {
			w.hash(password.Lift(hash, w.r.opts.Secrets, ref))
			return nil
		}
		w.noHash("the project's hash parameters were not given")
		return nil
	}
	w.hash(password.FromFirebase(*f, ref, salt, hash))
	return nil
}

// firstOf returns the first string that is not empty.
func firstOf(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}
