package access

import (
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// NewAppend is a decision as the log takes it.
func NewAppend(d domain.Decision, actor string, at time.Time) eventstore.Append {
	a := eventstore.Append{Stream: d.Stream, Org: d.Org, Actor: actor, Expected: eventstore.Expected(d.Expected), At: at}
	for _, e := range d.Events {
		data, personal := domain.Encode(e)
		a.Events = append(a.Events, eventstore.NewEvent{Type: e.Type(), Schema: e.Schema(), Data: data, Personal: personal})
	}
	for _, c := range d.Take {
		a.Take = append(a.Take, eventstore.Claim(c))
	}
	for _, c := range d.Release {
		a.Release = append(a.Release, eventstore.Claim(c))
	}
	return a
}
