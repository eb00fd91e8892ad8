package source

import (
	"strings"

	"github.com/muster-id/muster/domain/password"
)

// clerk reads the CSV of Clerk's user export, or JSON with the same names
// (docs/sources/clerk.md).
var clerk = &spec{convert: convertClerk}

func convertClerk(w *row) error {
	w.source(w.get("id"))
	w.names(w.get("first_name"), w.get("last_name"), value{}, value{}, value{})
	w.userName(w.get("username"))
	w.email(w.get("primary_email_address"), value{})
	verified := w.listed("verified_email_addresses", w.cmd().Email.Address)
	w.listed("unverified_email_addresses", w.cmd().Email.Address)
	w.setVerified(verified)
	w.phones(value{}, w.get("primary_phone_number"))
	w.phoneVerified = w.listed("verified_phone_numbers", w.phone)
	w.listed("unverified_phone_numbers", w.phone)
	w.totp(w.get("totp_secret").str())
	hasher, digest := w.get("password_hasher").str(), w.get("password_digest").str()
	if digest != "" {
		w.hash(password.FromClerk(hasher, digest, w.r.opts.Secrets, w.secretBase()))
	}
	return nil
}

// listed reports whether a list in a cell has an item. If it has others they
// count as lost.
func (w *row) listed(field, item string) bool {
	v := w.get(field)
	if v.kind() == list {
		found := false
		for e := range v.elements() {
			if strings.EqualFold(e.peek(), item) {
				e.use()
				found = true
			}
		}
		return found
	}
	found, others := false, false
	for _, s := range strings.FieldsFunc(v.peek(), func(r rune) bool { return r == '|' || r == ',' || r == ' ' }) {
		if strings.EqualFold(s, item) {
			found = true
		} else {
			others = true
		}
	}
	if !others {
		v.use()
	}
	return found
}
