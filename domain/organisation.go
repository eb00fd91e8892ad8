package domain

import "strings"

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
