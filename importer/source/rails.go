package source

import (
	"github.com/muster-id/muster/domain"
)

// devise reads the users table of a Rails application with Devise, laravel
// that of a Laravel application, as CSV or JSON (docs/sources/devise.md,
// docs/sources/laravel.md).
var (
	devise  = &spec{csv: dialect{nulls: true}, serial: true, convert: convertDevise}
	laravel = &spec{csv: dialect{nulls: true}, serial: true, convert: convertLaravel}
)

func convertDevise(w *row) error {
	w.source(w.get("id"))
	w.names(w.get("first_name"), w.get("last_name"), firstThere(w.get("name"), w.get("full_name")), value{}, w.get("nickname"))
	w.userName(firstThere(w.get("username"), w.get("login")))
	w.email(w.get("email"), value{})
	if at := w.get("confirmed_at"); at.d != nil {
		w.setVerified(at.set())
	}
	w.phones(value{}, w.get("phone"), w.get("phone_number"))
	w.language(w.get("locale"))
	if w.get("locked_at").set() {
		w.cmd().State = domain.StateLocked
	}
	w.ignore("reset_password_token", "reset_password_sent_at", "confirmation_token", "confirmation_sent_at",
		"unlock_token", "remember_created_at", "failed_attempts")
	w.link(w.get("provider").str(), w.get("uid").str(), "")
	w.hash(w.get("encrypted_password").str(), nil)
	if !w.get("otp_secret").empty() || !w.get("encrypted_otp_secret").empty() {
		w.factor("the TOTP secret is encrypted with the application's key")
	}
	return nil
}

func convertLaravel(w *row) error {
	w.source(w.get("id"))
	w.names(w.get("first_name"), w.get("last_name"), w.get("name"), w.get("name"), value{})
	w.userName(w.get("username"))
	w.email(w.get("email"), value{})
	if at := w.get("email_verified_at"); at.d != nil {
		w.setVerified(at.set())
	}
	w.phones(value{}, w.get("phone"))
	w.language(w.get("locale"))
	w.ignore("remember_token")
	w.hash(w.get("password").str(), nil)
	if !w.get("two_factor_secret").empty() {
		w.ignore("two_factor_secret", "two_factor_recovery_codes", "two_factor_confirmed_at")
		w.factor("the TOTP secret is encrypted with the application's key")
	}
	return nil
}
