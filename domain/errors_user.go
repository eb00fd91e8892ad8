package domain

import (
	"strings"

	"github.com/muster-id/muster/domain/password"
)

// The failures that the wire names. Field is set where the request has one.
var (
	ErrUserNameEmpty  = NewError(KindInvalidArgument, "COMMAND-00p2b", "Username is empty").OnField("userName")
	ErrProfileMissing = NewError(KindInvalidArgument, "PROFILE-GPY3p", "Profile is empty").OnField("profile")
	ErrFirstNameEmpty = NewError(KindInvalidArgument, "PROFILE-RF5z2", "First name in profile is empty").OnField("profile.firstName")
	ErrLastNameEmpty  = NewError(KindInvalidArgument, "PROFILE-DSUkN", "Last name in profile is empty").OnField("profile.lastName")
	ErrEmailEmpty     = NewError(KindInvalidArgument, "EMAIL-spblu", "Email is empty").OnField("email.email")
	ErrEmailInvalid   = NewError(KindInvalidArgument, "EMAIL-599BI", "Email is invalid").OnField("email.email")
	// ErrEmailNamed refuses an address with a display name before it.
	ErrEmailNamed        = NewError(KindInvalidArgument, "EMAIL-599GV", "Email is invalid").OnField("email.email")
	ErrPhoneEmpty        = NewError(KindInvalidArgument, "PHONE-Zt0NV", "Phone is empty").OnField("phone.phone")
	ErrPhoneInvalid      = NewError(KindInvalidArgument, "PHONE-so0wa", "Phone is invalid").OnField("phone.phone")
	ErrHashUnsupported   = NewError(KindInvalidArgument, "USER-JDk4t", "Password hash encoding not supported. Accepted are "+strings.Join(password.Accepted(), ", ")).OnField("hashedPassword.value")
	ErrIDPLinkInvalid    = NewError(KindInvalidArgument, "COMMAND-6m9Kd", "External IDP invalid")
	ErrIDPConfigUnknown  = NewError(KindFailedPrecondition, "COMMAND-39nfs", "Identity Provider Configuration doesn't exist")
	ErrIDPLinkTaken      = NewError(KindAlreadyExists, "V3-DKcYh", "External IDP already taken")
	ErrUserExists        = NewError(KindAlreadyExists, "V3-DKcYh", "User already exists")
	ErrCodeInvalid       = NewError(KindInvalidArgument, "COMMAND-11v6G", "Code is invalid")
	ErrCodeMissing       = NewError(KindNotFound, "COMMAND-mmn5f", "Code not found")
	ErrCodeExpired       = NewError(KindFailedPrecondition, "CODE-QvUQ4P", "Code is expired")
	ErrCodeWrong         = NewError(KindInvalidArgument, "CODE-woT0xc", "Code is invalid")
	ErrPasskeyCode       = NewError(KindInvalidArgument, "COMMAND-Dhz8i", "Code is invalid")
	ErrAlreadyInitial    = NewError(KindFailedPrecondition, "COMMAND-2M9sd", "User is already initialized")
	ErrDeactivateInitial = NewError(KindFailedPrecondition, "COMMAND-ke0fw", "User with state initial can only be deleted not deactivated")
	ErrAlreadyInactive   = NewError(KindFailedPrecondition, "COMMAND-5M0sf", "User already inactive")
	ErrNotInactive       = NewError(KindFailedPrecondition, "COMMAND-6M0sf", "User is not inactive")
	ErrNotLockable       = NewError(KindFailedPrecondition, "COMMAND-3NN8v", "User is not active or initial")
	ErrNotLocked         = NewError(KindFailedPrecondition, "COMMAND-4M0ds", "User is not locked")
	ErrUserNameSame      = NewError(KindFailedPrecondition, "COMMAND-6m9gs", "Username not changed").OnField("userName")
	ErrProfileSame       = NewError(KindFailedPrecondition, "COMMAND-2M0fs", "Profile not changed").OnField("profile")
)

// The failures that only Muster knows, named after the rule that was broken.
var (
	ErrTextInvalid    = NewError(KindInvalidArgument, "MUSTER-text", "Text is not valid UTF-8 or holds a NUL character")
	ErrTooLong        = NewError(KindInvalidArgument, "MUSTER-length", "Value is too long")
	ErrUserIDInvalid  = NewError(KindInvalidArgument, "MUSTER-userid", "User ID must be 1 to 200 characters, must not begin with $ or hold control characters").OnField("userId")
	ErrTOTPInvalid    = NewError(KindInvalidArgument, "MUSTER-totp", "TOTP secret is not base32").OnField("otpCode")
	ErrTOTPKind       = NewError(KindInvalidArgument, "MUSTER-totpkind", "Only TOTP with SHA1, 6 digits and 30 seconds is supported").OnField("otpCode")
	ErrMetadataKey    = NewError(KindInvalidArgument, "MUSTER-metakey", "Metadata key must be 1 to 200 characters")
	ErrMetadataValue  = NewError(KindInvalidArgument, "MUSTER-metavalue", "Metadata value is longer than 500000 bytes")
	ErrStateInvalid   = NewError(KindInvalidArgument, "MUSTER-state", "State must be active, inactive or locked").OnField("state")
	ErrCodeUsedUp     = NewError(KindResourceExhausted, "MUSTER-attempts", "Too many wrong codes")
	ErrAlreadyErased  = NewError(KindFailedPrecondition, "MUSTER-erased", "User is already erased")
	ErrUserNotActive  = NewError(KindFailedPrecondition, "MUSTER-active", "User is not active")
	ErrEmailSame      = NewError(KindFailedPrecondition, "MUSTER-email", "Email not changed").OnField("email.email")
	ErrPhoneSame      = NewError(KindFailedPrecondition, "MUSTER-phone", "Phone not changed").OnField("phone.phone")
	ErrPasswordWrong  = NewError(KindInvalidArgument, "MUSTER-password", "Password is invalid")
	ErrTOTPWrong      = NewError(KindInvalidArgument, "MUSTER-otp", "Code is invalid")
	ErrPasskeyWrong   = NewError(KindInvalidArgument, "MUSTER-passkey", "Passkey is invalid")
	ErrPasswordSame   = NewError(KindInvalidArgument, "MUSTER-samepassword", "The new password is the old one").OnField("password")
	ErrTOTPMissing    = NewError(KindFailedPrecondition, "MUSTER-nototp", "User has no second factor")
	ErrIDPLinkMissing = NewError(KindNotFound, "MUSTER-idplink", "External IDP not found")
)
