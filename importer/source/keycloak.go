package source

import (
	"encoding/base32"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// keycloak reads what `kc.sh export` writes: a realm's file with users in it,
// or its users' files, any number of them (docs/sources/keycloak.md).
var keycloak = &spec{
	wrappers: []string{"users", "federatedUsers"},
	settings: []string{"realm", "id"},
	convert:  convertKeycloak,
}

var bare32 = base32.StdEncoding.WithPadding(base32.NoPadding)

func convertKeycloak(w *row) error {
	switch {
	case !w.get("serviceAccountClientId").empty():
		return w.skip("service account")
	case w.get("realm").d != nil:
		return w.skip("a realm's settings, without users")
	case w.get("username").empty():
		return w.skip("part of a user whose rest is in a user federation")
	}
	w.source(w.get("id"))
	attr := w.get("attributes")
	w.names(w.get("firstName"), w.get("lastName"), value{}, attr.get("displayName"), attr.get("nickname"))
	w.userName(w.get("username"))
	w.email(w.get("email"), w.get("emailVerified"))
	w.phones(attr.get("phoneNumberVerified").at(0), attr.get("phoneNumber"), attr.get("phone"), attr.get("mobile"))
	w.language(attr.get("locale"))
	w.gender(attr.get("gender"))
	if v := w.get("enabled"); v.d != nil && !v.flag() {
		w.cmd().State = domain.StateInactive
	}
	w.ignore("totp", "disableableCredentialTypes", "access", "origin", "self")
	if v := w.get("notBefore"); v.peek() == "0" {
		v.use()
	}

	for c := range w.get("credentials").elements() {
		w.keycloakCredential(c)
	}
	if v := w.get("federationLink"); !v.empty() {
		v.use()
		if w.cmd().HashedPassword == "" {
			w.noHash("the password is in a user federation")
		}
	}
	for a := range w.get("requiredActions").elements() {
		switch a.peek() {
		case "UPDATE_PASSWORD":
			a.use()
			w.cmd().ChangeRequired = w.cmd().HashedPassword != ""
		case "VERIFY_EMAIL":
			a.use()
			w.setVerified(false)
		}
	}
	for f := range w.get("federatedIdentities").elements() {
		w.link(f.get("identityProvider").str(), f.get("userId").str(), f.get("userName").str())
	}
	for a := range attr.elements() {
		if a.empty() || a.carried() {
			continue
		}
		if a.kind() == list && a.at(1).d == nil {
			w.metadata(a.key(), a.at(0).json())
		} else {
			w.metadata(a.key(), a.json())
		}
	}
	return nil
}

func (w *row) keycloakCredential(c value) {
	kind := c.get("type").str()
	for _, name := range []string{"id", "createdDate", "userLabel", "priority", "device"} {
		c.get(name).use()
	}
	switch kind {
	case "password":
		if w.cmd().HashedPassword != "" {
			return
		}
		if old := c.get("hashedSaltedValue"); !old.empty() {
			n, _ := c.get("hashIterations").int()
			for _, name := range []string{"counter", "digits", "period", "config"} {
				c.get(name).use()
			}
			w.hash(password.FromKeycloakFlat(c.get("algorithm").str(), int(n), c.get("salt").str(), old.str()))
			return
		}
		w.hash(password.FromKeycloak(c.get("secretData").str(), c.get("credentialData").str()))
	case "otp", "totp", "hotp":
		w.keycloakOTP(c, kind)
	default:
		w.factor("a credential that is neither a password nor a TOTP secret can't be taken")
	}
}

// keycloakOTP reads a second factor. The shared secret is the text of value
// itself, byte by byte, unless secretEncoding says that it is base32 already.
func (w *row) keycloakOTP(c value, kind string) {
	if old := c.get("hashedSaltedValue"); !old.empty() {
		for _, name := range []string{"counter", "hashIterations", "config", "salt"} {
			c.get(name).use()
		}
		secret := old.str()
		if w.totpKind(kind, c.get("algorithm").str(), c.get("digits").str(), c.get("period").str()) {
			w.totp(bare32.EncodeToString([]byte(secret)))
		}
		return
	}
	data, ok := w.inner(c.get("credentialData"))
	if !ok {
		w.factor("the second factor is malformed")
		return
	}
	if s := data.get("subType").str(); s != "" {
		kind = s
	}
	encoding := data.get("secretEncoding").str()
	if !w.totpKind(kind, data.get("algorithm").str(), data.get("digits").str(), data.get("period").str()) {
		c.get("secretData").use()
		return
	}
	secret, ok := w.inner(c.get("secretData"))
	switch {
	case !ok:
		w.factor("the second factor is malformed")
	case encoding == "BASE32":
		w.totp(secret.get("value").str())
	case encoding == "":
		w.totp(bare32.EncodeToString([]byte(secret.get("value").str())))
	default:
		w.factor("the TOTP secret's encoding is not known")
	}
}
