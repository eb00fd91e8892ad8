package domain

import "time"

// ImportHuman is the command that takes a person in. It is what the wire's
// ImportHumanUser, AddHumanUser (v2), the bulk stream and every source file
// become. The zero value of a field means "not given".
type ImportHuman struct {
	// UserID is the id that the caller chose, 1 to 200 characters; empty lets
	// the service choose one.
	UserID string
	// UserName is required unless UserNameFallback says otherwise.
	UserName string
	// UserNameFallback lets an empty UserName become the e-mail address (v2,
	// bulk sources without user names).
	UserNameFallback bool
	// TrimNames cuts blanks around the names, as v2 does and v1 does not.
	TrimNames bool
	Profile   Profile
	Email     Email
	// Phone is nil when none was given.
	Phone *Phone
	// Password is the plain password. With HashedPassword present it is
	// neither checked, nor hashed, nor kept.
	Password string
	// HashedPassword is a hash in any encoding that domain/password knows.
	HashedPassword string
	// OldSystem says that the system that the user comes from can be asked for
	// the password. It is, at the first login of a user who comes without one
	// that can be verified here: with a hash of no known encoding, or with
	// nothing at all, not even a link to a provider.
	OldSystem      bool
	ChangeRequired bool
	// RequestPasskey asks for a passkey registration link.
	RequestPasskey bool
	// TOTPSecret is base32 or an otpauth:// URI; empty for none.
	TOTPSecret string
	IDPLinks   []IDPLink
	Metadata   []Metadata
	// State is the state to put the user in at once: StateUnspecified and
	// StateActive mean nothing special; StateInactive and StateLocked append
	// UserDeactivated or UserLocked.
	State State
	// ExternalID is the user's id in the system that it comes from.
	ExternalID string
	// Silent appends codes without having them mailed (bulk import).
	Silent bool
	// PasskeyOrigin is the scheme and host that links are built on.
	PasskeyOrigin string
}

// Profile holds a person's names and preferences.
type Profile struct {
	FirstName, LastName, NickName, DisplayName string
	// PreferredLanguage is a BCP 47 tag; what is not one becomes "und".
	PreferredLanguage string
	Gender            Gender
}

// Gender is the wire's enumeration.
type Gender int32

// The wire's genders.
const (
	GenderUnspecified Gender = 0
	GenderFemale      Gender = 1
	GenderMale        Gender = 2
	GenderDiverse     Gender = 3
)

// Verification says what becomes of an address that is not verified yet.
type Verification uint8

const (
	// VerifyByRule is v1's way: an initialization or an e-mail code by the
	// rule of ImportHuman.
	VerifyByRule Verification = iota
	// VerifySend appends a code that is mailed (v2 sendCode).
	VerifySend
	// VerifyReturn appends a code that goes back in the answer (v2 returnCode).
	VerifyReturn
	// VerifyNone appends no code (v2 isVerified: false).
	VerifyNone
)

// Email is an address and whether it is known to be the person's.
type Email struct {
	Address  string
	Verified bool
	Mode     Verification
	// URLTemplate is v2's template for the link in the mail; empty: ours.
	URLTemplate string
}

// Phone is a number and whether it is known to be the person's.
type Phone struct {
	Number   string
	Verified bool
	Mode     Verification
}

// IDPLink ties a user to an identity at an external provider.
type IDPLink struct {
	ConfigID, ExternalUserID, DisplayName string
}

// Metadata is a key and a value that the caller attaches to a user.
type Metadata struct {
	Key   string
	Value []byte
}

// State is the wire's user state.
type State int32

// The wire's states.
const (
	StateUnspecified State = 0
	StateActive      State = 1
	StateInactive    State = 2
	StateDeleted     State = 3
	StateLocked      State = 4
	StateSuspended   State = 5
	StateInitial     State = 6
)

// Code is a one-time secret that is sent to a person or put into a link.
type Code struct {
	// ID is set for passkey codes only.
	ID string
	// Secret is the code itself; it is sealed wherever it is stored.
	Secret string
	// Lifetime is how long the code is good for.
	Lifetime time.Duration
}
