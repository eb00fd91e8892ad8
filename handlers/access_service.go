package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/muster-id/muster/handlers/access"
	musterv1 "github.com/muster-id/muster/proto/muster/v1"
)

func (s *server) bindAccess() {
	const service = "muster.v1.AccessService."
	bind(s, service+"CreateToken", access.IAMWrite, s.createToken)
	bind(s, service+"ListTokens", access.IAMWrite, s.listTokens)
	bind(s, service+"RevokeToken", access.IAMWrite, s.revokeToken)
	bind(s, service+"CreateOrganisation", access.IAMWrite, s.createOrganisation)
	bind(s, service+"ListOrganisations", access.IAMWrite, s.listOrganisations)

	owner := func(verb, path, summary string, body any, fn func(echo.Context, *call) (any, error)) {
		s.serveOwn(endpoint{verb: verb, path: "/v1/organisations/:id/domains" + path, permission: access.IAMWrite, summary: summary, body: body, answer: organisationDomains{}},
			answering(fn, func(err error) error { return err }))
	}
	owner(http.MethodGet, "", "The domains that are an organisation's", nil, s.listDomains)
	owner(http.MethodPost, "", "Make a domain an organisation's: nobody else's user names may end in it", domainRequest{}, s.addDomain)
	owner(http.MethodDelete, "/:domain", "Give an organisation's domain up", nil, s.removeDomain)
}

// What the calls about domains take and answer with.
type (
	domainRequest struct {
		Domain string `json:"domain"`
	}
	organisationDomains struct {
		Domains []string `json:"domains"`
	}
)

func (s *server) listDomains(e echo.Context, _ *call) (any, error) {
	return domainsAnswer(s.deps.Organisations.Domains(e.Request().Context(), e.Param("id")))
}

// addDomain makes a domain an organisation's. That the call needs iam.write is
// what makes it verified: whoever holds that answers for it.
func (s *server) addDomain(e echo.Context, c *call) (any, error) {
	var req domainRequest
	if err := readBody(e, &req); err != nil {
		return nil, err
	}
	return domainsAnswer(s.deps.Organisations.AddDomain(e.Request().Context(), e.Param("id"), req.Domain, c.token.ID))
}

func (s *server) removeDomain(e echo.Context, c *call) (any, error) {
	return domainsAnswer(s.deps.Organisations.RemoveDomain(e.Request().Context(), e.Param("id"), e.Param("domain"), c.token.ID))
}

func domainsAnswer(domains []string, err error) (any, error) {
	if domains == nil {
		domains = []string{}
	}
	return organisationDomains{domains}, err
}

func (s *server) createToken(ctx context.Context, req *musterv1.CreateTokenRequest) (*musterv1.CreateTokenResponse, error) {
	exists, err := s.deps.Organisations.Exists(ctx, req.GetOrganisationId())
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, access.ErrNoOrg
	}
	var expires time.Time
	if req.GetExpirationDate() != nil {
		if req.GetExpirationDate().CheckValid() != nil {
			return nil, access.ErrExpiry
		}
		expires = req.GetExpirationDate().AsTime()
	}
	t, secret, err := s.deps.Tokens.Create(ctx, req.GetName(), req.GetOrganisationId(), access.Role(req.GetRole()), expires, callOf(ctx).token.ID)
	if err != nil {
		return nil, err
	}
	return &musterv1.CreateTokenResponse{Token: tokenMessage(t), Secret: secret}, nil
}

func (s *server) listTokens(ctx context.Context, _ *musterv1.ListTokensRequest) (*musterv1.ListTokensResponse, error) {
	tokens, err := s.deps.Tokens.List(ctx)
	res := &musterv1.ListTokensResponse{}
	for _, t := range tokens {
		res.Result = append(res.Result, tokenMessage(t))
	}
	return res, err
}

func (s *server) revokeToken(ctx context.Context, req *musterv1.RevokeTokenRequest) (*musterv1.RevokeTokenResponse, error) {
	t, err := s.deps.Tokens.Revoke(ctx, req.GetId())
	return &musterv1.RevokeTokenResponse{Token: tokenMessage(t)}, err
}

func (s *server) createOrganisation(ctx context.Context, req *musterv1.CreateOrganisationRequest) (*musterv1.CreateOrganisationResponse, error) {
	o, err := s.deps.Organisations.Create(ctx, req.GetId(), req.GetName(), callOf(ctx).token.ID)
	return &musterv1.CreateOrganisationResponse{Organisation: organisationMessage(o)}, err
}

func (s *server) listOrganisations(ctx context.Context, _ *musterv1.ListOrganisationsRequest) (*musterv1.ListOrganisationsResponse, error) {
	all, err := s.deps.Organisations.List(ctx)
	res := &musterv1.ListOrganisationsResponse{}
	for _, o := range all {
		res.Result = append(res.Result, organisationMessage(o))
	}
	return res, err
}

func tokenMessage(t access.Token) *musterv1.Token {
	return &musterv1.Token{
		Id: t.ID, Name: t.Name, OrganisationId: t.Org, Role: string(t.Role), CreatedBy: t.CreatedBy,
		CreationDate: stamp(t.CreatedAt), ExpirationDate: stamp(t.ExpiresAt), RevocationDate: stamp(t.RevokedAt), LastUsedDate: stamp(t.LastUsedAt),
	}
}

func organisationMessage(o access.Organisation) *musterv1.Organisation {
	return &musterv1.Organisation{Id: o.ID, Name: o.Name, CreationDate: stamp(o.CreatedAt)}
}

// stamp leaves a time out that is not there.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
