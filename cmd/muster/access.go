package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/muster-id/muster/handlers/access"
)

type tokenCmd struct {
	Create tokenCreateCmd `cmd:"" help:"Create a token and print it, once."`
	List   tokenListCmd   `cmd:"" help:"List tokens."`
	Revoke tokenRevokeCmd `cmd:"" help:"Revoke a token, on every instance within a second."`
}

// access opens tokens and organisations for a command beside the service.
func (a *app) access() (*access.Tokens, *access.Organisations, func(), error) {
	store, done, err := a.openStore()
	if err != nil {
		return nil, nil, nil, err
	}
	return access.NewTokens(store.Pool(), "", "", time.Now), access.NewOrganisations(store, time.Now), done, nil
}

type tokenCreateCmd struct {
	Org  string        `required:"" placeholder:"ID" help:"The organisation that the token is of."`
	Role string        `required:"" enum:"IAM_OWNER,IAM_ORG_MANAGER,IAM_USER_MANAGER,IAM_LOGIN_CLIENT,ORG_OWNER,ORG_USER_MANAGER,ORG_USER_VIEWER" help:"IAM_OWNER, IAM_ORG_MANAGER, IAM_USER_MANAGER, IAM_LOGIN_CLIENT, ORG_OWNER, ORG_USER_MANAGER or ORG_USER_VIEWER."`
	Name string        `default:"" help:"What it is for."`
	TTL  time.Duration `name:"ttl" default:"0" help:"How long it is good for; 0: until revoked."`
}

// Run creates a token.
func (c *tokenCreateCmd) Run(a *app) error {
	tokens, orgs, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	exists, err := orgs.Exists(a, c.Org)
	if err != nil {
		return err
	}
	if !exists {
		return errors.New("there is no such organisation; see: muster org list")
	}
	var expires time.Time
	if c.TTL > 0 {
		expires = time.Now().Add(c.TTL)
	}
	t, secret, err := tokens.Create(a, c.Name, c.Org, access.Role(c.Role), expires, systemActor)
	if err != nil {
		return err
	}
	a.log.Info("a token is created; it is shown this once", "id", t.ID, "role", t.Role, "org", t.Org)
	fmt.Fprintln(a.out, secret)
	return nil
}

type tokenListCmd struct{}

// Run lists tokens.
func (*tokenListCmd) Run(a *app) error {
	tokens, _, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	list, err := tokens.List(a)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tORG\tROLE\tCREATED\tEXPIRES\tREVOKED\tLAST USED")
	for _, t := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Org, t.Role, date(t.CreatedAt), date(t.ExpiresAt), date(t.RevokedAt), date(t.LastUsedAt))
	}
	return w.Flush()
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

type tokenRevokeCmd struct {
	ID string `arg:"" help:"The token's id."`
}

// Run revokes a token.
func (c *tokenRevokeCmd) Run(a *app) error {
	tokens, _, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	if _, err := tokens.Revoke(a, c.ID); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "revoked")
	return nil
}

type orgCmd struct {
	Create orgCreateCmd `cmd:"" help:"Create an organisation and print its id."`
	List   orgListCmd   `cmd:"" help:"List organisations."`
	Domain orgDomainCmd `cmd:"" help:"Say which domains are whose: nobody else's user names may end in them."`
}

type orgCreateCmd struct {
	Name string `arg:"" help:"The name."`
	ID   string `name:"id" help:"The id; unset: generated."`
}

// Run creates an organisation.
func (c *orgCreateCmd) Run(a *app) error {
	_, orgs, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	org, err := orgs.Create(a, c.ID, c.Name, systemActor)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, org.ID)
	return nil
}

type orgListCmd struct{}

// Run lists organisations.
func (*orgListCmd) Run(a *app) error {
	_, orgs, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	list, err := orgs.List(a)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tCREATED")
	for _, o := range list {
		state := "active"
		if o.State != 1 {
			state = "inactive"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.ID, o.Name, state, date(o.CreatedAt))
	}
	return w.Flush()
}

type orgDomainCmd struct {
	Add    orgDomainAddCmd    `cmd:"" help:"Make a domain an organisation's, verified; it counts on every instance within a second."`
	Remove orgDomainRemoveCmd `cmd:"" help:"Give a domain up."`
	List   orgDomainListCmd   `cmd:"" help:"List an organisation's domains."`
}

type orgDomainAddCmd struct {
	Org    string `arg:"" help:"The organisation's id."`
	Domain string `arg:"" help:"The domain, such as example.org. Nothing about it is looked up."`
}

// Run makes a domain an organisation's.
func (c *orgDomainAddCmd) Run(a *app) error {
	return a.domains(func(o *access.Organisations) ([]string, error) { return o.AddDomain(a, c.Org, c.Domain, systemActor) })
}

type orgDomainRemoveCmd struct {
	Org    string `arg:"" help:"The organisation's id."`
	Domain string `arg:"" help:"The domain."`
}

// Run gives a domain up.
func (c *orgDomainRemoveCmd) Run(a *app) error {
	return a.domains(func(o *access.Organisations) ([]string, error) {
		return o.RemoveDomain(a, c.Org, c.Domain, systemActor)
	})
}

type orgDomainListCmd struct {
	Org string `arg:"" help:"The organisation's id."`
}

// Run lists an organisation's domains.
func (c *orgDomainListCmd) Run(a *app) error {
	return a.domains(func(o *access.Organisations) ([]string, error) { return o.Domains(a, c.Org) })
}

// domains prints the domains that an organisation has after a call.
func (a *app) domains(call func(*access.Organisations) ([]string, error)) error {
	_, orgs, done, err := a.access()
	if err != nil {
		return err
	}
	defer done()
	list, err := call(orgs)
	for _, d := range list {
		fmt.Fprintln(a.out, d)
	}
	return err
}
