package projections

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// User is a user as the read model shows one.
type User struct {
	ID, Org  string
	State    domain.State
	UserName string
	// LoginNames are the names that the user may log in with, the preferred
	// one first.
	LoginNames []string
	Profile    domain.Profile
	Email      string
	// EmailVerified and PhoneVerified say that the address is the user's own.
	EmailVerified bool
	// Phone is in E.164, or empty.
	Phone         string
	PhoneVerified bool
	// ExternalID is the user's id in the system that they came from.
	ExternalID             string
	HasPassword            bool
	PasswordChangeRequired bool
	// PasswordChanged is when the password was last set; zero for never.
	PasswordChanged time.Time
	HasTOTP         bool
	Passkeys        int
	// Sequence is the stream's last one, Position that event's.
	Sequence         int64
	Position         eventstore.Position
	Created, Changed time.Time
}

// ErrUserNotFound says that there is no such user in the scope.
var ErrUserNotFound = domain.NewError(domain.KindNotFound, "QUERY-Dfbg2", "User could not be found")

func (r *userRow) user() User {
	return User{
		ID: r.id, Org: r.org, State: domain.State(r.state), UserName: r.userName, LoginNames: []string{r.userName},
		Profile: domain.Profile{FirstName: r.firstName, LastName: r.lastName, NickName: r.nickName, DisplayName: r.displayName,
			PreferredLanguage: r.language, Gender: domain.Gender(r.gender)},
		Email: r.email, EmailVerified: r.emailVerified, Phone: r.phone, PhoneVerified: r.phoneVerified, ExternalID: r.externalID,
		HasPassword: r.hasPassword, PasswordChangeRequired: r.changeRequired, PasswordChanged: r.passwordChanged.time(),
		HasTOTP: r.hasTOTP, Passkeys: int(r.passkeys), Sequence: r.sequence, Position: eventstore.Position(r.position),
		Created: r.created.time(), Changed: r.changed.time(),
	}
}

// columnsOf lists a model's columns of table t, each behind a comma.
func (m *model[R]) columnsOf(t string) string {
	return ", " + t + "." + strings.ReplaceAll(m.names, ", ", ", "+t+".")
}

// UserByID returns a user of the scope with everything that was appended to
// the user's stream before the call, however far behind the read model is: the
// events that the row lacks are folded from the log. ErrUserNotFound.
func (e *Engine) UserByID(ctx context.Context, scope Scope, id string) (User, error) {
	if !isUser(id) {
		return User{}, ErrUserNotFound
	}
	var (
		rows []userRow
		head int64 = -1
	)
	_, err := e.query(ctx, users, func(version int, args *[]any) (string, string) {
		*args = append(*args, id)
		return ", s.sequence" + users.columnsOf("u"),
			"LEFT JOIN streams s ON s.stream = $2 LEFT JOIN " + users.table(version) + " u ON u.id = $2"
	}, func(v [][]byte) error {
		if v[0] == nil {
			return nil
		}
		head = readInt8(v[0])
		if v[1] != nil {
			rows = append(rows, userRow{})
			users.decode(v[1:], &rows[0])
		}
		return nil
	})
	switch {
	case err == nil && head < 0:
		return User{}, ErrUserNotFound
	case err == nil && len(rows) == 1 && rows[0].sequence >= head:
		return inScope(rows, scope)
	case err != nil && !unavailable(err):
		return User{}, err
	}
	// The row lags behind, or there is no read model yet.
	after := int64(0)
	if len(rows) == 1 {
		after = rows[0].sequence
	}
	events, err := e.store.ReadStream(ctx, id, after)
	if err != nil {
		return User{}, err
	}
	if rows, err = e.foldOnto(ctx, rows, events); err != nil {
		return User{}, err
	}
	return inScope(rows, scope)
}

func unavailable(err error) bool { return domain.AsError(err).Kind == domain.KindUnavailable }

func inScope(rows []userRow, scope Scope) (User, error) {
	if len(rows) == 0 || !scope.sees(rows[0].org) {
		return User{}, ErrUserNotFound
	}
	return rows[0].user(), nil
}

// foldOnto folds a user's further events onto the row.
func (e *Engine) foldOnto(ctx context.Context, rows []userRow, events []eventstore.Event) ([]userRow, error) {
	facts, err := e.prepare(ctx, users, events)
	if err != nil {
		return nil, err
	}
	var scratch []userRow
	for i := range facts {
		if rows, scratch, err = users.step(rows, scratch, &facts[i]); err != nil {
			return nil, domain.Wrapf(err, "projections: sequence %d of a user cannot be applied", facts[i].ev.Sequence)
		}
	}
	return rows, nil
}

// UserAsOf returns a user as of a position of the log, from the events alone.
// What has been erased since is empty. ErrUserNotFound when the user did not
// exist then, or is not in the scope.
func (e *Engine) UserAsOf(ctx context.Context, scope Scope, id string, at eventstore.Position) (User, error) {
	return e.userUntil(ctx, scope, id, func(ev *eventstore.Event) bool { return ev.Position <= at })
}

// UserAtTime is UserAsOf with a point in time: events up to it count, by the
// time at which they were decided.
func (e *Engine) UserAtTime(ctx context.Context, scope Scope, id string, at time.Time) (User, error) {
	return e.userUntil(ctx, scope, id, func(ev *eventstore.Event) bool { return !ev.At.After(at) })
}

func (e *Engine) userUntil(ctx context.Context, scope Scope, id string, within func(*eventstore.Event) bool) (User, error) {
	if !isUser(id) {
		return User{}, ErrUserNotFound
	}
	events, err := e.store.ReadStream(ctx, id, 0)
	if err != nil {
		return User{}, err
	}
	n := 0
	for n < len(events) && within(&events[n]) {
		n++
	}
	rows, err := e.foldOnto(ctx, nil, events[:n])
	if err != nil {
		return User{}, err
	}
	return inScope(rows, scope)
}

// UserByLoginName returns the user of the scope whom a login name belongs to,
// in whatever case. ErrUserNotFound.
func (e *Engine) UserByLoginName(ctx context.Context, scope Scope, name string) (User, At, error) {
	var rows []userRow
	at, err := e.query(ctx, users, func(version int, args *[]any) (string, string) {
		*args = append(*args, fold(name))
		on := fmt.Sprintf("u.login_key = $%d", len(*args))
		return users.columnsOf("u"), "LEFT JOIN " + users.table(version) + " u ON " + on + " AND " + scope.where("u.org", args)
	}, func(v [][]byte) error {
		if v[0] != nil {
			rows = append(rows, userRow{})
			users.decode(v, &rows[len(rows)-1])
		}
		return nil
	})
	if err != nil {
		return User{}, at, err
	}
	if len(rows) == 0 {
		return User{}, at, ErrUserNotFound
	}
	u, err := inScope(rows, scope)
	return u, at, err
}

// IsUserUnique reports whether neither a user name nor an e-mail address is in
// use anywhere; an empty one is not looked at.
func (e *Engine) IsUserUnique(ctx context.Context, userName, email string) (bool, At, error) {
	unique := true
	at, err := e.query(ctx, users, func(version int, args *[]any) (string, string) {
		t := users.table(version)
		*args = append(*args, fold(userName), lower(strings.TrimSpace(email)))
		return fmt.Sprintf(`, ($2 <> '' AND EXISTS (SELECT FROM %s WHERE login_key = $2)) OR ($3 <> '' AND EXISTS (SELECT FROM %s WHERE email_key = $3))`, t, t), ""
	}, func(v [][]byte) error {
		unique = v[0][0] == 0
		return nil
	})
	return unique, at, err
}

// Link is a user's identity at an external provider.
type Link struct {
	UserID, ConfigID, ExternalUserID, DisplayName string
	Linked                                        time.Time
}

// Links returns a page of a user's identities in order of provider and id, and
// how many there are. limit is at most MaxLimit, 0 for it.
func (e *Engine) Links(ctx context.Context, scope Scope, user string, offset, limit int) ([]Link, int, At, error) {
	var (
		links []Link
		total int64
	)
	at, err := e.query(ctx, idpLinks, func(version int, args *[]any) (string, string) {
		*args = append(*args, user, clampLimit(limit), max(0, offset))
		t := idpLinks.table(version)
		where := "user_id = $2 AND " + scope.where("org", args)
		return fmt.Sprintf(", (SELECT count(*) FROM %s WHERE %s)", t, where) + idpLinks.columnsOf("l"),
			fmt.Sprintf("LEFT JOIN LATERAL (SELECT * FROM %s WHERE %s ORDER BY config_id, external_id LIMIT $3 OFFSET $4) l ON true", t, where)
	}, func(v [][]byte) error {
		total = readInt8(v[0])
		if v[1] != nil {
			var r linkRow
			idpLinks.decode(v[1:], &r)
			links = append(links, Link{UserID: r.user, ConfigID: r.configID, ExternalUserID: r.externalID, DisplayName: r.displayName, Linked: r.linked.time()})
		}
		return nil
	})
	return links, int(total), at, err
}

// Count is how many users of one organisation are in one state.
type Count struct {
	Org   string
	State domain.State
	Users int64
}

// Counts returns the numbers of users by organisation and state, as of one
// moment.
func (e *Engine) Counts(ctx context.Context, scope Scope) ([]Count, At, error) {
	var list []Count
	at, err := e.query(ctx, users, func(version int, args *[]any) (string, string) {
		return ", c.org, c.state, c.n", fmt.Sprintf(`LEFT JOIN LATERAL (SELECT org, state, sum(n)::int8 AS n FROM %s WHERE %s
			GROUP BY org, state HAVING sum(n) <> 0 ORDER BY org, state) c ON true`, users.countTable(version), scope.where("org", args))
	}, func(v [][]byte) error {
		if v[0] != nil {
			list = append(list, Count{string(v[0]), domain.State(readInt2(v[1])), readInt8(v[2])})
		}
		return nil
	})
	return list, at, err
}
