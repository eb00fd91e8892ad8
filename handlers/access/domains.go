package access

import (
	"context"
	_ "embed"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

var (
	//go:embed sql/domains.sql
	sqlDomains string
	//go:embed sql/moved.sql
	sqlMoved string
)

// owners is which organisation has which domain: a table of all there are, at
// most domain.MaxDomains an organisation and some hundred bytes each. Only
// operators add to it.
type owners struct {
	current atomic.Pointer[ownership]
	loading sync.Mutex // held by the one call that asks the database
}

// ownership is the table as it was; nobody changes it.
type ownership struct {
	byDomain map[string]string
	// epoch and moved say which events are in it.
	epoch int32
	moved int64
	// at is when the database was last asked whether there are others.
	at time.Time
}

// domainOwners returns the table, at most Freshness old. Within that time no
// call asks the database for anything. After it, one asks whether any
// organisation has changed, which reads a row an organisation, and reads the
// domains again only then. A failure to find out is returned: an older table
// is not believed.
func (o *Organisations) domainOwners(ctx context.Context) (map[string]string, error) {
	if t := o.owners.current.Load(); t != nil && o.now().Sub(t.at) < Freshness {
		return t.byDomain, nil
	}
	o.owners.loading.Lock()
	defer o.owners.loading.Unlock()
	last := o.owners.current.Load()
	asked := o.now()
	if last != nil && asked.Sub(last.at) < Freshness { // while this call waited
		return last.byDomain, nil
	}
	from, to := organisationStreams()
	next := ownership{epoch: o.store.Epoch(), at: asked}
	if err := o.store.Pool().QueryRow(ctx, sqlMoved, from, to).Scan(&next.moved); err != nil {
		return nil, err
	}
	if last != nil && last.epoch == next.epoch && last.moved == next.moved {
		next.byDomain = last.byDomain
	} else {
		var err error
		if next.byDomain, err = o.loadDomains(ctx, from, to); err != nil {
			return nil, err
		}
	}
	o.owners.current.Store(&next)
	return next.byDomain, nil
}

func (o *Organisations) loadDomains(ctx context.Context, from, to string) (map[string]string, error) {
	rows, err := o.store.Pool().Query(ctx, sqlDomains, from, to, []string{domain.TypeOrganisationDomainAdded, domain.TypeOrganisationDomainRemoved})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	type held struct{ org, domain string }
	all := map[held]bool{}
	for rows.Next() {
		var (
			stream, typ string
			schema      int16
			data        []byte
		)
		if err := rows.Scan(&stream, &typ, &schema, &data); err != nil {
			return nil, err
		}
		e, err := domain.Decode(typ, schema, data, nil)
		if err != nil {
			return nil, err
		}
		org := strings.TrimPrefix(stream, from)
		// A domain may have gone from one organisation to another since.
		switch e := e.(type) {
		case domain.OrganisationDomainAdded:
			all[held{org, e.Domain}] = true
		case domain.OrganisationDomainRemoved:
			delete(all, held{org, e.Domain})
		}
	}
	byDomain := make(map[string]string, len(all))
	for h := range all {
		byDomain[h.domain] = h.org
	}
	return byDomain, rows.Err()
}

// Reserved returns what reports whether a domain, in domain.NormaliseDomain's
// form, is another organisation's than org; nil when no organisation has any.
// It holds for what is decided at once: a domain that is added or removed
// counts on every instance within a second.
func (o *Organisations) Reserved(ctx context.Context, org string) (func(domain string) bool, error) {
	byDomain, err := o.domainOwners(ctx)
	if err != nil || len(byDomain) == 0 {
		return nil, err
	}
	return func(name string) bool {
		owner, ok := byDomain[name]
		return ok && owner != org
	}, nil
}

// OwnerOf returns the organisation whose domain it is, or "". The answer may be
// up to Freshness old.
func (o *Organisations) OwnerOf(ctx context.Context, name string) (string, error) {
	name, err := domain.NormaliseDomain(name)
	if err != nil {
		return "", nil //nolint:nilerr // what is no domain is nobody's
	}
	byDomain, err := o.domainOwners(ctx)
	return byDomain[name], err
}

// Domains returns an organisation's domains, in the order in which they came,
// as they are now. ErrOrganisationMissing.
func (o *Organisations) Domains(ctx context.Context, id string) ([]string, error) {
	org, err := o.load(ctx, id)
	if err == nil && org.State == domain.StateUnspecified {
		err = domain.ErrOrganisationMissing
	}
	return org.Domains, err
}

// AddDomain makes a domain an organisation's, and returns all that it has then.
// The caller has to hold IAMWrite: that an operator says so is what makes a
// domain verified. Errors: those of domain.Organisation.AddDomain.
func (o *Organisations) AddDomain(ctx context.Context, id, name, by string) ([]string, error) {
	return o.changeDomains(ctx, id, by, func(org *domain.Organisation) (domain.Decision, error) { return org.AddDomain(name) })
}

// RemoveDomain gives a domain up, and returns all that are left. Errors: those
// of domain.Organisation.RemoveDomain.
func (o *Organisations) RemoveDomain(ctx context.Context, id, name, by string) ([]string, error) {
	return o.changeDomains(ctx, id, by, func(org *domain.Organisation) (domain.Decision, error) { return org.RemoveDomain(name) })
}

func (o *Organisations) changeDomains(ctx context.Context, id, by string, decide func(*domain.Organisation) (domain.Decision, error)) ([]string, error) {
	org, err := o.load(ctx, id)
	if err != nil {
		return nil, err
	}
	decision, err := decide(&org.Organisation)
	if err != nil {
		return nil, err
	}
	_, err = o.store.Append(ctx, NewAppend(decision, by, o.now().UTC().Truncate(time.Microsecond)))
	var (
		taken *eventstore.ConflictError
		moved *eventstore.SequenceError
	)
	switch {
	case errors.As(err, &taken):
		return nil, domain.Claim(taken.Claim).ConflictError()
	case errors.As(err, &moved):
		return nil, ErrOrgMoved
	case err != nil:
		return nil, err
	}
	for _, e := range decision.Events {
		org.Apply(e)
	}
	// Here it counts at once.
	o.owners.loading.Lock()
	defer o.owners.loading.Unlock()
	o.owners.current.Store(nil)
	return org.Domains, nil
}

// organisationStreams is the range of the organisations' streams: the prefix
// that all begin with, and the first text behind them in the column's bytewise
// order.
func organisationStreams() (from, to string) {
	from = domain.OrganisationStream("")
	return from, from[:len(from)-1] + string(from[len(from)-1]+1)
}
