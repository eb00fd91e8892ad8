package domain

import (
	"slices"
	"strings"
)

// OrganisationStream returns the stream of an organisation's events. No user
// can have it as an id.
func OrganisationStream(id string) string { return "$org-" + id }

// Organisation is what a stream of organisation events adds up to.
type Organisation struct {
	// ID is not in the events; whoever reads the stream sets it.
	ID       string
	Sequence int64
	Name     string
	// State is StateUnspecified (does not exist), StateActive or StateInactive.
	State State
	// Domains are the verified domains, in the order in which they came.
	Domains []string
}

// Apply folds the stream's next event.
func (o *Organisation) Apply(e Event) {
	o.Sequence++
	switch e := e.(type) {
	case OrganisationAdded:
		o.State, o.Name = StateActive, e.Name
	case OrganisationRenamed:
		o.Name = e.Name
	case OrganisationDeactivated:
		o.State = StateInactive
	case OrganisationReactivated:
		o.State = StateActive
	case OrganisationDomainAdded:
		o.Domains = append(o.Domains, e.Domain)
	case OrganisationDomainRemoved:
		o.Domains = slices.DeleteFunc(o.Domains, func(d string) bool { return d == e.Domain })
	}
}

func (o *Organisation) decide(e Event) Decision {
	return Decision{Stream: OrganisationStream(o.ID), Org: o.ID, Expected: o.Sequence, Events: []Event{e}}
}

// Add makes the organisation. ErrOrganisationExists, ErrOrganisationName.
func (o *Organisation) Add(name string) (Decision, error) {
	name, err := organisationName(name)
	switch {
	case err != nil:
		return Decision{}, err
	case o.State != StateUnspecified:
		return Decision{}, ErrOrganisationExists
	}
	return o.decide(OrganisationAdded{Name: name}), nil
}

// Rename gives it another name. ErrOrganisationMissing, ErrOrganisationName,
// ErrOrganisationSame.
func (o *Organisation) Rename(name string) (Decision, error) {
	name, err := organisationName(name)
	switch {
	case o.State == StateUnspecified:
		return Decision{}, ErrOrganisationMissing
	case err != nil:
		return Decision{}, err
	case name == o.Name:
		return Decision{}, ErrOrganisationSame
	}
	return o.decide(OrganisationRenamed{Name: name}), nil
}

// Deactivate stops all use of it. ErrOrganisationMissing, ErrOrganisationSame.
func (o *Organisation) Deactivate() (Decision, error) {
	return o.turn(StateInactive, OrganisationDeactivated{})
}

// Reactivate undoes Deactivate. ErrOrganisationMissing, ErrOrganisationSame.
func (o *Organisation) Reactivate() (Decision, error) {
	return o.turn(StateActive, OrganisationReactivated{})
}

// AddDomain makes a domain the organisation's: from then on no other
// organisation's user gets a user name that ends in @ and it. Nothing about the
// domain is looked up. Only an operator may add one, and that the operator did
// is what makes it verified. ErrOrganisationMissing, NormaliseDomain's errors,
// ErrOrganisationSame, ErrDomainsMany; whoever commits it, ErrDomainTaken.
func (o *Organisation) AddDomain(name string) (Decision, error) {
	name, err := NormaliseDomain(name)
	switch {
	case o.State == StateUnspecified:
		return Decision{}, ErrOrganisationMissing
	case err != nil:
		return Decision{}, err
	case slices.Contains(o.Domains, name):
		return Decision{}, ErrOrganisationSame
	case len(o.Domains) >= MaxDomains:
		return Decision{}, ErrDomainsMany
	}
	d := o.decide(OrganisationDomainAdded{Domain: name})
	d.Take = []Claim{DomainClaim(name)}
	return d, nil
}

// RemoveDomain gives a domain up: its names are everybody's again, and another
// organisation may have it. ErrOrganisationMissing, NormaliseDomain's errors,
// ErrDomainMissing.
func (o *Organisation) RemoveDomain(name string) (Decision, error) {
	name, err := NormaliseDomain(name)
	switch {
	case o.State == StateUnspecified:
		return Decision{}, ErrOrganisationMissing
	case err != nil:
		return Decision{}, err
	case !slices.Contains(o.Domains, name):
		return Decision{}, ErrDomainMissing
	}
	d := o.decide(OrganisationDomainRemoved{Domain: name})
	d.Release = []Claim{DomainClaim(name)}
	return d, nil
}

// Claims returns what the organisation owns.
func (o *Organisation) Claims() []Claim {
	var claims []Claim
	for _, d := range o.Domains {
		claims = append(claims, DomainClaim(d))
	}
	return claims
}

func (o *Organisation) turn(to State, e Event) (Decision, error) {
	switch o.State {
	case StateUnspecified:
		return Decision{}, ErrOrganisationMissing
	case to:
		return Decision{}, ErrOrganisationSame
	}
	return o.decide(e), nil
}

func organisationName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", ErrOrganisationName
	}
	return name, text("name", name, maxName)
}

// The failures of organisations.
var (
	ErrOrganisationExists  = NewError(KindAlreadyExists, "MUSTER-orgexists", "Organisation already exists")
	ErrOrganisationMissing = NewError(KindNotFound, "MUSTER-orgmissing", "Organisation doesn't exist")
	ErrOrganisationSame    = NewError(KindFailedPrecondition, "MUSTER-orgsame", "Organisation not changed")
	ErrOrganisationName    = NewError(KindInvalidArgument, "MUSTER-orgname", "Organisation name must be 1 to 200 characters").OnField("name")
)
