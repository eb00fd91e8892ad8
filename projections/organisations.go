package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// orgRow is a row of the read model "organisations".
type orgRow struct {
	stream   string
	id       string
	slice    int16
	state    int16
	name     string
	nameKey  string
	sequence int64
	position int64
	created  micros
	changed  micros
}

var organisations = define(definition[orgRow]{
	name:   "organisations",
	number: 1,
	only: []string{domain.TypeOrganisationAdded, domain.TypeOrganisationRenamed,
		domain.TypeOrganisationDeactivated, domain.TypeOrganisationReactivated},
	ours:  func(stream string) bool { return strings.HasPrefix(stream, domain.OrganisationStream("")) },
	split: 1, // it could be more, but there are too few to share them
	key:   "stream",
	columns: []column[orgRow]{
		text("stream", func(r *orgRow) *string { return &r.stream }),
		text("id", func(r *orgRow) *string { return &r.id }),
		smallint("slice", func(r *orgRow) *int16 { return &r.slice }),
		smallint("state", func(r *orgRow) *int16 { return &r.state }),
		text("name", func(r *orgRow) *string { return &r.name }),
		text("name_key", func(r *orgRow) *string { return &r.nameKey }),
		bigint("sequence", func(r *orgRow) *int64 { return &r.sequence }),
		bigint("position", func(r *orgRow) *int64 { return &r.position }),
		moment("created_at", func(r *orgRow) *micros { return &r.created }),
		moment("changed_at", func(r *orgRow) *micros { return &r.changed }),
	},
	indexes: []index{{suffix: "id", on: "(id)"}, {suffix: "name", on: "(name_key)"}},
	fold:    foldOrganisation,
})

var errOrgNotAdded = errors.New("the organisation's first event is not OrganisationAdded")

func foldOrganisation(rows []orgRow, ev *eventstore.Event, e domain.Event) ([]orgRow, error) {
	if len(rows) == 0 {
		if _, ok := e.(domain.OrganisationAdded); !ok {
			return rows, errOrgNotAdded
		}
		rows = append(rows, orgRow{stream: ev.Stream, id: strings.TrimPrefix(ev.Stream, domain.OrganisationStream("")),
			slice: ev.Slice, created: microsOf(ev.At)})
	}
	r := &rows[0]
	switch e := e.(type) {
	case domain.OrganisationAdded:
		r.state, r.name, r.nameKey = int16(domain.StateActive), e.Name, lower(e.Name)
	case domain.OrganisationRenamed:
		r.name, r.nameKey = e.Name, lower(e.Name)
	case domain.OrganisationDeactivated:
		r.state = int16(domain.StateInactive)
	case domain.OrganisationReactivated:
		r.state = int16(domain.StateActive)
	}
	r.sequence, r.position, r.changed = ev.Sequence, int64(ev.Position), microsOf(ev.At)
	return rows, nil
}

// Organisation is an organisation as the read model shows one.
type Organisation struct {
	ID       string
	Name     string
	State    domain.State
	Sequence int64
	Position eventstore.Position
	Created  time.Time
	Changed  time.Time
}

// Organisations returns a page of the organisations in a scope by name, and
// how many there are. limit is at most MaxLimit, 0 for 100.
func (e *Engine) Organisations(ctx context.Context, scope Scope, offset, limit int) ([]Organisation, int, At, error) {
	var (
		list  []Organisation
		total int64
	)
	at, err := e.query(ctx, organisations, func(version int, args *[]any) (string, string) {
		*args = append(*args, clampLimit(limit), max(0, offset))
		t, where := organisations.table(version), scope.where("id", args)
		return fmt.Sprintf(", (SELECT count(*) FROM %s WHERE %s)", t, where) + organisations.columnsOf("o"),
			fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s WHERE %s ORDER BY name_key, id LIMIT $2 OFFSET $3) o ON true", t, where)
	}, func(v [][]byte) error {
		total = readInt8(v[0])
		if v[1] != nil {
			var r orgRow
			organisations.decode(v[1:], &r)
			list = append(list, Organisation{ID: r.id, Name: r.name, State: domain.State(r.state), Sequence: r.sequence,
				Position: eventstore.Position(r.position), Created: r.created.time(), Changed: r.changed.time()})
		}
		return nil
	})
	return list, int(total), at, err
}
