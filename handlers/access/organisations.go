package access

import (
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Organisation is an organisation and when it was made.
type Organisation struct {
	domain.Organisation
	CreatedAt time.Time
}

// Organisations makes and finds organisations. They live in the log, in
// streams of their own. It is safe for concurrent use.
type Organisations struct {
	store *eventstore.Store
	now   func() time.Time

	mu    sync.Mutex // guards known
	known map[string]orgAnswer

	owners owners
}

type orgAnswer struct {
	active bool
	name   string
	at     time.Time
}

// NewOrganisations returns the organisations of a log. now is the clock.
func NewOrganisations(store *eventstore.Store, now func() time.Time) *Organisations {
	return &Organisations{store: store, now: now, known: map[string]orgAnswer{}}
}

// orgID is what an organisation may be called: it stands in URLs, headers and
// unescaped links.
var orgID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)

// Create makes an organisation; an empty id lets the service choose one.
// Errors: ErrOrgID, and those of domain.Organisation.Add.
func (o *Organisations) Create(ctx context.Context, id, name, by string) (Organisation, error) {
	now := o.now().UTC().Truncate(time.Microsecond)
	if id == "" {
		id = ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
	}
	if !orgID.MatchString(id) {
		return Organisation{}, ErrOrgID
	}
	org, err := o.load(ctx, id)
	if err != nil {
		return Organisation{}, err
	}
	decision, err := org.Add(name)
	if err != nil {
		return Organisation{}, err
	}
	for _, e := range decision.Events {
		org.Apply(e)
	}
	_, err = o.store.Append(ctx, NewAppend(decision, by, now))
	if taken := (*eventstore.SequenceError)(nil); errors.As(err, &taken) {
		return Organisation{}, domain.ErrOrganisationExists
	}
	if err != nil {
		return Organisation{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.known, id)
	org.CreatedAt = now
	return org, nil
}

// Ensure makes an organisation unless it is there already.
func (o *Organisations) Ensure(ctx context.Context, id, name, by string) error {
	_, err := o.Create(ctx, id, name, by)
	if errors.Is(err, domain.ErrOrganisationExists) {
		return nil
	}
	return err
}

// Exists reports whether an organisation is there and active. The answer may
// be up to Freshness old.
func (o *Organisations) Exists(ctx context.Context, id string) (bool, error) {
	a, err := o.answer(ctx, id)
	return a.active, err
}

// Name returns an organisation's name, and "" when Exists says no. The answer
// may be up to Freshness old.
func (o *Organisations) Name(ctx context.Context, id string) (string, error) {
	a, err := o.answer(ctx, id)
	if !a.active {
		return "", err
	}
	return a.name, err
}

func (o *Organisations) answer(ctx context.Context, id string) (orgAnswer, error) {
	if !orgID.MatchString(id) {
		return orgAnswer{}, nil
	}
	o.mu.Lock()
	a, ok := o.known[id]
	o.mu.Unlock()
	if ok && o.now().Sub(a.at) < Freshness {
		return a, nil
	}
	asked := o.now()
	org, err := o.load(ctx, id)
	if err != nil {
		return orgAnswer{}, err
	}
	a = orgAnswer{active: org.State == domain.StateActive, name: org.Name, at: asked}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= cacheSize {
		clear(o.known)
	}
	o.known[id] = a
	return a, nil
}

// load folds an organisation's events.
func (o *Organisations) load(ctx context.Context, id string) (Organisation, error) {
	org := Organisation{Organisation: domain.Organisation{ID: id}}
	events, err := o.store.ReadStream(ctx, domain.OrganisationStream(id), 0)
	if err != nil {
		return org, err
	}
	for i, e := range events {
		decoded, err := domain.Decode(e.Type, e.Schema, e.Data, nil)
		if err != nil {
			return org, err
		}
		if i == 0 {
			org.CreatedAt = e.At
		}
		org.Apply(decoded)
	}
	return org, nil
}

// List returns every organisation, in order of id.
func (o *Organisations) List(ctx context.Context) ([]Organisation, error) {
	prefix, end := organisationStreams()
	rows, err := o.store.Pool().Query(ctx,
		`SELECT substr(stream, length($1) + 1) FROM streams WHERE stream >= $1 AND stream < $2 ORDER BY stream`, prefix, end)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	out := make([]Organisation, 0, len(ids))
	for _, id := range ids {
		org, err := o.load(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, org)
	}
	return out, nil
}
