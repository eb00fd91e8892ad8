package projections

import (
	"slices"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// linkRow is a row of the read model "idp_links": an identity at an external
// provider that a user has.
type linkRow struct {
	user, org   string
	slice       int16
	configID    string
	externalID  string
	displayName string
	linked      micros
	position    int64
}

var idpLinks = define(definition[linkRow]{
	name:   "idp_links",
	number: 1,
	only:   []string{domain.TypeIDPLinked, domain.TypeIDPLinkRemoved, domain.TypeUserRemoved, domain.TypeUserErased},
	opens:  []string{domain.TypeIDPLinked, domain.TypeIDPLinkRemoved},
	ours:   isUser,
	split:  8, // a user's links depend on that user's stream only
	key:    "user_id, config_id, external_id",
	columns: []column[linkRow]{
		text("user_id", func(r *linkRow) *string { return &r.user }),
		text("org", func(r *linkRow) *string { return &r.org }),
		smallint("slice", func(r *linkRow) *int16 { return &r.slice }),
		text("config_id", func(r *linkRow) *string { return &r.configID }),
		personal("external_id", func(r *linkRow) *string { return &r.externalID }),
		personal("display_name", func(r *linkRow) *string { return &r.displayName }),
		moment("linked_at", func(r *linkRow) *micros { return &r.linked }),
		bigint("position", func(r *linkRow) *int64 { return &r.position }),
	},
	indexes: []index{{suffix: "identity", on: "(config_id, external_id)"}},
	fold:    foldLink,
})

func foldLink(rows []linkRow, ev *eventstore.Event, e domain.Event) ([]linkRow, error) {
	same := func(config, external string) func(linkRow) bool {
		return func(r linkRow) bool { return r.configID == config && r.externalID == external }
	}
	switch e := e.(type) {
	case domain.IDPLinked:
		// Once the subject is erased all its links look alike; UserErased,
		// further on in the log, takes them away.
		rows = slices.DeleteFunc(rows, same(e.ConfigID, e.ExternalUserID))
		rows = append(rows, linkRow{user: ev.Stream, org: ev.Org, slice: ev.Slice, configID: e.ConfigID,
			externalID: e.ExternalUserID, displayName: e.DisplayName, linked: microsOf(ev.At), position: int64(ev.Position)})
	case domain.IDPLinkRemoved:
		rows = slices.DeleteFunc(rows, same(e.ConfigID, e.ExternalUserID))
	case domain.UserRemoved, domain.UserErased:
		rows = rows[:0]
	}
	return rows, nil
}
