package domain

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// What a user's later commands decide. Each method judges the state that u was
// folded into and changes nothing; its Decision expects u's sequence, so that
// it is refused when somebody was faster, and has to be taken anew.

func (u *User) decide(events ...Event) Decision {
	return Decision{Stream: u.ID, Org: u.Org, Expected: u.Sequence, Events: events}
}

// notFound is the error about a user that is not there; the wire gives each
// command an id of its own for it.
func (u *User) notFound(id string) error {
	if u.Exists() {
		return nil
	}
	return NewError(KindNotFound, id, "User could not be found")
}

// Deactivate keeps the user out. ErrDeactivateInitial, ErrAlreadyInactive.
func (u *User) Deactivate() (Decision, error) {
	if err := u.notFound("COMMAND-3M9ds"); err != nil {
		return Decision{}, err
	}
	switch u.State {
	case StateInitial:
		return Decision{}, ErrDeactivateInitial
	case StateInactive:
		return Decision{}, ErrAlreadyInactive
	}
	return u.decide(UserDeactivated{}), nil
}

// Reactivate undoes Deactivate. ErrNotInactive.
func (u *User) Reactivate() (Decision, error) {
	if err := u.notFound("COMMAND-4M0sd"); err != nil {
		return Decision{}, err
	}
	if u.State != StateInactive {
		return Decision{}, ErrNotInactive
	}
	return u.decide(UserReactivated{}), nil
}

// Lock keeps the user out until Unlock. ErrNotLockable.
func (u *User) Lock() (Decision, error) {
	if err := u.notFound("COMMAND-5M9fs"); err != nil {
		return Decision{}, err
	}
	if u.State != StateActive && u.State != StateInitial {
		return Decision{}, ErrNotLockable
	}
	return u.decide(UserLocked{}), nil
}

// Unlock undoes Lock and forgets failed checks. ErrNotLocked.
func (u *User) Unlock() (Decision, error) {
	if err := u.notFound("COMMAND-M0dse"); err != nil {
		return Decision{}, err
	}
	if u.State != StateLocked {
		return Decision{}, ErrNotLocked
	}
	return u.decide(UserUnlocked{}), nil
}

// Remove ends the user's life and gives all names back.
func (u *User) Remove() (Decision, error) {
	if err := u.notFound("COMMAND-m9od"); err != nil {
		return Decision{}, err
	}
	d := u.decide(UserRemoved{})
	d.Release = u.Claims()
	return d, nil
}

// Erase records that the subject's key is destroyed; a user who is still there
// is removed with it. Erasing twice is ErrAlreadyErased. Whoever appends the
// decision destroys the key, in the same transaction.
func (u *User) Erase() (Decision, error) {
	switch {
	case u.Erased:
		return Decision{}, ErrAlreadyErased
	case u.State == StateUnspecified:
		return Decision{}, u.notFound("MUSTER-erase")
	case u.State == StateDeleted:
		return u.decide(UserErased{}), nil
	}
	d := u.decide(UserRemoved{}, UserErased{})
	d.Release = u.Claims()
	return d, nil
}

// ChangeUsername gives the user another name. A change of letter case only
// keeps the claim. The policy says which domains are reserved (Policy.Reserved).
func (u *User) ChangeUsername(name string, p Policy) (Decision, error) {
	if err := u.notFound("COMMAND-5N9ds"); err != nil {
		return Decision{}, err
	}
	name = strings.TrimSpace(name)
	if name == "" {
		return Decision{}, ErrUserNameEmpty
	}
	if err := text("userName", name, maxName); err != nil {
		return Decision{}, err
	}
	if name == u.UserName {
		return Decision{}, ErrUserNameSame
	}
	if err := p.checkReserved(name); err != nil {
		return Decision{}, err
	}
	d := u.decide(UsernameChanged{UserName: name})
	if was, is := LoginNameClaim(u.UserName), LoginNameClaim(name); was != is {
		d.Take, d.Release = []Claim{is}, []Claim{was}
	}
	return d, nil
}

// ChangeProfile replaces the profile, which is brought into its final form
// first. ErrProfileSame, and Profile.Normalise's errors.
func (u *User) ChangeProfile(p Profile) (Decision, error) {
	if err := u.notFound("COMMAND-2M0sd"); err != nil {
		return Decision{}, err
	}
	p, _, err := p.Normalise()
	if err != nil {
		return Decision{}, err
	}
	if p == u.Profile {
		return Decision{}, ErrProfileSame
	}
	return u.decide(ProfileChanged{Profile: p}), nil
}

// ChangeEmail replaces the address; code, when it has a secret, is for its
// verification. ErrEmailSame, and NormaliseEmail's errors.
func (u *User) ChangeEmail(address string, verified bool, code Code, at time.Time) (Decision, error) {
	if err := u.notFound("COMMAND-0Pe4r"); err != nil {
		return Decision{}, err
	}
	address, err := NormaliseEmail(address)
	switch {
	case err != nil:
		return Decision{}, err
	case address == u.Email && verified == u.EmailVerified:
		return Decision{}, ErrEmailSame
	}
	var events []Event
	if address != u.Email || !verified {
		events = append(events, EmailChanged{Email: address})
	}
	switch {
	case verified:
		events = append(events, EmailVerified{})
	case code.Secret != "":
		events = append(events, EmailCodeAdded{SentCode: code.sent(at, false)})
	}
	return u.decide(events...), nil
}

// ChangePhone replaces the number, or removes it when number is empty.
// ErrPhoneSame, and NormalisePhone's errors.
func (u *User) ChangePhone(number string, verified bool) (Decision, error) {
	if err := u.notFound("COMMAND-ieJ2e"); err != nil {
		return Decision{}, err
	}
	if number == "" {
		if u.Phone == "" {
			return Decision{}, ErrPhoneSame
		}
		return u.decide(PhoneRemoved{}), nil
	}
	number, err := NormalisePhone(number)
	switch {
	case err != nil:
		return Decision{}, err
	case number == u.Phone && verified == u.PhoneVerified:
		return Decision{}, ErrPhoneSame
	}
	var events []Event
	if number != u.Phone || !verified {
		events = append(events, PhoneChanged{Phone: number})
	}
	if verified {
		events = append(events, PhoneVerified{})
	}
	return u.decide(events...), nil
}

// ResendInitialization gives a user who has not completed the account a fresh
// code, and, with email not empty, another address to send it to.
// ErrAlreadyInitial, ErrUserNotActive (deactivated or locked).
func (u *User) ResendInitialization(email string, code Code, at time.Time) (Decision, error) {
	if err := u.notFound("COMMAND-2M9df"); err != nil {
		return Decision{}, err
	}
	if u.InitCode == nil {
		return Decision{}, ErrAlreadyInitial
	}
	if !u.mayInitialize() {
		return Decision{}, ErrUserNotActive
	}
	var events []Event
	if email != "" {
		address, err := NormaliseEmail(email)
		if err != nil {
			return Decision{}, err
		}
		if address != u.Email {
			events = append(events, EmailChanged{Email: address})
		}
	}
	events = append(events, InitializationCodeAdded{code.sent(at, false)})
	return u.decide(events...), nil
}

// check judges a guess at a pending code. counted says that the guess was
// wrong and is to be counted; dead codes count nothing, so that guessing at
// them writes nothing.
func (c *PendingCode) check(secret string, at time.Time) (counted bool, err error) {
	switch {
	case c == nil:
		return false, ErrCodeMissing
	case c.Expired(at):
		return false, ErrCodeExpired
	case c.Failures >= MaxCodeAttempts:
		return false, ErrCodeUsedUp
	case !sameSecret(c.Secret, secret):
		return true, ErrCodeWrong
	}
	return false, nil
}

// checkCode is check as a command: the decision has the failure to append when
// it is to be counted, and the error is outer with the reason as its cause.
func (u *User) checkCode(c *PendingCode, secret string, at time.Time, failed Event, outer *Error) (Decision, error) {
	counted, err := c.check(secret, at)
	switch {
	case err == nil, errors.Is(err, ErrCodeMissing):
		return Decision{}, err
	case counted:
		return u.decide(failed), outer.Because(err)
	}
	return Decision{}, outer.Because(err)
}

// mayInitialize reports whether a pending initialization code may be used. An
// active user can have one too: who is unlocked or reactivated is active on
// the wire, but may never have completed the account.
func (u *User) mayInitialize() bool { return u.State == StateInitial || u.State == StateActive }

// CheckInitialization judges an initialization code without using it. The
// error is ErrCodeMissing (none pending), ErrUserNotActive (deactivated or
// locked), or ErrCodeInvalid, whose cause is ErrCodeExpired, ErrCodeUsedUp or
// ErrCodeWrong. A Decision with events comes
// with an error that is to be counted: append it, then return the error.
func (u *User) CheckInitialization(secret string, at time.Time) (Decision, error) {
	if u.InitCode != nil && !u.mayInitialize() {
		return Decision{}, ErrUserNotActive
	}
	return u.checkCode(u.InitCode, secret, at, InitializationFailed{}, ErrCodeInvalid)
}

// Initialize uses the initialization code: the account is complete, the e-mail
// address is the user's, and hash, when not empty, is the password's. Errors
// and their decisions as in CheckInitialization; policy and hashing are the
// caller's, between the two.
func (u *User) Initialize(secret, hash string, at time.Time) (Decision, error) {
	if d, err := u.CheckInitialization(secret, at); err != nil {
		return d, err
	}
	events := []Event{InitializationSucceeded{}}
	if !u.EmailVerified {
		events = append(events, EmailVerified{})
	}
	if hash != "" {
		events = append(events, PasswordSet{Hash: hash, Format: HouseFormat})
	}
	return u.decide(events...), nil
}

// VerifyEmail uses the e-mail code. Errors as in CheckInitialization.
func (u *User) VerifyEmail(secret string, at time.Time) (Decision, error) {
	if !u.Exists() {
		return Decision{}, ErrCodeMissing
	}
	if d, err := u.checkCode(u.EmailCode, secret, at, EmailCodeFailed{}, ErrCodeInvalid); err != nil {
		return d, err
	}
	return u.decide(EmailVerified{}), nil
}

// VerifyPhone uses the phone code. Errors as in CheckInitialization.
func (u *User) VerifyPhone(secret string, at time.Time) (Decision, error) {
	if !u.Exists() {
		return Decision{}, ErrCodeMissing
	}
	if d, err := u.checkCode(u.PhoneCode, secret, at, PhoneCodeFailed{}, ErrCodeInvalid); err != nil {
		return d, err
	}
	return u.decide(PhoneVerified{}), nil
}

// RequestPasskey gives the user a code to register a passkey with.
func (u *User) RequestPasskey(code Code, at time.Time) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	return u.decide(PasskeyRegistrationRequested{
		CodeID: code.ID, Secret: code.Secret, Lifetime: code.Lifetime, Issued: micros(at),
	}), nil
}

// CheckPasskeyCode judges a passkey registration code without using it. The
// user must be active. The error is ErrUserNotActive or ErrPasskeyCode, whose
// cause is ErrCodeMissing, ErrCodeExpired, ErrCodeUsedUp or ErrCodeWrong;
// decisions as in CheckInitialization.
func (u *User) CheckPasskeyCode(codeID, secret string, at time.Time) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	d, err := u.checkCode(u.passkeyCode(codeID), secret, at, PasskeyRegistrationFailed{CodeID: codeID}, ErrPasskeyCode)
	if errors.Is(err, ErrCodeMissing) {
		err = ErrPasskeyCode.Because(err)
	}
	return d, err
}

// AddPasskey uses a registration code up. Errors as in CheckPasskeyCode.
func (u *User) AddPasskey(codeID, secret string, p Passkey, at time.Time) (Decision, error) {
	if d, err := u.CheckPasskeyCode(codeID, secret, at); err != nil {
		return d, err
	}
	name := strings.TrimSpace(p.Name)
	if err := text("name", name, maxName); err != nil {
		return Decision{}, err
	}
	return u.decide(PasskeyAdded{CodeID: codeID, CredentialID: p.CredentialID, Credential: p.Credential, Name: name}), nil
}

func (u *User) active() error {
	if u.State != StateActive {
		return ErrUserNotActive
	}
	return nil
}

// CheckedPassword records a password check that the caller has made. A wrong
// one is ErrPasswordWrong with a decision to append; the limit-th in a row
// locks the user (0: never).
func (u *User) CheckedPassword(good bool, limit int) (Decision, error) {
	return u.checked(good, PasswordChecked{}, PasswordCheckFailed{}, u.PasswordFailures, limit, ErrPasswordWrong)
}

// CheckedTOTP records a TOTP check that the caller has made: step is the time
// step of the code that matched. A code of a step that was used before is
// wrong. Otherwise as CheckedPassword, with ErrTOTPWrong.
func (u *User) CheckedTOTP(good bool, step int64, limit int) (Decision, error) {
	return u.checked(good && step > u.TOTPStep, TOTPChecked{Step: step}, TOTPCheckFailed{}, u.TOTPFailures, limit, ErrTOTPWrong)
}

// CheckedPasskey records a passkey check that the caller has made, as
// CheckedPassword does, with ErrPasskeyWrong.
func (u *User) CheckedPasskey(good bool, credentialID []byte, signCount uint32, limit int) (Decision, error) {
	return u.checked(good, PasskeyChecked{CredentialID: credentialID, SignCount: signCount}, PasskeyCheckFailed{}, u.PasskeyFailures, limit, ErrPasskeyWrong)
}

func (u *User) checked(good bool, passed, failed Event, failures, limit int, wrong *Error) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	if good {
		return u.decide(passed), nil
	}
	events := []Event{failed}
	if limit > 0 && failures+1 >= limit {
		events = append(events, UserLocked{})
	}
	return u.decide(events...), wrong
}

// SetPassword replaces the password by one that the caller has judged by
// policy and hashed.
func (u *User) SetPassword(hash string, changeRequired bool) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	return u.decide(PasswordSet{Hash: hash, ChangeRequired: changeRequired, Format: HouseFormat}), nil
}

// TakePassword records a password check that the old system has made, and keeps
// the password with hash from now on.
func (u *User) TakePassword(hash string) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	return u.decide(PasswordChecked{}, PasswordSet{Hash: hash, ChangeRequired: u.ChangeRequired, Format: HouseFormat}), nil
}

// RehashPassword keeps the same password with the house's hash.
func (u *User) RehashPassword(hash string) (Decision, error) {
	if err := u.active(); err != nil {
		return Decision{}, err
	}
	return u.decide(PasswordRehashed{Hash: hash, Format: HouseFormat}), nil
}

// LinkIDP adds an identity at a provider; another user's claim on it decides
// at the append. ErrIDPLinkInvalid, ErrIDPLinkTaken (the user's own already).
func (u *User) LinkIDP(l IDPLink) (Decision, error) {
	if err := u.notFound("COMMAND-JPLlP"); err != nil {
		return Decision{}, err
	}
	if l.ConfigID == "" || l.ExternalUserID == "" {
		return Decision{}, ErrIDPLinkInvalid
	}
	claim := IDPLinkClaim(l.ConfigID, l.ExternalUserID)
	if slices.Contains(u.Claims(), claim) {
		return Decision{}, ErrIDPLinkTaken
	}
	d := u.decide(IDPLinked(l))
	d.Take = []Claim{claim}
	return d, nil
}

// UnlinkIDP removes an identity at a provider. ErrIDPLinkMissing.
func (u *User) UnlinkIDP(configID, externalUserID string) (Decision, error) {
	for _, l := range u.IDPLinks {
		if l.ConfigID == configID && l.ExternalUserID == externalUserID && u.Exists() {
			d := u.decide(IDPLinkRemoved{ConfigID: configID, ExternalUserID: externalUserID})
			d.Release = []Claim{IDPLinkClaim(configID, externalUserID)}
			return d, nil
		}
	}
	return Decision{}, ErrIDPLinkMissing
}
