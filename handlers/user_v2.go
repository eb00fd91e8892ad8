package handlers

import (
	"context"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	objectv2 "github.com/muster-id/muster/proto/zitadel/object/v2"
	userv2 "github.com/muster-id/muster/proto/zitadel/user/v2"
)

func (s *server) bindUserV2() {
	bind(s, "zitadel.user.v2.UserService.AddHumanUser", access.UserWrite, s.addHumanUser)
	s.extras["zitadel.user.v2.UserService.AddHumanUser"] = []parameter{keyParameter}
}

var errUserIDTaken = domain.NewError(domain.KindFailedPrecondition, "COMMAND-7yiox1isql", "User already exists").OnField("userId")

func (s *server) addHumanUser(ctx context.Context, req *userv2.AddHumanUserRequest) (*userv2.AddHumanUserResponse, error) {
	c := callOf(ctx)
	org, err := s.organization(ctx, c, req.GetOrganization())
	if err != nil {
		return nil, err
	}
	c.org = org
	idem, err := c.idempotency("AddHumanUser", req)
	if err != nil {
		return nil, err
	}
	out, err := s.deps.Importer.Import(ctx, importer.Caller{ID: c.token.ID, Org: c.org}, addCommand(req), idem)
	if err != nil {
		return nil, secondGeneration(err)
	}
	s.answerPosition(c, out.Result)
	res := &userv2.AddHumanUserResponse{
		UserId:  out.Result.Stream,
		Details: &objectv2.Details{Sequence: uint64(out.Result.Last), ChangeDate: stamp(out.Result.At), ResourceOwner: c.org},
	}
	if out.EmailCode != nil {
		res.EmailCode = &out.EmailCode.Secret
	}
	if out.PhoneCode != nil {
		res.PhoneCode = &out.PhoneCode.Secret
	}
	return res, nil
}

// organization judges the organisation in a message as authenticate judges the
// one in the header, which it takes precedence over.
func (s *server) organization(ctx context.Context, c *call, o *objectv2.Organization) (string, error) {
	switch o := o.GetOrg().(type) {
	case *objectv2.Organization_OrgId:
		return o.OrgId, s.mayEnter(ctx, c.token, o.OrgId)
	case *objectv2.Organization_OrgDomain:
		org, err := s.deps.Organisations.OwnerOf(ctx, o.OrgDomain)
		switch {
		case err != nil:
			return "", err
		case org == "":
			return "", access.ErrNoOrg
		}
		return org, s.mayEnter(ctx, c.token, org)
	}
	return c.org, nil
}

// secondGeneration gives failures of the shared command the ids that the wire
// has for them here.
func secondGeneration(err error) error {
	e := asError(err)
	switch {
	case e.ID == domain.ErrUserExists.ID && e.Field == errUserIDTaken.Field:
		return errUserIDTaken
	case e.ID == domain.ErrIDPConfigUnknown.ID:
		return withID(e, "COMMAND-39nf2")
	}
	if suffix, ok := strings.CutPrefix(e.ID, "DOMAIN-"); ok {
		return withID(e, "COMMA-"+suffix)
	}
	return e
}

func withID(e *domain.Error, id string) *domain.Error {
	c := *e
	c.ID = id
	return &c
}

// addCommand is the command that the wire's message asks for. Without a word
// on verification an address gets a code sent.
func addCommand(req *userv2.AddHumanUserRequest) domain.ImportHuman {
	p := req.GetProfile()
	cmd := domain.ImportHuman{
		UserID: req.GetUserId(), UserName: req.GetUsername(), UserNameFallback: true, TrimNames: true,
		Profile: domain.Profile{
			FirstName: p.GetGivenName(), LastName: p.GetFamilyName(), NickName: p.GetNickName(), DisplayName: p.GetDisplayName(),
			PreferredLanguage: p.GetPreferredLanguage(), Gender: gender(int32(p.GetGender())),
		},
		Email:          domain.Email{Address: req.GetEmail().GetEmail(), Mode: domain.VerifySend},
		Password:       req.GetPassword().GetPassword(),
		HashedPassword: req.GetHashedPassword().GetHash(),
		ChangeRequired: req.GetPassword().GetChangeRequired() || req.GetHashedPassword().GetChangeRequired(),
		TOTPSecret:     req.GetTotpSecret(),
	}
	switch v := req.GetEmail().GetVerification().(type) {
	case *userv2.SetHumanEmail_SendCode:
		cmd.Email.URLTemplate = v.SendCode.GetUrlTemplate()
	case *userv2.SetHumanEmail_ReturnCode:
		cmd.Email.Mode = domain.VerifyReturn
	case *userv2.SetHumanEmail_IsVerified:
		cmd.Email.Mode, cmd.Email.Verified = domain.VerifyNone, v.IsVerified
	}
	if number := req.GetPhone().GetPhone(); number != "" {
		cmd.Phone = &domain.Phone{Number: number, Mode: domain.VerifySend}
		switch req.GetPhone().GetVerification().(type) {
		case *userv2.SetHumanPhone_ReturnCode:
			cmd.Phone.Mode = domain.VerifyReturn
		case *userv2.SetHumanPhone_IsVerified:
			cmd.Phone.Mode, cmd.Phone.Verified = domain.VerifyNone, req.GetPhone().GetIsVerified()
		}
	}
	for _, l := range req.GetIdpLinks() {
		cmd.IDPLinks = append(cmd.IDPLinks, domain.IDPLink{ConfigID: l.GetIdpId(), ExternalUserID: l.GetUserId(), DisplayName: l.GetUserName()})
	}
	for _, m := range req.GetMetadata() {
		cmd.Metadata = append(cmd.Metadata, domain.Metadata{Key: m.GetKey(), Value: m.GetValue()})
	}
	return cmd
}
