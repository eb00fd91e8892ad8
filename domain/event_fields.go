package domain

// kinds is every event that this program knows, by type.
var kinds = map[string]kind{
	TypeHumanAdded:                   fielded[HumanAdded](),
	TypeEmailVerified:                bare[EmailVerified](),
	TypePhoneVerified:                bare[PhoneVerified](),
	TypePasswordSet:                  fielded[PasswordSet](),
	TypePasswordDelegated:            fielded[PasswordDelegated](),
	TypePasswordRehashed:             fielded[PasswordRehashed](),
	TypeTOTPAdded:                    fielded[TOTPAdded](),
	TypeIDPLinked:                    fielded[IDPLinked](),
	TypeIDPLinkRemoved:               fielded[IDPLinkRemoved](),
	TypeMetadataSet:                  fielded[MetadataSet](),
	TypeMetadataRemoved:              fielded[MetadataRemoved](),
	TypeInitializationCodeAdded:      fielded[InitializationCodeAdded](),
	TypeEmailCodeAdded:               fielded[EmailCodeAdded](),
	TypePhoneCodeAdded:               fielded[PhoneCodeAdded](),
	TypeInitializationSucceeded:      bare[InitializationSucceeded](),
	TypeInitializationFailed:         bare[InitializationFailed](),
	TypeEmailCodeFailed:              bare[EmailCodeFailed](),
	TypePhoneCodeFailed:              bare[PhoneCodeFailed](),
	TypePasskeyRegistrationRequested: fielded[PasskeyRegistrationRequested](),
	TypePasskeyRegistrationFailed:    fielded[PasskeyRegistrationFailed](),
	TypePasskeyAdded:                 fielded[PasskeyAdded](),
	TypePasskeyRemoved:               fielded[PasskeyRemoved](),
	TypePasskeyChecked:               fielded[PasskeyChecked](),
	TypePasskeyCheckFailed:           bare[PasskeyCheckFailed](),
	TypePasswordChecked:              bare[PasswordChecked](),
	TypePasswordCheckFailed:          bare[PasswordCheckFailed](),
	TypeTOTPChecked:                  fielded[TOTPChecked](),
	TypeTOTPCheckFailed:              bare[TOTPCheckFailed](),
	TypeTOTPRemoved:                  bare[TOTPRemoved](),
	TypeUserDeactivated:              bare[UserDeactivated](),
	TypeUserReactivated:              bare[UserReactivated](),
	TypeUserLocked:                   bare[UserLocked](),
	TypeUserUnlocked:                 bare[UserUnlocked](),
	TypeUsernameChanged:              fielded[UsernameChanged](),
	TypeProfileChanged:               fielded[ProfileChanged](),
	TypeEmailChanged:                 fielded[EmailChanged](),
	TypePhoneChanged:                 fielded[PhoneChanged](),
	TypePhoneRemoved:                 bare[PhoneRemoved](),
	TypeUserRemoved:                  bare[UserRemoved](),
	TypeUserErased:                   bare[UserErased](),
	TypeOrganisationAdded:            fielded[OrganisationAdded](),
	TypeOrganisationRenamed:          fielded[OrganisationRenamed](),
	TypeOrganisationDomainAdded:      fielded[OrganisationDomainAdded](),
	TypeOrganisationDomainRemoved:    fielded[OrganisationDomainRemoved](),
	TypePersonalDataRead:             fielded[PersonalDataRead](),
	TypeImportStarted:                fielded[ImportStarted](),
	TypeImportSecretAdded:            fielded[ImportSecretAdded](),
	TypeImportVerifierAdded:          fielded[ImportVerifierAdded](),
	TypeImportFinished:               fielded[ImportFinished](),
	TypeImportUndone:                 fielded[ImportUndone](),
	TypeOrganisationDeactivated:      bare[OrganisationDeactivated](),
	TypeOrganisationReactivated:      bare[OrganisationReactivated](),
}

// The field numbers below are those of events.proto; a
// number is never used again for something else.

func (e *HumanAdded) open(c *coder) {
	c.str(1, &e.Job)
	c.int(2, &e.Line)
}

func (e *HumanAdded) sealed(c *coder) {
	c.str(1, &e.UserName)
	c.profile(2, &e.Profile)
	c.str(8, &e.Email)
	c.str(9, &e.Phone)
	c.str(10, &e.ExternalID)
}

func (e *PasswordSet) open(c *coder) {
	c.flag(1, &e.ChangeRequired)
	c.str(2, &e.Format)
	c.flag(3, &e.Weak)
}

func (e *PasswordSet) sealed(c *coder) {
	c.str(1, &e.Hash)
}

func (e *PasswordDelegated) open(c *coder) {
	c.str(1, &e.Job)
	c.flag(2, &e.ChangeRequired)
}

func (*PasswordDelegated) sealed(*coder) {}

func (e *PasswordRehashed) open(c *coder) {
	c.str(1, &e.Format)
}

func (e *PasswordRehashed) sealed(c *coder) {
	c.str(1, &e.Hash)
}

func (*TOTPAdded) open(*coder) {}

func (e *TOTPAdded) sealed(c *coder) {
	c.str(1, &e.Secret)
}

func (e *IDPLinked) open(c *coder) {
	c.str(1, &e.ConfigID)
}

func (e *IDPLinked) sealed(c *coder) {
	c.str(1, &e.ExternalUserID)
	c.str(2, &e.DisplayName)
}

func (e *IDPLinkRemoved) open(c *coder) {
	c.str(1, &e.ConfigID)
}

func (e *IDPLinkRemoved) sealed(c *coder) {
	c.str(1, &e.ExternalUserID)
}

func (*MetadataSet) open(*coder) {}

func (e *MetadataSet) sealed(c *coder) {
	c.entries(1, &e.Entries)
}

func (*MetadataRemoved) open(*coder) {}

func (e *MetadataRemoved) sealed(c *coder) {
	c.strs(1, &e.Keys)
}

func (e *InitializationCodeAdded) open(c *coder) {
	e.SentCode.open(c)
}

func (e *InitializationCodeAdded) sealed(c *coder) {
	e.SentCode.sealed(c)
}

func (e *EmailCodeAdded) open(c *coder) {
	e.SentCode.open(c)
}

func (e *EmailCodeAdded) sealed(c *coder) {
	e.SentCode.sealed(c)
	c.str(2, &e.URLTemplate)
}

func (e *PhoneCodeAdded) open(c *coder) {
	e.SentCode.open(c)
}

func (e *PhoneCodeAdded) sealed(c *coder) {
	e.SentCode.sealed(c)
}

func (e *PasskeyRegistrationRequested) open(c *coder) {
	c.str(1, &e.CodeID)
	c.duration(2, &e.Lifetime)
	c.time(3, &e.Issued)
}

func (e *PasskeyRegistrationRequested) sealed(c *coder) {
	c.str(1, &e.Secret)
}

func (e *PasskeyRegistrationFailed) open(c *coder) {
	c.str(1, &e.CodeID)
}

func (*PasskeyRegistrationFailed) sealed(*coder) {}

func (e *PasskeyAdded) open(c *coder) {
	c.str(1, &e.CodeID)
}

func (e *PasskeyAdded) sealed(c *coder) {
	c.bytes(1, &e.CredentialID)
	c.bytes(2, &e.Credential)
	c.str(3, &e.Name)
}

func (*PasskeyRemoved) open(*coder) {}

func (e *PasskeyRemoved) sealed(c *coder) {
	c.bytes(1, &e.CredentialID)
}

func (e *PasskeyChecked) open(c *coder) {
	c.uint32(1, &e.SignCount)
}

func (e *PasskeyChecked) sealed(c *coder) {
	c.bytes(1, &e.CredentialID)
}

func (e *TOTPChecked) open(c *coder) {
	c.int(1, &e.Step)
}

func (*TOTPChecked) sealed(*coder) {}

func (*UsernameChanged) open(*coder) {}

func (e *UsernameChanged) sealed(c *coder) {
	c.str(1, &e.UserName)
}

func (*ProfileChanged) open(*coder) {}

func (e *ProfileChanged) sealed(c *coder) {
	c.profile(1, &e.Profile)
}

func (*EmailChanged) open(*coder) {}

func (e *EmailChanged) sealed(c *coder) {
	c.str(1, &e.Email)
}

func (*PhoneChanged) open(*coder) {}

func (e *PhoneChanged) sealed(c *coder) {
	c.str(1, &e.Phone)
}

func (e *OrganisationAdded) open(c *coder) {
	c.str(1, &e.Name)
}

func (*OrganisationAdded) sealed(*coder) {}

func (e *OrganisationRenamed) open(c *coder) {
	c.str(1, &e.Name)
}

func (*OrganisationRenamed) sealed(*coder) {}

func (e *OrganisationDomainAdded) open(c *coder) {
	c.str(1, &e.Domain)
}

func (*OrganisationDomainAdded) sealed(*coder) {}

func (e *OrganisationDomainRemoved) open(c *coder) {
	c.str(1, &e.Domain)
}

func (*OrganisationDomainRemoved) sealed(*coder) {}

func (e *PersonalDataRead) open(c *coder) {
	c.str(1, &e.What)
}

func (e *PersonalDataRead) sealed(c *coder) {
	c.str(1, &e.By)
	c.str(2, &e.Reason)
}

func (e *ImportStarted) open(c *coder) {
	c.str(1, &e.OnConflict)
	c.str(2, &e.Notify)
}

func (e *ImportStarted) sealed(c *coder) {
	c.str(1, &e.Remote)
}

func (e *ImportSecretAdded) open(c *coder) {
	c.str(1, &e.Ref)
	c.int(2, &e.Line)
}

func (e *ImportSecretAdded) sealed(c *coder) {
	c.bytes(1, &e.Secret)
}

func (*ImportVerifierAdded) open(*coder) {}

func (e *ImportVerifierAdded) sealed(c *coder) {
	c.str(1, &e.URL)
	c.str(2, &e.Authorization)
}

func (e *ImportFinished) open(c *coder) {
	c.int(1, &e.Created)
	c.int(2, &e.Updated)
	c.int(3, &e.Skipped)
	c.int(4, &e.Failed)
}

func (*ImportFinished) sealed(*coder) {}

func (e *ImportUndone) open(c *coder) {
	c.int(1, &e.Removed)
	c.int(2, &e.Kept)
}

func (*ImportUndone) sealed(*coder) {}

func (e *SentCode) open(c *coder) {
	c.duration(1, &e.Lifetime)
	c.time(2, &e.Issued)
	c.flag(3, &e.Silent)
}

func (e *SentCode) sealed(c *coder) { c.str(1, &e.Secret) }
