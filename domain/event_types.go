package domain

// The names under which events are stored. They never change.
const (
	TypeHumanAdded                   = "HumanAdded"
	TypeEmailVerified                = "EmailVerified"
	TypePhoneVerified                = "PhoneVerified"
	TypePasswordSet                  = "PasswordSet"
	TypePasswordDelegated            = "PasswordDelegated"
	TypePasswordRehashed             = "PasswordRehashed"
	TypeTOTPAdded                    = "TOTPAdded"
	TypeIDPLinked                    = "IDPLinked"
	TypeIDPLinkRemoved               = "IDPLinkRemoved"
	TypeMetadataSet                  = "MetadataSet"
	TypeMetadataRemoved              = "MetadataRemoved"
	TypeInitializationCodeAdded      = "InitializationCodeAdded"
	TypeEmailCodeAdded               = "EmailCodeAdded"
	TypePhoneCodeAdded               = "PhoneCodeAdded"
	TypeInitializationSucceeded      = "InitializationSucceeded"
	TypeInitializationFailed         = "InitializationFailed"
	TypeEmailCodeFailed              = "EmailCodeFailed"
	TypePhoneCodeFailed              = "PhoneCodeFailed"
	TypePasskeyRegistrationRequested = "PasskeyRegistrationRequested"
	TypePasskeyRegistrationFailed    = "PasskeyRegistrationFailed"
	TypePasskeyAdded                 = "PasskeyAdded"
	TypePasskeyRemoved               = "PasskeyRemoved"
	TypePasskeyChecked               = "PasskeyChecked"
	TypePasskeyCheckFailed           = "PasskeyCheckFailed"
	TypePasswordChecked              = "PasswordChecked"
	TypePasswordCheckFailed          = "PasswordCheckFailed"
	TypeTOTPChecked                  = "TOTPChecked"
	TypeTOTPCheckFailed              = "TOTPCheckFailed"
	TypeTOTPRemoved                  = "TOTPRemoved"
	TypeUserDeactivated              = "UserDeactivated"
	TypeUserReactivated              = "UserReactivated"
	TypeUserLocked                   = "UserLocked"
	TypeUserUnlocked                 = "UserUnlocked"
	TypeUsernameChanged              = "UsernameChanged"
	TypeProfileChanged               = "ProfileChanged"
	TypeEmailChanged                 = "EmailChanged"
	TypePhoneChanged                 = "PhoneChanged"
	TypePhoneRemoved                 = "PhoneRemoved"
	TypeUserRemoved                  = "UserRemoved"
	TypeUserErased                   = "UserErased"
	TypeOrganisationAdded            = "OrganisationAdded"
	TypeOrganisationRenamed          = "OrganisationRenamed"
	TypeOrganisationDeactivated      = "OrganisationDeactivated"
	TypeOrganisationReactivated      = "OrganisationReactivated"
	TypeOrganisationDomainAdded      = "OrganisationDomainAdded"
	TypeOrganisationDomainRemoved    = "OrganisationDomainRemoved"
	TypePersonalDataRead             = "PersonalDataRead"
	TypeImportStarted                = "ImportStarted"
	TypeImportSecretAdded            = "ImportSecretAdded"
	TypeImportVerifierAdded          = "ImportVerifierAdded"
	TypeImportFinished               = "ImportFinished"
	TypeImportUndone                 = "ImportUndone"
)

// Type implements Event.
func (HumanAdded) Type() string { return TypeHumanAdded }

// Schema implements Event.
func (HumanAdded) Schema() int16 { return 1 }

// Type implements Event.
func (EmailVerified) Type() string { return TypeEmailVerified }

// Schema implements Event.
func (EmailVerified) Schema() int16 { return 1 }

// Type implements Event.
func (PhoneVerified) Type() string { return TypePhoneVerified }

// Schema implements Event.
func (PhoneVerified) Schema() int16 { return 1 }

// Type implements Event.
func (PasswordSet) Type() string { return TypePasswordSet }

// Schema implements Event.
func (PasswordSet) Schema() int16 { return 1 }

// Type implements Event.
func (PasswordDelegated) Type() string { return TypePasswordDelegated }

// Schema implements Event.
func (PasswordDelegated) Schema() int16 { return 1 }

// Type implements Event.
func (PasswordRehashed) Type() string { return TypePasswordRehashed }

// Schema implements Event.
func (PasswordRehashed) Schema() int16 { return 1 }

// Type implements Event.
func (TOTPAdded) Type() string { return TypeTOTPAdded }

// Schema implements Event.
func (TOTPAdded) Schema() int16 { return 1 }

// Type implements Event.
func (IDPLinked) Type() string { return TypeIDPLinked }

// Schema implements Event.
func (IDPLinked) Schema() int16 { return 1 }

// Type implements Event.
func (IDPLinkRemoved) Type() string { return TypeIDPLinkRemoved }

// Schema implements Event.
func (IDPLinkRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (MetadataSet) Type() string { return TypeMetadataSet }

// Schema implements Event.
func (MetadataSet) Schema() int16 { return 1 }

// Type implements Event.
func (MetadataRemoved) Type() string { return TypeMetadataRemoved }

// Schema implements Event.
func (MetadataRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (InitializationCodeAdded) Type() string { return TypeInitializationCodeAdded }

// Schema implements Event.
func (InitializationCodeAdded) Schema() int16 { return 1 }

// Type implements Event.
func (EmailCodeAdded) Type() string { return TypeEmailCodeAdded }

// Schema implements Event.
func (EmailCodeAdded) Schema() int16 { return 1 }

// Type implements Event.
func (PhoneCodeAdded) Type() string { return TypePhoneCodeAdded }

// Schema implements Event.
func (PhoneCodeAdded) Schema() int16 { return 1 }

// Type implements Event.
func (InitializationSucceeded) Type() string { return TypeInitializationSucceeded }

// Schema implements Event.
func (InitializationSucceeded) Schema() int16 { return 1 }

// Type implements Event.
func (InitializationFailed) Type() string { return TypeInitializationFailed }

// Schema implements Event.
func (InitializationFailed) Schema() int16 { return 1 }

// Type implements Event.
func (EmailCodeFailed) Type() string { return TypeEmailCodeFailed }

// Schema implements Event.
func (EmailCodeFailed) Schema() int16 { return 1 }

// Type implements Event.
func (PhoneCodeFailed) Type() string { return TypePhoneCodeFailed }

// Schema implements Event.
func (PhoneCodeFailed) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyRegistrationRequested) Type() string { return TypePasskeyRegistrationRequested }

// Schema implements Event.
func (PasskeyRegistrationRequested) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyRegistrationFailed) Type() string { return TypePasskeyRegistrationFailed }

// Schema implements Event.
func (PasskeyRegistrationFailed) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyAdded) Type() string { return TypePasskeyAdded }

// Schema implements Event.
func (PasskeyAdded) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyRemoved) Type() string { return TypePasskeyRemoved }

// Schema implements Event.
func (PasskeyRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyChecked) Type() string { return TypePasskeyChecked }

// Schema implements Event.
func (PasskeyChecked) Schema() int16 { return 1 }

// Type implements Event.
func (PasskeyCheckFailed) Type() string { return TypePasskeyCheckFailed }

// Schema implements Event.
func (PasskeyCheckFailed) Schema() int16 { return 1 }

// Type implements Event.
func (PasswordChecked) Type() string { return TypePasswordChecked }

// Schema implements Event.
func (PasswordChecked) Schema() int16 { return 1 }

// Type implements Event.
func (PasswordCheckFailed) Type() string { return TypePasswordCheckFailed }

// Schema implements Event.
func (PasswordCheckFailed) Schema() int16 { return 1 }

// Type implements Event.
func (TOTPChecked) Type() string { return TypeTOTPChecked }

// Schema implements Event.
func (TOTPChecked) Schema() int16 { return 1 }

// Type implements Event.
func (TOTPCheckFailed) Type() string { return TypeTOTPCheckFailed }

// Schema implements Event.
func (TOTPCheckFailed) Schema() int16 { return 1 }

// Type implements Event.
func (TOTPRemoved) Type() string { return TypeTOTPRemoved }

// Schema implements Event.
func (TOTPRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (UserDeactivated) Type() string { return TypeUserDeactivated }

// Schema implements Event.
func (UserDeactivated) Schema() int16 { return 1 }

// Type implements Event.
func (UserReactivated) Type() string { return TypeUserReactivated }

// Schema implements Event.
func (UserReactivated) Schema() int16 { return 1 }

// Type implements Event.
func (UserLocked) Type() string { return TypeUserLocked }

// Schema implements Event.
func (UserLocked) Schema() int16 { return 1 }

// Type implements Event.
func (UserUnlocked) Type() string { return TypeUserUnlocked }

// Schema implements Event.
func (UserUnlocked) Schema() int16 { return 1 }

// Type implements Event.
func (UsernameChanged) Type() string { return TypeUsernameChanged }

// Schema implements Event.
func (UsernameChanged) Schema() int16 { return 1 }

// Type implements Event.
func (ProfileChanged) Type() string { return TypeProfileChanged }

// Schema implements Event.
func (ProfileChanged) Schema() int16 { return 1 }

// Type implements Event.
func (EmailChanged) Type() string { return TypeEmailChanged }

// Schema implements Event.
func (EmailChanged) Schema() int16 { return 1 }

// Type implements Event.
func (PhoneChanged) Type() string { return TypePhoneChanged }

// Schema implements Event.
func (PhoneChanged) Schema() int16 { return 1 }

// Type implements Event.
func (PhoneRemoved) Type() string { return TypePhoneRemoved }

// Schema implements Event.
func (PhoneRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (UserRemoved) Type() string { return TypeUserRemoved }

// Schema implements Event.
func (UserRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (UserErased) Type() string { return TypeUserErased }

// Schema implements Event.
func (UserErased) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationAdded) Type() string { return TypeOrganisationAdded }

// Schema implements Event.
func (OrganisationAdded) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationRenamed) Type() string { return TypeOrganisationRenamed }

// Schema implements Event.
func (OrganisationRenamed) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationDeactivated) Type() string { return TypeOrganisationDeactivated }

// Schema implements Event.
func (OrganisationDeactivated) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationReactivated) Type() string { return TypeOrganisationReactivated }

// Schema implements Event.
func (OrganisationReactivated) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationDomainAdded) Type() string { return TypeOrganisationDomainAdded }

// Schema implements Event.
func (OrganisationDomainAdded) Schema() int16 { return 1 }

// Type implements Event.
func (OrganisationDomainRemoved) Type() string { return TypeOrganisationDomainRemoved }

// Schema implements Event.
func (OrganisationDomainRemoved) Schema() int16 { return 1 }

// Type implements Event.
func (PersonalDataRead) Type() string { return TypePersonalDataRead }

// Schema implements Event.
func (PersonalDataRead) Schema() int16 { return 1 }

// Type implements Event.
func (ImportStarted) Type() string { return TypeImportStarted }

// Schema implements Event.
func (ImportStarted) Schema() int16 { return 1 }

// Type implements Event.
func (ImportSecretAdded) Type() string { return TypeImportSecretAdded }

// Schema implements Event.
func (ImportSecretAdded) Schema() int16 { return 1 }

// Type implements Event.
func (ImportVerifierAdded) Type() string { return TypeImportVerifierAdded }

// Schema implements Event.
func (ImportVerifierAdded) Schema() int16 { return 1 }

// Type implements Event.
func (ImportFinished) Type() string { return TypeImportFinished }

// Schema implements Event.
func (ImportFinished) Schema() int16 { return 1 }

// Type implements Event.
func (ImportUndone) Type() string { return TypeImportUndone }

// Schema implements Event.
func (ImportUndone) Schema() int16 { return 1 }
