package domain

import "time"

// Event is a fact about a user or an organisation: past tense, never changed.
//
// What an event holds is kept in two parts (see Encode). The open part may be
// read by anyone who may read the log. The personal part is sealed with the
// key of the subject; while it is sealed, and for ever once the subject has
// been erased, the fields marked "Personal" below are zero.
type Event interface {
	// Type is the name under which the event is stored, such as "HumanAdded".
	Type() string
	// Schema is the version of the payload's form, from 1.
	Schema() int16
}

// HumanAdded is the first event of each user: a person has come in. Whether
// the addresses belong to the person is said by events of their own.
type HumanAdded struct {
	// Job and Line are the import job, and its line, that the person came
	// with; empty for a single import.
	Job  string
	Line int64
	// UserName is what the person logs in with, trimmed. Personal.
	UserName string
	// Profile is complete: DisplayName is never empty, PreferredLanguage is a
	// canonical BCP 47 tag or "und". Personal.
	Profile Profile
	// Email is never empty. Personal.
	Email string
	// Phone is in E.164, or empty. Personal.
	Phone string
	// ExternalID is the person's id in the system that they come from. Personal.
	ExternalID string
}

// EmailVerified says that the user's e-mail address is known to be theirs.
type EmailVerified struct{}

// PhoneVerified says that the user's phone number is known to be theirs.
type PhoneVerified struct{}

// PasswordSet gives the user a password.
type PasswordSet struct {
	// Hash is the encoded hash, as domain/password reads it. Personal.
	Hash string
	// ChangeRequired asks for a new password after the next login.
	ChangeRequired bool
	// Format names the hash's algorithm, such as "bcrypt".
	Format string
	// Weak says that the hash's algorithm or cost is below today's standard.
	Weak bool
}

// PasswordDelegated says that the user's password is known only to the system
// that they come from. It is asked at the first login, and never again once a
// PasswordSet follows.
type PasswordDelegated struct {
	// Job is the import job whose ImportVerifierAdded says whom to ask.
	Job string
	// ChangeRequired asks for a new password after the next login.
	ChangeRequired bool
}

// PasswordRehashed says that the same password is now kept with a better hash.
type PasswordRehashed struct {
	// Hash is the encoded hash. Personal.
	Hash string
	// Format names the hash's algorithm.
	Format string
}

// TOTPAdded gives the user a second factor: RFC 6238 with SHA-1, six digits
// and 30 seconds.
type TOTPAdded struct {
	// Secret is in base32, upper case, without padding. Personal.
	Secret string
}

// IDPLinked ties the user to an identity at an external provider.
type IDPLinked struct {
	// ConfigID is the id of the provider's configuration.
	ConfigID string
	// ExternalUserID is the user's id at the provider. Personal.
	ExternalUserID string
	// DisplayName is the user's name at the provider. Personal.
	DisplayName string
}

// IDPLinkRemoved undoes an IDPLinked.
type IDPLinkRemoved struct {
	ConfigID string
	// ExternalUserID is the user's id at the provider. Personal.
	ExternalUserID string
}

// MetadataSet sets the values of some keys; other keys stay as they are.
type MetadataSet struct {
	// Entries have distinct keys. Personal, keys and values.
	Entries []Metadata
}

// MetadataRemoved drops some keys and their values.
type MetadataRemoved struct {
	// Keys are distinct. Personal.
	Keys []string
}

// InitializationCodeAdded gives the user a code to complete the account with.
// The user is in StateInitial until it is used. A consumer mails it.
type InitializationCodeAdded struct{ SentCode }

// EmailCodeAdded gives the user a code to prove the e-mail address with. A
// consumer mails it.
type EmailCodeAdded struct {
	SentCode
	// URLTemplate is the caller's template for the link in the mail; empty
	// for our own. Personal, since a caller may put anything in it.
	URLTemplate string
}

// PhoneCodeAdded gives the user a code to prove the phone number with.
type PhoneCodeAdded struct{ SentCode }

// SentCode is what the events that make a code have in common.
type SentCode struct {
	// Secret is the code itself. Personal.
	Secret string
	// Lifetime is how long the code is good for, from Issued.
	Lifetime time.Duration
	// Issued is when the code was made, UTC, in microseconds.
	Issued time.Time
	// Silent says that nobody is to be told: a bulk import, or a code that
	// went back to the caller.
	Silent bool
}

// Expired reports whether the code is no longer good at a point in time.
func (c SentCode) Expired(at time.Time) bool { return !at.Before(c.Issued.Add(c.Lifetime)) }

// InitializationSucceeded says that the user has used the initialization code.
type InitializationSucceeded struct{}

// InitializationFailed counts a wrong initialization code.
type InitializationFailed struct{}

// EmailCodeFailed counts a wrong e-mail code.
type EmailCodeFailed struct{}

// PhoneCodeFailed counts a wrong phone code.
type PhoneCodeFailed struct{}

// PasskeyRegistrationRequested gives the user a code to register one passkey
// with. It goes into a link in the answer; nobody mails it.
type PasskeyRegistrationRequested struct {
	// CodeID tells several codes of a user apart.
	CodeID string
	// Secret is the code itself. Personal.
	Secret string
	// Lifetime is how long the code is good for, from Issued.
	Lifetime time.Duration
	// Issued is when the code was made, UTC, in microseconds.
	Issued time.Time
}

// PasskeyRegistrationFailed counts a wrong passkey code.
type PasskeyRegistrationFailed struct{ CodeID string }

// PasskeyAdded gives the user a passkey.
type PasskeyAdded struct {
	// CodeID is the registration code that this used up; empty when a user
	// who was logged in added one.
	CodeID string
	// CredentialID is the authenticator's id of the key. Personal.
	CredentialID []byte
	// Credential is the public key with its attributes, in the form of the
	// room that verifies it. Personal.
	Credential []byte
	// Name is what the user calls it. Personal.
	Name string
}

// PasskeyRemoved takes a passkey away.
type PasskeyRemoved struct {
	// CredentialID is the authenticator's id of the key. Personal.
	CredentialID []byte
}

// PasskeyChecked is a login step that a passkey passed.
type PasskeyChecked struct {
	// CredentialID is the authenticator's id of the key. Personal.
	CredentialID []byte
	// SignCount is the authenticator's counter, for the detection of clones.
	SignCount uint32
}

// PasskeyCheckFailed is a login step that a passkey failed.
type PasskeyCheckFailed struct{}

// PasswordChecked is a login step that the password passed.
type PasswordChecked struct{}

// PasswordCheckFailed is a login step that a password failed.
type PasswordCheckFailed struct{}

// TOTPChecked is a login step that a TOTP code passed.
type TOTPChecked struct {
	// Step is the code's time step (Unix time / 30 s): a code is accepted
	// once, so a later one needs a higher step.
	Step int64
}

// TOTPCheckFailed is a login step that a TOTP code failed.
type TOTPCheckFailed struct{}

// TOTPRemoved takes the second factor away.
type TOTPRemoved struct{}

// UserDeactivated keeps the user out until UserReactivated.
type UserDeactivated struct{}

// UserReactivated lets a deactivated user in again.
type UserReactivated struct{}

// UserLocked keeps the user out until UserUnlocked: an operator's decision, or
// too many failed checks (the actor tells).
type UserLocked struct{}

// UserUnlocked lets a locked user in again and forgets the failed checks.
type UserUnlocked struct{}

// UsernameChanged gives the user another user name.
type UsernameChanged struct {
	// UserName is trimmed. Personal.
	UserName string
}

// ProfileChanged replaces the whole profile.
type ProfileChanged struct {
	// Profile is complete, as in HumanAdded. Personal.
	Profile Profile
}

// EmailChanged replaces the e-mail address; the new one is not verified.
type EmailChanged struct {
	// Email is never empty. Personal.
	Email string
}

// PhoneChanged replaces the phone number; the new one is not verified.
type PhoneChanged struct {
	// Phone is in E.164. Personal.
	Phone string
}

// PhoneRemoved takes the phone number away.
type PhoneRemoved struct{}

// UserRemoved ends the user's life; the names are free for others.
type UserRemoved struct{}

// UserErased says that the subject's key has been destroyed: nothing personal
// of the user can be read any more. It is the stream's last event.
type UserErased struct{}

// OrganisationAdded is the first event of each organisation. Organisations
// live in streams named OrganisationStream(id); they hold nothing personal.
type OrganisationAdded struct{ Name string }

// OrganisationRenamed gives an organisation another name.
type OrganisationRenamed struct{ Name string }

// OrganisationDeactivated stops all use of an organisation.
type OrganisationDeactivated struct{}

// OrganisationReactivated undoes OrganisationDeactivated.
type OrganisationReactivated struct{}

// OrganisationDomainAdded says that a domain is the organisation's, verified.
// Domain is in NormaliseDomain's form.
type OrganisationDomainAdded struct{ Domain string }

// OrganisationDomainRemoved gives the domain up; another may have it.
type OrganisationDomainRemoved struct{ Domain string }

// ImportStarted is the first event of an import job's stream, which is named
// ImportStream(id). A dry run has none.
type ImportStarted struct {
	// OnConflict and Notify are the job's options, in the wire's words.
	OnConflict, Notify string
	// Remote is the network address that the import came from. Personal.
	Remote string
}

// ImportSecretAdded keeps a project's secret that the hashes of a job were made
// with, under a reference that they hold.
type ImportSecretAdded struct {
	Ref string
	// Line is the job's line that told it; hashes behind it may refer to it.
	Line int64
	// Secret is a password.Secret in JSON. Personal, in that it is sealed.
	Secret []byte
}

// ImportVerifierAdded says where the old system checks passwords, for the users
// of a job that came without one.
type ImportVerifierAdded struct {
	// URL is what passwords are posted to. Personal, in that it is sealed.
	URL string
	// Authorization is the header that goes along; empty for none. Personal,
	// in that it is sealed.
	Authorization string
}

// ImportFinished says that a job has come to the end of its lines.
type ImportFinished struct {
	Created, Updated, Skipped, Failed int64
}

// ImportUndone says that the users whom a job created, and whom nobody had
// changed since, have been removed; Kept are those who had been changed.
type ImportUndone struct {
	Removed, Kept int64
}

// ImportStream returns the stream of an import job's events. No user can have
// it as an id.
func ImportStream(id string) string { return "$job-" + id }

// AuditStream is where the service's operators leave their traces.
const AuditStream = "$audit"

// PersonalDataRead says that an operator was shown sealed payloads.
type PersonalDataRead struct {
	// What says which events, by position, stream and type.
	What string
	// By is who, as far as the operating system knows, and Reason what for.
	// Personal.
	By, Reason string
}
