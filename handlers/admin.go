package handlers

import (
	"context"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/importer"
	adminv1 "github.com/muster-id/muster/proto/zitadel/admin/v1"
	userv1 "github.com/muster-id/muster/proto/zitadel/user/v1"
	datav1 "github.com/muster-id/muster/proto/zitadel/v1/v1"
)

func (s *server) bindAdmin() {
	bindLong(s, "zitadel.admin.v1.AdminService.ImportData", access.IAMWrite, maxImportTime, s.importData)
}

// maxImportTime bounds what a document may ask for.
const maxImportTime = time.Hour

var (
	errImportTimeout = domain.NewError(domain.KindInvalidArgument, "MUSTER-timeout", "Timeout must be a duration of at most an hour, such as 30m0s")
	errImportData    = domain.NewError(domain.KindInvalidArgument, "MUSTER-dataorgs", "Document has no dataOrgs")
	errNotServed     = domain.NewError(domain.KindUnimplemented, "MUSTER-notserved", "Only users, their metadata and their provider links are imported")
	errNoSuchUser    = domain.NewError(domain.KindNotFound, "MUSTER-nouser", "Document has no such user")
	// errExisting has the wire's raw key for its text.
	errExisting = domain.NewError(domain.KindFailedPrecondition, "COMMAND-ziuna", "Errors.User.AlreadyExisting")
)

// importData runs a converter's document, one user after another. What a
// document says of one user (the user itself, metadata, provider links) is one
// append: a user is there with all of it or not at all. Nobody is mailed.
func (s *server) importData(ctx context.Context, req *adminv1.ImportDataRequest) (*adminv1.ImportDataResponse, error) {
	timeout, err := time.ParseDuration(req.GetTimeout())
	if err != nil || timeout <= 0 || timeout > maxImportTime {
		return nil, errImportTimeout
	}
	if req.GetDataOrgs() == nil {
		return nil, errImportData
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res := &adminv1.ImportDataResponse{Success: &adminv1.ImportDataSuccess{}}
	for _, org := range req.GetDataOrgs().GetOrgs() {
		s.importOrg(ctx, org, res)
		if ctx.Err() != nil {
			break
		}
	}
	return res, nil
}

func (s *server) importOrg(ctx context.Context, org *adminv1.DataOrg, res *adminv1.ImportDataResponse) {
	c := callOf(ctx)
	fail := func(kind, id string, err error) {
		e := s.failure(ctx, c, err)
		res.Errors = append(res.Errors, &adminv1.ImportDataError{Type: kind, Id: id, Message: e.Error()})
	}
	id := org.GetOrgId()
	if org.GetOrg() != nil {
		if err := s.deps.Organisations.Ensure(ctx, id, org.GetOrg().GetName(), c.token.ID); err != nil {
			fail("org", id, err)
			return
		}
	}
	switch exists, err := s.deps.Organisations.Exists(ctx, id); {
	case err != nil:
		fail("org", id, err)
		return
	case !exists:
		fail("org", id, access.ErrNoOrg)
		return
	}
	for _, g := range org.GetUserGrants() {
		fail("user_grant", g.GetUserId(), errNotServed)
	}

	done := &adminv1.ImportDataSuccessOrg{OrgId: id}
	res.Success.Orgs = append(res.Success.Orgs, done)
	extras := map[string]*extra{}
	of := func(user string) *extra {
		if extras[user] == nil {
			extras[user] = &extra{}
		}
		return extras[user]
	}
	for _, u := range org.GetHumanUsers() {
		of(u.GetUserId()).known = true
	}
	for _, m := range org.GetUserMetadata() {
		if err := validate(m); err != nil {
			fail("user_metadata", m.GetId(), err)
		} else if x := of(m.GetId()); x.known {
			x.metadata = append(x.metadata, domain.Metadata{Key: m.GetKey(), Value: m.GetValue()})
		} else {
			fail("user_metadata", m.GetId(), errNoSuchUser)
		}
	}
	for _, l := range org.GetUserLinks() {
		if x := of(l.GetUserId()); x.known {
			x.links = append(x.links, domain.IDPLink{ConfigID: l.GetIdpId(), ExternalUserID: l.GetProvidedUserId(), DisplayName: l.GetProvidedUserName()})
		} else {
			fail("user_link", l.GetUserId(), errNoSuchUser)
		}
	}
	for _, u := range org.GetHumanUsers() {
		x := extras[u.GetUserId()]
		user, err := s.importDataUser(ctx, c, id, u, x)
		if err != nil {
			fail("human_user", u.GetUserId(), err)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		extras[u.GetUserId()] = &extra{} // an item with the same id is not to bring them again
		done.HumanUserIds = append(done.HumanUserIds, user)
		for _, m := range x.metadata {
			done.UserMetadata = append(done.UserMetadata, &adminv1.ImportDataSuccessUserMetadata{UserId: user, Key: m.Key})
		}
		for _, l := range x.links {
			done.UserLinks = append(done.UserLinks, &adminv1.ImportDataSuccessUserLinks{UserId: user, IdpId: l.ConfigID, ExternalUserId: l.ExternalUserID, DisplayName: l.DisplayName})
		}
	}
}

// extra is what a document says of a user outside the user's own item.
type extra struct {
	known    bool
	metadata []domain.Metadata
	links    []domain.IDPLink
}

func (s *server) importDataUser(ctx context.Context, c *call, org string, u *datav1.DataHumanUser, x *extra) (string, error) {
	if err := validate(u.GetUser()); err != nil {
		return "", err
	}
	cmd := ImportCommand(u.GetUser())
	cmd.UserID, cmd.Silent, cmd.PasskeyOrigin = u.GetUserId(), true, c.origin
	cmd.Metadata = x.metadata
	cmd.IDPLinks = append(cmd.IDPLinks, x.links...)
	switch u.GetState() {
	case userv1.UserState_USER_STATE_INACTIVE:
		cmd.State = domain.StateInactive
	case userv1.UserState_USER_STATE_LOCKED:
		cmd.State = domain.StateLocked
	default: // nothing special
	}
	out, err := s.deps.Importer.Import(ctx, importer.Caller{ID: c.token.ID, Org: org}, cmd, nil)
	if err != nil {
		if e := asError(err); e.ID == domain.ErrUserExists.ID && e.Field == errUserIDTaken.Field {
			return "", errExisting
		}
		return "", err
	}
	return out.Result.Stream, nil
}
