package projections

import (
	"context"
	"fmt"
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
}

// Found is a page of users.
type Found struct {
	Users []User
	// Total is the number of users that the filters select, over all pages.
	Total int64
	At
}

// The failures of searches.
var (
	ErrSearchDepth = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchdepth", "The query is nested too deeply or has too many conditions")
	ErrSearchField = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchfield", "The query names a field or method that does not exist")
	ErrSearchEmpty = domain.NewError(domain.KindInvalidArgument, "MUSTER-searchempty", "The query has a condition that says nothing")
)

const (
	maxDepth      = 20
	maxConditions = 200
)

// SearchUsers returns the users of a scope that a query selects.
// ErrSearchDepth, ErrSearchField, ErrSearchEmpty.
func (e *Engine) SearchUsers(ctx context.Context, scope Scope, q Search) (Found, error) {
	order, err := q.order()
	if err != nil {
		return Found{}, err
	}
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
		}
		return nil
	})
	if invalid != nil {
		return Found{}, invalid
	}
	return found, err
}

func (q Search) order() (string, error) {
	column := "created_at"
	switch q.Sort {
	case FieldNone, FieldCreated, FieldType: // all users are of one type
	case FieldState:
		column = "state"
	default:
		f, ok := fields[q.Sort]
		if !ok {
			return "", ErrSearchField
		}
		column = f.key
	}
	if q.Descending {
		return column + " DESC, id DESC", nil
	}
	return column + ", id", nil
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
