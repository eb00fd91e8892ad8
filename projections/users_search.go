package projections

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/muster-id/muster/domain"
)

// MaxLimit is the most rows that a page may have.
const MaxLimit = 1000

// defaultLimit is a page's size when none is asked for, as on the wire.
const defaultLimit = 100

func clampLimit(n int) int {
	switch {
	case n <= 0:
		return defaultLimit
	case n > MaxLimit:
		return MaxLimit
	}
	return n
}

// Field is a column of users that a search may name. The numbers up to
// FieldCreated are those of the wire's UserFieldName.
type Field int

// The fields. FieldNone sorts by creation date.
const (
	FieldNone Field = iota
	FieldUserName
	FieldFirstName
	FieldLastName
	FieldNickName
	FieldDisplayName
	FieldEmail
	FieldState
	FieldType
	FieldCreated
	FieldLoginName
)

// fields are the columns of the texts: as they are, and folded.
var fields = map[Field]struct{ exact, key string }{
	FieldUserName:    {"user_name", "login_key"},
	FieldFirstName:   {"first_name", "first_key"},
	FieldLastName:    {"last_name", "last_key"},
	FieldNickName:    {"nick_name", "nick_key"},
	FieldDisplayName: {"display_name", "display_key"},
	FieldEmail:       {"email", "email_key"},
	FieldLoginName:   {"user_name", "login_key"},
}

// Method is how a text is compared; the numbers are the wire's.
type Method int

// The methods.
const (
	Equals Method = iota
	EqualsIgnoreCase
	StartsWith
	StartsWithIgnoreCase
	Contains
	ContainsIgnoreCase
	EndsWith
	EndsWithIgnoreCase
)

// Filter is a condition on users: exactly one of its parts is set.
type Filter struct {
	// Text compares a field.
	Text *TextFilter
	// State selects users of one state.
	State *domain.State
	// IDs selects users by id, Emails by address in any case; an empty list
	// selects none.
	IDs, Emails []string
	// Human false selects users that are not people: none.
	Human *bool
	// All of these, any of these (none when empty), not this one.
	And, Or []Filter
	Not     *Filter
}

// TextFilter compares a field with a text.
type TextFilter struct {
	Field  Field
	Value  string
	Method Method
}

// Search is a query for users.
type Search struct {
	// Filters all have to hold.
	Filters []Filter
	// Sort is the field to sort by, users with equal ones by id.
	Sort Field
	// Descending turns the order round.
	Descending bool
	// Offset skips users; Limit is at most MaxLimit, 0 for 100.
	Offset, Limit int
	// Page goes on behind another answer's Next, and takes the sorting from
	// there. Users who come in or go in between move nothing: whoever is there
	// all the time, under the same sort key, is met exactly once. An offset
	// cannot promise that.
	Page string
}

// Found is a page of users.
type Found struct {
	Users []User
	// Total is the number of users that the filters select, over all pages.
	Total int64
	// Next is what Search.Page takes for the page behind this one; empty when
	// this one is not full. It holds the last user's sort key, so it is as
	// personal as the page itself.
	Next string
	At
}

// The failures of searches.
var (
	ErrSearchDepth = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchdepth", "The query is nested too deeply or has too many conditions")
	ErrSearchField = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchfield", "The query names a field or method that does not exist")
	ErrSearchPage  = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchpage", "The page is not one that a search has answered with")
	ErrSearchEmpty = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchempty", "The query has a condition that says nothing")
)

const (
	maxDepth      = 20
	maxConditions = 200
)

// SearchUsers returns the users of a scope that a query selects.
// ErrSearchDepth, ErrSearchField, ErrSearchEmpty, ErrSearchPage.
func (e *Engine) SearchUsers(ctx context.Context, scope Scope, q Search) (Found, error) {
	var from *place
	if q.Page != "" {
		from = new(place)
		if err := from.read(q.Page); err != nil {
			return Found{}, err
		}
		q.Sort, q.Descending = from.Sort, from.Descending
	}
	column, err := q.column()
	if err != nil {
		return Found{}, err
	}
	order, behind := column+", id", ">"
	if q.Descending {
		order, behind = column+" DESC, id DESC", "<"
	}
	var last userRow
	var found Found
	var invalid error
	found.At, err = e.query(ctx, users, func(version int, args *[]any) (string, string) {
		found.Users, found.Total = found.Users[:0], 0
		table := users.table(version)
		c := conditions{args: args}
		where := scope.where("org", args)
		total := fmt.Sprintf("(SELECT coalesce(sum(n), 0)::int8 FROM %s WHERE %s)", users.countTable(version), where)
		if len(q.Filters) > 0 {
			where += " AND " + c.all(q.Filters, 0)
			total = fmt.Sprintf("(SELECT count(*) FROM %s WHERE %s)", table, where)
		}
		invalid = c.err
		if from != nil {
			where += fmt.Sprintf(" AND (%s, id) %s (%s, %s)", column, behind, c.arg(from.value()), c.arg(from.ID))
		}
		*args = append(*args, clampLimit(q.Limit), max(0, q.Offset))
		n := len(*args)
		return ", " + total + users.columnsOf("u"),
			fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s WHERE %s ORDER BY %s LIMIT $%d OFFSET $%d) u ON true", table, where, order, n-1, n)
	}, func(v [][]byte) error {
		found.Total = readInt8(v[0])
		if v[1] != nil {
			var r userRow
			users.decode(v[1:], &r)
			found.Users = append(found.Users, r.user())
			last = r
		}
		return nil
	})
	if err == nil && len(found.Users) == clampLimit(q.Limit) {
		found.Next = q.behind(&last)
	}
	if invalid != nil {
		return Found{}, invalid
	}
	return found, err
}

func (q Search) column() (string, error) {
	switch q.Sort {
	case FieldNone, FieldCreated, FieldType: // all users are of one type
		return "created_at", nil
	case FieldState:
		return "state", nil
	default:
		f, ok := fields[q.Sort]
		if !ok {
			return "", ErrSearchField
		}
		return f.key, nil
	}
}

// place is where a page ends: the sorting, and the last user's key and id.
type place struct {
	Sort       Field  `json:"s"`
	Descending bool   `json:"d,omitempty"`
	Text       string `json:"t,omitempty"`
	Number     int64  `json:"n,omitempty"`
	ID         string `json:"i"`
}

// behind is the place of a page whose last row is r.
func (q Search) behind(r *userRow) string {
	p := place{Sort: q.Sort, Descending: q.Descending, ID: r.id}
	switch q.Sort {
	case FieldNone, FieldCreated, FieldType:
		p.Number = int64(r.created)
	case FieldState:
		p.Number = int64(r.state)
	default:
		for i := range users.columns {
			if c := &users.columns[i]; c.name == fields[q.Sort].key {
				p.Text = *c.text(r)
			}
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "" // a struct of texts and numbers: it cannot fail
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// latest bounds the microseconds that a place may name: the database's own
// range of times is wider.
const latest = 1e18 / 10

func (p *place) read(text string) error {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(b, p) != nil || p.ID == "" {
		return ErrSearchPage
	}
	most := int64(math.MaxInt16)
	if p.Sort != FieldState {
		most = latest
	}
	if strings.ContainsRune(p.ID+p.Text, 0) || p.Number < -most || p.Number > most {
		return ErrSearchPage
	}
	return nil
}

// value is the key as the database compares it.
func (p *place) value() any {
	switch p.Sort {
	case FieldNone, FieldCreated, FieldType:
		return micros(p.Number).time()
	case FieldState:
		return int16(p.Number) // #nosec G115 -- checked by read
	default:
		return p.Text
	}
}

// conditions turns filters into SQL. Values go into args, never into the text.
type conditions struct {
	args  *[]any
	count int
	err   error
}

func (c *conditions) fail(err error) string {
	if c.err == nil {
		c.err = err
	}
	return "false"
}

func (c *conditions) arg(v any) string {
	*c.args = append(*c.args, v)
	return fmt.Sprintf("$%d", len(*c.args))
}

func (c *conditions) all(list []Filter, depth int) string {
	return c.join(list, " AND ", "true", depth)
}

func (c *conditions) join(list []Filter, op, none string, depth int) string {
	if len(list) == 0 {
		return none
	}
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = c.one(&list[i], depth+1)
	}
	return "(" + strings.Join(parts, op) + ")"
}

func (c *conditions) one(f *Filter, depth int) string {
	if c.count++; depth > maxDepth || c.count > maxConditions {
		return c.fail(ErrSearchDepth)
	}
	switch {
	case f.Text != nil:
		return c.text(f.Text)
	case f.State != nil:
		return "state = " + c.arg(int16(*f.State)) // #nosec G115 -- an enumeration
	case f.IDs != nil:
		return "id = ANY (" + c.arg(f.IDs) + ")"
	case f.Emails != nil:
		keys := make([]string, len(f.Emails))
		for i, v := range f.Emails {
			keys[i] = lower(v)
		}
		return "email_key = ANY (" + c.arg(keys) + ")"
	case f.Human != nil:
		if *f.Human {
			return "true"
		}
		return "false"
	case f.And != nil:
		return c.all(f.And, depth)
	case f.Or != nil:
		return c.join(f.Or, " OR ", "false", depth)
	case f.Not != nil:
		return "NOT " + c.one(f.Not, depth+1)
	}
	return c.fail(ErrSearchEmpty)
}

// text compares a field. A search that minds case looks for the folded text
// first, since the keys are what is indexed, and then for the text itself.
func (c *conditions) text(f *TextFilter) string {
	column, ok := fields[f.Field]
	if !ok || f.Method < Equals || f.Method > EndsWithIgnoreCase {
		return c.fail(ErrSearchField)
	}
	key, exact := column.key, column.exact
	folded := lower(f.Value)
	some := ""
	if f.Field == FieldNickName && f.Value != "" {
		some = key + " <> '' AND " // what its index is restricted to
	}
	switch f.Method {
	case Equals:
		return "(" + some + key + " = " + c.arg(folded) + " AND " + exact + " = " + c.arg(f.Value) + ")"
	case EqualsIgnoreCase:
		return "(" + some + key + " = " + c.arg(folded) + ")"
	case StartsWith:
		return "(" + some + key + " LIKE " + c.arg(escape(folded)+"%") + " AND " + exact + " LIKE " + c.arg(escape(f.Value)+"%") + ")"
	case StartsWithIgnoreCase:
		return "(" + some + key + " LIKE " + c.arg(escape(folded)+"%") + ")"
	case Contains:
		return "(" + key + " LIKE " + c.arg("%"+escape(folded)+"%") + " AND " + exact + " LIKE " + c.arg("%"+escape(f.Value)+"%") + ")"
	case ContainsIgnoreCase:
		return "(" + key + " LIKE " + c.arg("%"+escape(folded)+"%") + ")"
	case EndsWith:
		return "(" + key + " LIKE " + c.arg("%"+escape(folded)) + " AND " + exact + " LIKE " + c.arg("%"+escape(f.Value)) + ")"
	default:
		return "(" + key + " LIKE " + c.arg("%"+escape(folded)) + ")"
	}
}

var escaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// escape makes a text stand for itself in LIKE.
func escape(s string) string { return escaper.Replace(s) }
