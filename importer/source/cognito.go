package source

import (
	"strings"

	"github.com/muster-id/muster/domain"
)

// cognito reads the CSV that Cognito's user import takes, or the JSON of
// ListUsers (docs/sources/cognito.md).
var cognito = &spec{
	wrappers: []string{"Users"},
	settings: []string{"PaginationToken", "NextToken"},
	csv:      dialect{backslash: true},
	convert:  convertCognito,
}

// attribute finds an attribute: a column, or an element of the list of names
// and values.
func (w *row) attribute(name string) value {
	if v := w.get(name); v.d != nil {
		return v
	}
	for _, list := range []string{"Attributes", "UserAttributes"} {
		for a := range w.get(list).elements() {
			if n := a.get("Name"); n.peek() == name {
				n.use()
				return a.get("Value")
			}
		}
	}
	return value{}
}

func convertCognito(w *row) error {
	name := w.attribute("Username")
	if name.d == nil {
		name = w.attribute("cognito:username")
	}
	sub := w.attribute("sub")
	w.source(sub, name)
	external := w.get("UserStatus").peek() == "EXTERNAL_PROVIDER"
	w.get("UserStatus").use()
	preferred := w.attribute("preferred_username")
	if isUUID(name.peek()) || external {
		// Made by the machine: nobody types it in.
		w.userName(preferred)
		name.use()
	} else {
		w.userName(name)
	}
	w.names(w.attribute("given_name"), w.attribute("family_name"), w.attribute("name"), w.attribute("name"), w.attribute("nickname"))
	w.email(w.attribute("email"), w.attribute("email_verified"))
	w.phones(w.attribute("phone_number_verified"), w.attribute("phone_number"))
	w.language(w.attribute("locale"))
	w.gender(w.attribute("gender"))
	if e := w.get("Enabled"); e.d != nil && !e.flag() {
		w.cmd().State = domain.StateInactive
	}
	if ids := w.attribute("identities"); !ids.empty() {
		if links, ok := w.inner(ids); ok {
			for l := range links.elements() {
				w.link(l.get("providerName").str(), l.get("userId").str(), "")
			}
		}
	}
	if w.get("cognito:mfa_enabled").flag() || !w.get("MFAOptions").empty() {
		w.factor("Cognito gives no second factors out")
	}
	if !external {
		w.noHash("Cognito gives no password hashes out")
	}
	for a := range w.elements() {
		if strings.HasPrefix(a.key(), "custom:") && !a.empty() && !a.carried() {
			w.metadata(strings.TrimPrefix(a.key(), "custom:"), a.json())
		}
	}
	for a := range w.get("Attributes").elements() {
		if n := a.get("Name"); strings.HasPrefix(n.peek(), "custom:") && !a.get("Value").carried() {
			w.metadata(strings.TrimPrefix(n.str(), "custom:"), a.get("Value").json())
		} else if !n.node().used && !a.get("Value").empty() {
			// Named after the attribute: the list itself says nothing.
			w.r.losses.add(name64(n.peek()))
			a.use()
		}
	}
	return nil
}

func name64(s string) string { return name([]byte(s)) }

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
