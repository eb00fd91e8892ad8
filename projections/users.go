package projections

import (
	"errors"
	"strings"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// userRow is a row of the read model "users": a user who has been added and
// not removed.
//
// The columns named …_key hold what the column without it says, in lower case
// as domain.LoginNameClaim folds it. Searches that ignore case, and sorting,
// use these, so that neither depends on the database's locale. The login name
// is the user name, so loginKey is the read model of login names too.
type userRow struct {
	id, org         string
	slice           int16
	state           int16
	sequence        int64
	position        int64
	created         micros
	changed         micros
	userName        string
	loginKey        string
	firstName       string
	firstKey        string
	lastName        string
	lastKey         string
	nickName        string
	nickKey         string
	displayName     string
	displayKey      string
	language        string
	gender          int16
	email           string
	emailKey        string
	emailVerified   bool
	phone           string
	phoneVerified   bool
	externalID      string
	hasPassword     bool
	changeRequired  bool
	passwordChanged micros
	hasTOTP         bool
	passkeys        int16
	oldSystem       string
}

var users = define(definition[userRow]{
	name:   "users",
	number: 2,
	opens: []string{domain.TypeHumanAdded, domain.TypeUsernameChanged, domain.TypeProfileChanged,
		domain.TypeEmailChanged, domain.TypePhoneChanged},
	ours: isUser,
	// A user's row depends on that user's stream only. The counters are shared,
	// but divided by slices: no part of one is in two ranges.
	split: 8,
	key:   "id",
	columns: []column[userRow]{
		text("id", func(r *userRow) *string { return &r.id }),
		text("org", func(r *userRow) *string { return &r.org }),
		smallint("slice", func(r *userRow) *int16 { return &r.slice }),
		smallint("state", func(r *userRow) *int16 { return &r.state }),
		bigint("sequence", func(r *userRow) *int64 { return &r.sequence }),
		bigint("position", func(r *userRow) *int64 { return &r.position }),
		moment("created_at", func(r *userRow) *micros { return &r.created }),
		moment("changed_at", func(r *userRow) *micros { return &r.changed }),
		personal("user_name", func(r *userRow) *string { return &r.userName }),
		personal("login_key", func(r *userRow) *string { return &r.loginKey }),
		personal("first_name", func(r *userRow) *string { return &r.firstName }),
		personal("first_key", func(r *userRow) *string { return &r.firstKey }),
		personal("last_name", func(r *userRow) *string { return &r.lastName }),
		personal("last_key", func(r *userRow) *string { return &r.lastKey }),
		personal("nick_name", func(r *userRow) *string { return &r.nickName }),
		personal("nick_key", func(r *userRow) *string { return &r.nickKey }),
		personal("display_name", func(r *userRow) *string { return &r.displayName }),
		personal("display_key", func(r *userRow) *string { return &r.displayKey }),
		personal("language", func(r *userRow) *string { return &r.language }),
		smallint("gender", func(r *userRow) *int16 { return &r.gender }),
		personal("email", func(r *userRow) *string { return &r.email }),
		personal("email_key", func(r *userRow) *string { return &r.emailKey }),
		flag("email_verified", func(r *userRow) *bool { return &r.emailVerified }),
		personal("phone", func(r *userRow) *string { return &r.phone }),
		flag("phone_verified", func(r *userRow) *bool { return &r.phoneVerified }),
		personal("external_id", func(r *userRow) *string { return &r.externalID }),
		flag("has_password", func(r *userRow) *bool { return &r.hasPassword }),
		flag("change_required", func(r *userRow) *bool { return &r.changeRequired }),
		moment("password_changed_at", func(r *userRow) *micros { return &r.passwordChanged }),
		flag("has_totp", func(r *userRow) *bool { return &r.hasTOTP }),
		smallint("passkeys", func(r *userRow) *int16 { return &r.passkeys }),
		text("old_system", func(r *userRow) *string { return &r.oldSystem }),
	},
	// The keys are in byte order (COLLATE "C"), so each of these serves
	// equality, prefixes and sorting.
	indexes: []index{
		{suffix: "login", on: "(login_key)"},
		{suffix: "email", on: "(email_key)"},
		{suffix: "first", on: "(first_key)"},
		{suffix: "last", on: "(last_key)"},
		{suffix: "display", on: "(display_key)"},
		{suffix: "nick", on: "(nick_key) WHERE nick_key <> ''"},
		{suffix: "waiting", on: "(old_system) WHERE old_system <> ''"},
		{suffix: "created", on: "(org, created_at)"},
		{suffix: "middle", on: "USING gin (login_key gin_trgm_ops, email_key gin_trgm_ops, display_key gin_trgm_ops)", trigram: true},
	},
	count: func(r *userRow) (string, int16, int16) { return r.org, r.state, r.slice },
	fold:  foldUser,
})

// isUser tells users' streams from the service's own.
func isUser(stream string) bool { return !strings.HasPrefix(stream, eventstore.SystemPrefix) }

// fold is how names are compared when case does not matter.
func fold(s string) string { return domain.LoginNameClaim(s).Value }

// lower is like fold but keeps blanks at the ends, for parts of texts.
func lower(s string) string { return strings.ToLower(s) }

var (
	errNotAdded = errors.New("the stream's first event is not HumanAdded")
	errGap      = errors.New("the stream has a gap: the row lacks an event before this one")
)

// foldUser follows domain.User.Apply; a test holds the two together.
func foldUser(rows []userRow, ev *eventstore.Event, e domain.Event) ([]userRow, error) {
	if len(rows) == 0 {
		added, ok := e.(domain.HumanAdded)
		switch {
		case ok:
			rows = append(rows, userRow{id: ev.Stream, org: ev.Org, slice: ev.Slice, state: int16(domain.StateActive), created: microsOf(ev.At)})
			r := &rows[0]
			r.setUserName(added.UserName)
			r.setProfile(added.Profile)
			r.email, r.emailKey = added.Email, lower(added.Email)
			r.phone, r.externalID = added.Phone, added.ExternalID
			r.sequence = ev.Sequence - 1
		case ev.Sequence == 1:
			return rows, errNotAdded
		default: // what is recorded of a user who has been removed
			return rows, nil
		}
	}
	r := &rows[0]
	if ev.Sequence != r.sequence+1 {
		return rows, errGap
	}
	switch e := e.(type) {
	case domain.EmailVerified:
		r.emailVerified = true
	case domain.PhoneVerified:
		r.phoneVerified = true
	case domain.PasswordSet:
		r.hasPassword, r.changeRequired, r.passwordChanged, r.oldSystem = true, e.ChangeRequired, microsOf(ev.At), ""
	case domain.PasswordDelegated:
		r.oldSystem, r.changeRequired = e.Job, e.ChangeRequired
	case domain.TOTPAdded:
		r.hasTOTP = true
	case domain.TOTPRemoved:
		r.hasTOTP = false
	case domain.PasskeyAdded:
		r.passkeys++
	case domain.PasskeyRemoved:
		r.passkeys--
	case domain.InitializationCodeAdded:
		r.state = int16(domain.StateInitial)
	case domain.InitializationSucceeded, domain.UserReactivated, domain.UserUnlocked:
		r.state = int16(domain.StateActive)
	case domain.UserDeactivated:
		r.state = int16(domain.StateInactive)
	case domain.UserLocked:
		r.state = int16(domain.StateLocked)
	case domain.UsernameChanged:
		r.setUserName(e.UserName)
	case domain.ProfileChanged:
		r.setProfile(e.Profile)
	case domain.EmailChanged:
		r.email, r.emailKey, r.emailVerified = e.Email, lower(e.Email), false
	case domain.PhoneChanged:
		r.phone, r.phoneVerified = e.Phone, false
	case domain.PhoneRemoved:
		r.phone, r.phoneVerified = "", false
	case domain.UserRemoved, domain.UserErased:
		return rows[:0], nil
	}
	r.sequence, r.position, r.changed = ev.Sequence, int64(ev.Position), microsOf(ev.At)
	return rows, nil
}

func (r *userRow) setUserName(name string) { r.userName, r.loginKey = name, fold(name) }

func (r *userRow) setProfile(p domain.Profile) {
	r.firstName, r.firstKey = p.FirstName, lower(p.FirstName)
	r.lastName, r.lastKey = p.LastName, lower(p.LastName)
	r.nickName, r.nickKey = p.NickName, lower(p.NickName)
	r.displayName, r.displayKey = p.DisplayName, lower(p.DisplayName)
	r.language, r.gender = p.PreferredLanguage, int16(p.Gender) // #nosec G115 -- an enumeration
}
