package source

import (
	"errors"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// partEmails is django-allauth's account_emailaddress.
const partEmails Part = "emails"

// django reads rows of auth_user, or what `manage.py dumpdata auth.user`
// writes; beside them django-allauth's tables (docs/sources/django.md).
var django = &spec{
	csv:     dialect{nulls: true},
	serial:  true,
	convert: convertDjango,
	parts: map[Part]part{
		partEmails:     djangoPart("email", "verified"),
		partIdentities: djangoPart("provider", "uid"),
	},
}

// djangoPart keeps fields of a table that belongs to users, or of a fixture.
func djangoPart(a, b string) part {
	return part{func(v value, _ *losses) (keys, fields []string) {
		v.get("model").use()
		v.get("pk").use()
		v.get("id").use()
		v = v.fixture()
		k := v.get("user_id").str()
		if k == "" {
			k = v.get("user").str()
		}
		if k != "" {
			keys = append(keys, k)
		}
		v.get("primary").use()
		return keys, []string{v.get(a).str(), v.get(b).str()}
	}}
}

// fixture goes into the fields of a dumpdata object.
func (v value) fixture() value {
	if f := v.get("fields"); f.kind() == object {
		return f
	}
	return v
}

func convertDjango(w *row) error {
	id := w.get("id")
	if m := w.get("model"); m.d != nil {
		if !strings.HasSuffix(strings.ToLower(m.str()), "user") {
			return w.skip("not a user but another model")
		}
		id = w.get("pk")
	}
	// A fixture's fields stand one level lower; the row goes there, and its
	// other members have been read.
	w.source(id)
	w.value = w.fixture()
	w.names(w.get("first_name"), w.get("last_name"), w.get("name"), value{}, value{})
	w.userName(w.get("username"))
	w.email(w.get("email"), value{})
	if a := w.get("is_active"); a.d != nil && !a.flag() {
		w.cmd().State = domain.StateInactive
	}
	w.falsy("is_superuser", "is_staff")
	if hash := w.get("password").str(); hash != "" {
		encoded, err := password.FromDjango(hash)
		if errors.Is(err, password.ErrUnusable) {
			err = nil // no password by intent, and none is lost
		}
		w.hash(encoded, err)
	}
	addresses, err := w.sides(partEmails, w.id)
	if err != nil {
		return err
	}
	for _, f := range addresses {
		if strings.EqualFold(f[0], w.cmd().Email.Address) {
			w.setVerified(truthy(f[1]))
		} else {
			w.r.losses.add("emails.email")
		}
	}
	links, err := w.sides(partIdentities, w.id)
	for _, f := range links {
		w.link(f[0], f[1], "")
	}
	return err
}

// truthy reads a kept boolean.
func truthy(s string) bool {
	var d doc
	d.flat()
	return value{&d, d.add(0, nil, []byte(s), text)}.flag()
}
