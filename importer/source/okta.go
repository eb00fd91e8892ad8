package source

import (
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// okta reads users as Okta's API lists them, or as it takes them in
// (docs/sources/okta.md).
var okta = &spec{convert: convertOkta}

func convertOkta(w *row) error {
	switch w.get("status").str() {
	case "DEPROVISIONED":
		return w.skip("deprovisioned")
	case "SUSPENDED", "LOCKED_OUT":
		w.cmd().State = domain.StateLocked
	case "STAGED":
		w.cmd().State = domain.StateInactive
	case "PASSWORD_EXPIRED":
		w.cmd().ChangeRequired = true
	}
	p := w.get("profile")
	w.source(w.get("id"))
	w.names(p.get("firstName"), p.get("lastName"), p.get("displayName"), p.get("displayName"), p.get("nickName"))
	w.userName(p.get("login"))
	w.email(p.get("email"), value{})
	w.phones(value{}, p.get("mobilePhone"), p.get("primaryPhone"))
	w.language(p.get("preferredLanguage"), p.get("locale"))
	if w.cmd().Profile.PreferredLanguage != "" {
		p.get("locale").use()
	}

	cred := w.get("credentials")
	for e := range cred.get("emails").elements() {
		if strings.EqualFold(e.get("value").peek(), w.cmd().Email.Address) {
			w.setVerified(e.get("status").str() == "VERIFIED")
			e.use()
		}
	}
	hash := cred.get("password", "hash")
	if !hash.empty() {
		cost, _ := hash.get("workFactor").int()
		rounds, _ := hash.get("iterationCount").int()
		w.hash(password.FromOkta(password.OktaHash{
			Algorithm: hash.get("algorithm").str(), WorkFactor: int(cost),
			Salt: hash.get("salt").str(), SaltOrder: hash.get("saltOrder").str(), Value: hash.get("value").str(),
			DigestAlgorithm: hash.get("digestAlgorithm").str(), IterationCount: int(rounds),
		}))
	} else if v := cred.get("password", "value"); !v.empty() {
		w.cmd().Password = v.str()
	} else {
		w.noHash("Okta gives no password hashes out")
	}
	if w.cmd().HashedPassword == "" && w.cmd().Password == "" {
		w.cmd().ChangeRequired = false
	}
	if pr := cred.get("provider"); pr.get("type").peek() == "OKTA" {
		pr.use()
	}
	w.ignore("_links", "_embedded")
	w.get("type").get("id").use()
	w.members(p, "")
	return nil
}
