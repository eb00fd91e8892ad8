package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/access"
	"github.com/muster-id/muster/handlers/signin"
	objectv2 "github.com/muster-id/muster/proto/zitadel/object/v2"
	sessionv2 "github.com/muster-id/muster/proto/zitadel/session/v2"
)

// A login of somebody's own is built on sessions. It acts under a token that
// may write sessions: an owner's within the organisation; IAM_LOGIN_CLIENT's and
// IAM_OWNER's everywhere, unless the call names an organisation. Whoever
// calls with any token and the session's own may read and end that session.

// changeHeader is set on answers to who has to set a new password.
const changeHeader = "Muster-Password-Change-Required"

var errPasswordCheck = domain.NewError(domain.KindInvalidArgument, "COMMAND-3M0fs", "Password is invalid")

func (s *server) bindSessions() {
	if s.deps.SignIn == nil {
		return
	}
	const service = "zitadel.session.v2.SessionService."
	bind(s, service+"CreateSession", access.SessionWrite, s.createSession)
	bind(s, service+"SetSession", access.SessionWrite, s.setSession)
	// These two are good with the session's token alone, whatever the role.
	bind(s, service+"GetSession", access.UserRead, s.getSession)
	bind(s, service+"DeleteSession", access.UserRead, s.deleteSession)
}

// by is who calls, and where they may look.
func (c *call) by(perm access.Permission) signin.Caller {
	by := signin.Caller{ID: c.token.ID, Org: c.org, Trusted: c.token.Role.May(perm)}
	if c.token.Role.AnySession() && c.header.Get("X-Zitadel-Orgid") == "" {
		by.Org = ""
	}
	return by
}

// sessionError gives the failures of a check the wire's ids.
func sessionError(err error) error {
	if errors.Is(err, domain.ErrPasswordWrong) {
		return errPasswordCheck
	}
	return err
}

func (s *server) createSession(ctx context.Context, req *sessionv2.CreateSessionRequest) (*sessionv2.CreateSessionResponse, error) {
	c := callOf(ctx)
	want, err := sessionRequest(c, req.GetChecks(), req.GetChallenges(), req.GetLifetime())
	if err != nil {
		return nil, err
	}
	a, err := s.deps.SignIn.CreateSession(ctx, c.by(access.SessionWrite), want)
	if err != nil {
		return nil, sessionError(err)
	}
	challenges, err := challengesOf(c, a)
	return &sessionv2.CreateSessionResponse{
		Details: sessionDetails(c, a.Session), SessionId: a.Session.ID, SessionToken: a.Token, Challenges: challenges,
	}, err
}

func (s *server) setSession(ctx context.Context, req *sessionv2.SetSessionRequest) (*sessionv2.SetSessionResponse, error) {
	c := callOf(ctx)
	want, err := sessionRequest(c, req.GetChecks(), req.GetChallenges(), req.GetLifetime())
	if err != nil {
		return nil, err
	}
	a, err := s.deps.SignIn.SetSession(ctx, c.by(access.SessionWrite), req.GetSessionId(), req.GetSessionToken(), want)
	if err != nil {
		return nil, sessionError(err)
	}
	challenges, err := challengesOf(c, a)
	return &sessionv2.SetSessionResponse{Details: sessionDetails(c, a.Session), SessionToken: a.Token, Challenges: challenges}, err
}

func (s *server) getSession(ctx context.Context, req *sessionv2.GetSessionRequest) (*sessionv2.GetSessionResponse, error) {
	x, err := s.deps.SignIn.GetSession(ctx, callOf(ctx).by(access.SessionRead), req.GetSessionId(), req.GetSessionToken())
	if err != nil {
		return nil, err
	}
	m := &sessionv2.Session{
		Id: x.ID, CreationDate: stamp(x.Created), ChangeDate: stamp(x.Changed), Sequence: uint64(x.Sequence),
		ExpirationDate: stamp(x.Expires), Factors: &sessionv2.Factors{},
	}
	if p := x.Person; p.ID != "" {
		m.Factors.User = &sessionv2.UserFactor{
			VerifiedAt: stamp(x.UserAt), Id: p.ID, LoginName: p.UserName, DisplayName: p.DisplayName, OrganizationId: p.Org,
		}
	}
	if !x.PasswordAt.IsZero() {
		m.Factors.Password = &sessionv2.PasswordFactor{VerifiedAt: stamp(x.PasswordAt), ChangeRequired: x.Person.ChangeRequired}
	}
	if !x.PasskeyAt.IsZero() {
		m.Factors.WebAuthN = &sessionv2.WebAuthNFactor{VerifiedAt: stamp(x.PasskeyAt), UserVerified: x.PasskeyVerified}
	}
	if !x.TOTPAt.IsZero() {
		m.Factors.Totp = &sessionv2.TOTPFactor{VerifiedAt: stamp(x.TOTPAt)}
	}
	return &sessionv2.GetSessionResponse{Session: m}, nil
}

func (s *server) deleteSession(ctx context.Context, req *sessionv2.DeleteSessionRequest) (*sessionv2.DeleteSessionResponse, error) {
	c := callOf(ctx)
	x, err := s.deps.SignIn.DeleteSession(ctx, c.by(access.SessionWrite), req.GetSessionId(), req.GetSessionToken())
	if err != nil {
		return nil, err
	}
	return &sessionv2.DeleteSessionResponse{Details: sessionDetails(c, x)}, nil
}

func sessionDetails(c *call, x signin.Session) *objectv2.Details {
	org := x.Org
	if org == "" {
		org = c.org
	}
	return &objectv2.Details{
		Sequence: uint64(x.Sequence), CreationDate: timestamppb.New(x.Created), ChangeDate: timestamppb.New(x.Changed), ResourceOwner: org,
	}
}

// sessionRequest reads what the two writing calls have in common.
func sessionRequest(c *call, checks *sessionv2.Checks, challenges *sessionv2.RequestChallenges, lifetime *durationpb.Duration) (signin.Request, error) {
	var r signin.Request
	switch u := checks.GetUser().GetSearch().(type) {
	case *sessionv2.CheckUser_UserId:
		r.Checks.UserID = &u.UserId
	case *sessionv2.CheckUser_LoginName:
		r.Checks.LoginName = &u.LoginName
	}
	if p := checks.GetPassword(); p != nil {
		r.Checks.Password = &p.Password
	}
	if t := checks.GetTotp(); t != nil {
		r.Checks.TOTP = &t.Code
	}
	if w := checks.GetWebAuthN(); w != nil {
		response, err := protojson.Marshal(w.GetCredentialAssertionData())
		if err != nil {
			return r, badRequest(err)
		}
		r.Checks.Passkey = response
	}
	if w := challenges.GetWebAuthN(); w != nil {
		verification := map[sessionv2.UserVerificationRequirement]string{
			sessionv2.UserVerificationRequirement_USER_VERIFICATION_REQUIREMENT_PREFERRED:   "preferred",
			sessionv2.UserVerificationRequirement_USER_VERIFICATION_REQUIREMENT_DISCOURAGED: "discouraged",
		}[w.GetUserVerificationRequirement()]
		r.Challenge = &signin.Challenge{Origin: c.origin, Domain: w.GetDomain(), Verification: verification}
	}
	if lifetime != nil {
		r.Lifetime = lifetime.AsDuration()
		if r.Lifetime < time.Second || r.Lifetime > signin.MaxLifetime { // AsDuration is bounded
			return r, signin.ErrLifetime
		}
	}
	return r, nil
}

// challengesOf is the ceremony that a session has begun, and the header that
// tells of a password to be changed.
func challengesOf(c *call, a signin.Answer) (*sessionv2.Challenges, error) {
	if a.Session.Person.ChangeRequired && !a.Session.PasswordAt.IsZero() {
		c.out.Set(changeHeader, "true")
	}
	if a.Options == nil {
		return nil, nil
	}
	var options map[string]any
	if err := json.Unmarshal(a.Options, &options); err != nil {
		return nil, err
	}
	m, err := structpb.NewStruct(options)
	return &sessionv2.Challenges{WebAuthN: &sessionv2.Challenges_WebAuthN{PublicKeyCredentialRequestOptions: m}}, err
}
