package domain

import (
	"bytes"
	"slices"
)

// Update decides what it takes for a user to become what an import says: the
// way of an import that finds its user there already and is told to update.
//
// It adds and replaces and never takes away: what the command does not give
// stays, an address that is verified stays verified unless it is replaced, and
// links and metadata keys that the command does not name stay. A plain
// password (Human.NeedsHash) is always set, for hashes cannot be compared.
// Codes are appended where the facts have them: Email when an address comes
// that is not verified, Phone likewise, Passkey when a link is asked for. A
// user who was waiting to complete the account is done when nothing is missing
// any more.
//
// A decision without events says that nothing differs.
func (u *User) Update(h Human, f Facts) (Decision, error) {
	if err := u.notFound("MUSTER-update"); err != nil {
		return Decision{}, err
	}
	d := u.decide()
	add := func(e Event) { d.Events = append(d.Events, e) }

	if h.UserName != u.UserName {
		add(UsernameChanged{UserName: h.UserName})
		if was, is := LoginNameClaim(u.UserName), LoginNameClaim(h.UserName); was != is {
			d.Take, d.Release = append(d.Take, is), append(d.Release, was)
		}
	}
	if h.Profile != u.Profile {
		add(ProfileChanged{Profile: h.Profile})
	}
	mail := h.Email.Address != u.Email
	if mail {
		add(EmailChanged{Email: h.Email.Address})
	}
	if h.Email.Verified && (mail || !u.EmailVerified) {
		add(EmailVerified{})
	}
	phone := h.Phone != nil && h.Phone.Number != u.Phone
	if phone {
		add(PhoneChanged{Phone: h.Phone.Number})
	}
	if h.Phone != nil && h.Phone.Verified && (phone || !u.PhoneVerified) {
		add(PhoneVerified{})
	}
	switch {
	case h.NeedsHash():
		add(PasswordSet{Hash: f.PasswordHash, ChangeRequired: h.ChangeRequired, Format: HouseFormat})
	case h.PasswordHash != "" && (h.PasswordHash != u.PasswordHash || h.ChangeRequired && !u.ChangeRequired):
		add(PasswordSet{Hash: h.PasswordHash, ChangeRequired: h.ChangeRequired, Format: h.PasswordFormat, Weak: h.PasswordWeak})
	case h.OldSystem && !u.HasPassword && u.OldSystem != f.Job:
		add(PasswordDelegated{Job: f.Job, ChangeRequired: h.ChangeRequired})
	}
	if h.TOTPSecret != "" && h.TOTPSecret != u.TOTPSecret {
		add(TOTPAdded{Secret: h.TOTPSecret})
	}
	owned := u.Claims()
	for _, l := range h.IDPLinks {
		if claim := IDPLinkClaim(l.ConfigID, l.ExternalUserID); !slices.Contains(owned, claim) {
			add(IDPLinked(l))
			d.Take = append(d.Take, claim)
		}
	}
	var entries []Metadata
	for _, m := range h.Metadata {
		if old, ok := u.Metadata[m.Key]; !ok || !bytes.Equal(old, m.Value) {
			entries = append(entries, m)
		}
	}
	if len(entries) > 0 {
		add(MetadataSet{Entries: entries})
	}

	after := u.after(d.Events)
	waits := u.State == StateInitial && !(len(after.IDPLinks) > 0 || after.EmailVerified && (after.HasPassword || after.OldSystem != ""))
	switch {
	case u.State == StateInitial && !waits:
		add(InitializationSucceeded{})
	case u.State == StateInitial && mail && f.Init.Secret != "":
		add(InitializationCodeAdded{f.Init.sent(f.At, h.Silent)})
	}
	if mail && !h.Email.Verified && !waits && f.Email.Secret != "" {
		add(EmailCodeAdded{f.Email.sent(f.At, h.Silent || h.Email.Mode == VerifyReturn), h.Email.URLTemplate})
	}
	if phone && !h.Phone.Verified && f.Phone.Secret != "" {
		add(PhoneCodeAdded{f.Phone.sent(f.At, h.Silent || h.Phone.Mode == VerifyReturn)})
	}
	if h.RequestPasskey && f.Passkey.Secret != "" {
		add(PasskeyRegistrationRequested{
			CodeID: f.Passkey.ID, Secret: f.Passkey.Secret, Lifetime: f.Passkey.Lifetime, Issued: micros(f.At),
		})
	}
	switch {
	case h.State == u.State:
	case h.State == StateInactive:
		add(UserDeactivated{})
	case h.State == StateLocked:
		add(UserLocked{})
	}
	return d, nil
}

// after returns what u would be after some events; u itself stays.
func (u *User) after(events []Event) User {
	next := *u
	next.IDPLinks = slices.Clone(u.IDPLinks)
	next.Metadata = nil
	for _, e := range events {
		next.Apply(e)
	}
	return next
}
