package projections

import (
	"errors"
	"strings"
	"testing"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// searchWorld has a few people whose names try out searches.
func searchWorld(t *testing.T) *world {
	w := newWorld(t)
	w.cfg.Trigram = true
	run(t, w.Engine)
	people := []struct{ id, org, user, first, last, nick, display, email string }{
		{"a", "org1", "ada", "Ada", "Lind", "", "Ada Lind", "Ada@Example.test"},
		{"b", "org1", "Bo", "Bo", "Ek", "Bosse", "Bosse E.", "bo@example.test"},
		{"c", "org1", "c_%", "Cé", "Öhman", "", "Cé Öhman", "c_%@percent.test"},
		{"d", "org1", "ÉMILE", "Émile", "Zola", "Mi", "Émile Zola", "emile@zola.test"},
		{"e", "org2", "eve", "Eve", "Lind", "", "Eve Lind", "eve@example.test"},
	}
	for _, p := range people {
		w.do(t, p.id, p.org, domain.HumanAdded{UserName: p.user, Email: p.email,
			Profile: domain.Profile{FirstName: p.first, LastName: p.last, NickName: p.nick, DisplayName: p.display, PreferredLanguage: "und"}})
	}
	w.do(t, "b", "org1", domain.UserDeactivated{})
	for _, o := range []string{"org1", "org2"} {
		w.do(t, domain.OrganisationStream(o), o, domain.OrganisationAdded{Name: "The " + o})
	}
	w.settle(t, "users", "organisations", "idp_links")
	return w
}

func ids(users []User) string {
	var b strings.Builder
	for _, u := range users {
		b.WriteString(u.ID)
	}
	return b.String()
}

func TestSearch(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	text := func(f Field, m Method, v string) Filter {
		return Filter{Text: &TextFilter{Field: f, Method: m, Value: v}}
	}
	inactive, yes, no := domain.StateInactive, true, false
	for _, c := range []struct {
		name  string
		scope Scope
		q     Search
		want  string
	}{
		{"all of an organisation, oldest first", InOrg("org1"), Search{}, "abcd"},
		{"newest first", InOrg("org1"), Search{Descending: true}, "dcba"},
		{"everywhere", Everywhere(), Search{}, "abcde"},
		{"the zero scope sees nothing", Scope{}, Search{}, ""},
		{"no organisation sees nothing", InOrg(""), Search{}, ""},
		{"equals minds case", InOrg("org1"), Search{Filters: []Filter{text(FieldEmail, Equals, "ada@example.test")}}, ""},
		{"equals", InOrg("org1"), Search{Filters: []Filter{text(FieldEmail, Equals, "Ada@Example.test")}}, "a"},
		{"equals, any case", InOrg("org1"), Search{Filters: []Filter{text(FieldEmail, EqualsIgnoreCase, "ADA@EXAMPLE.TEST")}}, "a"},
		{"another organisation's, by e-mail", InOrg("org1"), Search{Filters: []Filter{text(FieldEmail, Equals, "eve@example.test")}}, ""},
		{"any case beyond ASCII", InOrg("org1"), Search{Filters: []Filter{text(FieldUserName, EqualsIgnoreCase, "émile")}}, "d"},
		{"starts with", InOrg("org1"), Search{Filters: []Filter{text(FieldFirstName, StartsWith, "A")}}, "a"},
		{"starts with minds case", InOrg("org1"), Search{Filters: []Filter{text(FieldFirstName, StartsWith, "a")}}, ""},
		{"starts with, any case", InOrg("org1"), Search{Filters: []Filter{text(FieldFirstName, StartsWithIgnoreCase, "é")}}, "d"},
		{"contains", Everywhere(), Search{Filters: []Filter{text(FieldDisplayName, Contains, "Lin")}}, "ae"},
		{"contains minds case", Everywhere(), Search{Filters: []Filter{text(FieldDisplayName, Contains, "lin")}}, ""},
		{"contains, any case", Everywhere(), Search{Filters: []Filter{text(FieldDisplayName, ContainsIgnoreCase, "LIN")}}, "ae"},
		{"ends with", InOrg("org1"), Search{Filters: []Filter{text(FieldLastName, EndsWith, "man")}}, "c"},
		{"ends with, any case", InOrg("org1"), Search{Filters: []Filter{text(FieldLastName, EndsWithIgnoreCase, "MAN")}}, "c"},
		{"a wildcard stands for itself", InOrg("org1"), Search{Filters: []Filter{text(FieldUserName, Contains, "_%")}}, "c"},
		{"a backslash too", InOrg("org1"), Search{Filters: []Filter{text(FieldUserName, StartsWith, `\`)}}, ""},
		{"nick name", InOrg("org1"), Search{Filters: []Filter{text(FieldNickName, StartsWithIgnoreCase, "bos")}}, "b"},
		{"no nick name", InOrg("org1"), Search{Filters: []Filter{text(FieldNickName, Equals, "")}}, "ac"},
		{"login name", InOrg("org1"), Search{Filters: []Filter{text(FieldLoginName, EqualsIgnoreCase, "BO")}}, "b"},
		{"state", InOrg("org1"), Search{Filters: []Filter{{State: &inactive}}}, "b"},
		{"people", InOrg("org1"), Search{Filters: []Filter{{Human: &yes}}}, "abcd"},
		{"machines", InOrg("org1"), Search{Filters: []Filter{{Human: &no}}}, ""},
		{"ids", InOrg("org1"), Search{Filters: []Filter{{IDs: []string{"d", "a", "e"}}}}, "ad"},
		{"no ids", InOrg("org1"), Search{Filters: []Filter{{IDs: []string{}}}}, ""},
		{"e-mails", Everywhere(), Search{Filters: []Filter{{Emails: []string{"EVE@example.test", "x"}}}}, "e"},
		{"two conditions", InOrg("org1"), Search{Filters: []Filter{text(FieldFirstName, StartsWith, "B"), {State: &inactive}}}, "b"},
		{"or", InOrg("org1"), Search{Filters: []Filter{{Or: []Filter{text(FieldUserName, Equals, "ada"), {State: &inactive}}}}}, "ab"},
		{"or of nothing", InOrg("org1"), Search{Filters: []Filter{{Or: []Filter{}}}}, ""},
		{"and", InOrg("org1"), Search{Filters: []Filter{{And: []Filter{text(FieldUserName, Equals, "ada"), {State: &inactive}}}}}, ""},
		{"not", InOrg("org1"), Search{Filters: []Filter{{Not: &Filter{State: &inactive}}}}, "acd"},
		{"not (or) stays in scope", InOrg("org1"), Search{Filters: []Filter{{Not: &Filter{Or: []Filter{text(FieldUserName, Equals, "ada"), {State: &inactive}}}}}}, "cd"},
		{"by last name", InOrg("org1"), Search{Sort: FieldLastName}, "badc"},
		{"by state", InOrg("org1"), Search{Sort: FieldState}, "acdb"},
		{"by e-mail, descending", InOrg("org1"), Search{Sort: FieldEmail, Descending: true}, "dcba"},
		{"a page", InOrg("org1"), Search{Offset: 1, Limit: 2}, "bc"},
		{"injection is a text", Everywhere(), Search{Filters: []Filter{text(FieldUserName, Equals, "' OR true --")}}, ""},
	} {
		found, err := w.SearchUsers(t.Context(), c.scope, c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := ids(found.Users); got != c.want {
			t.Errorf("%s: found %q, want %q", c.name, got, c.want)
		}
		if c.q.Limit == 0 && found.Total != int64(len(c.want)) {
			t.Errorf("%s: total %d, want %d", c.name, found.Total, len(c.want))
		}
		if c.q.Limit != 0 && found.Total != 4 {
			t.Errorf("%s: total %d, want 4", c.name, found.Total)
		}
	}
}

func TestSearchRefuses(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	deep := Filter{Human: new(bool)}
	for range maxDepth + 1 {
		inner := deep
		deep = Filter{Not: &inner}
	}
	for _, c := range []struct {
		q    Search
		want error
	}{
		{Search{Filters: []Filter{deep}}, ErrSearchDepth},
		{Search{Filters: make([]Filter, maxConditions+1)}, ErrSearchEmpty},
		{Search{Filters: []Filter{{}}}, ErrSearchEmpty},
		{Search{Filters: []Filter{{Text: &TextFilter{Field: FieldState}}}}, ErrSearchField},
		{Search{Filters: []Filter{{Text: &TextFilter{Field: FieldEmail, Method: 8}}}}, ErrSearchField},
		{Search{Sort: 99}, ErrSearchField},
	} {
		if _, err := w.SearchUsers(t.Context(), Everywhere(), c.q); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.q, err, c.want)
		}
	}
}

// Searches that the wire offers by equality or prefix are answered by an index.
func TestSearchesUseIndexes(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	conditions := map[string]string{"login_key LIKE '%xyz%'": "users_v1_middle", "email_key LIKE '%xyz'": "users_v1_middle"}
	for column, want := range map[string]string{"email_key": "users_v1_email", "login_key": "users_v1_login", "first_key": "users_v1_first",
		"last_key": "users_v1_last", "display_key": "users_v1_display", "nick_key": "users_v1_nick"} {
		for _, op := range []string{"= 'x'", "LIKE 'x%'"} {
			conditions[column+" <> '' AND "+column+" "+op] = want
		}
	}
	for condition, want := range conditions {
		tx, err := w.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off"); err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query(t.Context(), "EXPLAIN SELECT * FROM read_models.users_v1 WHERE "+condition)
		if err != nil {
			t.Fatal(err)
		}
		var plan, line string
		for rows.Next() {
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		if !strings.Contains(plan, want) || !strings.Contains(plan, "Index Cond") {
			t.Errorf("%s does not use %s:\n%s", condition, want, plan)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherReads(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	ctx := t.Context()
	changes, err := w.UserChanges(ctx, InOrg("org1"), "b", Changes{})
	if err != nil || len(changes) != 2 || changes[0].Type != domain.TypeUserDeactivated || changes[1].Sequence != 1 || changes[0].Actor != "tester" {
		t.Errorf("changes: %+v, %v", changes, err)
	}
	changes, err = w.UserChanges(ctx, InOrg("org1"), "b", Changes{Ascending: true, From: 2})
	if err != nil || len(changes) != 1 || changes[0].Sequence != 2 {
		t.Errorf("changes from 2 on: %+v, %v", changes, err)
	}
	if _, err := w.UserChanges(ctx, InOrg("org2"), "b", Changes{}); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("another organisation's changes: %v", err)
	}
	orgs, total, _, err := w.Organisations(ctx, Everywhere(), 1, 1)
	if err != nil || total != 2 || len(orgs) != 1 || orgs[0].ID != "org2" || orgs[0].Name != "The org2" {
		t.Errorf("organisations: %+v of %d, %v", orgs, total, err)
	}
	for _, c := range []struct {
		user, email string
		want        bool
	}{{"new", "", true}, {"ADA", "", false}, {"", "eve@EXAMPLE.test", false}, {"", "", true}} {
		if got, _, err := w.IsUserUnique(ctx, c.user, c.email); err != nil || got != c.want {
			t.Errorf("unique %q %q: %v, %v", c.user, c.email, got, err)
		}
	}
	if _, _, err := w.UserByLoginName(ctx, InOrg("org2"), "ada"); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("another organisation's login name: %v", err)
	}
}

func TestVerifyASample(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	if r, err := w.Verify(t.Context(), "users", 2); err != nil || r.Streams < 2 || r.Drifted != 0 {
		t.Errorf("a sample: %+v, %v", r, err)
	}
	for sql, want := range map[string]Drift{
		`DELETE FROM read_models.users_v1 WHERE id = 'a'`:                                   {Stream: "a", Kind: "missing"},
		`UPDATE read_models.users_v1 SET id = 'ghost', slice = 7 WHERE id = 'd'`:            {Stream: "ghost", Kind: "extra"},
		`UPDATE read_models.users_v1 SET state = 4 WHERE id = 'c'`:                          {Stream: "c", Column: "state", Kind: "differs"},
		`UPDATE read_models.users_v1_counts SET n = n + 1 WHERE (org, state) = ('org2', 1)`: {Column: "counts", Kind: "differs"},
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		r, err := w.Verify(t.Context(), "users", 0)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range r.Drifts {
			found = found || d == want
		}
		if !found {
			t.Errorf("after %s: %+v", sql, r.Drifts)
		}
	}
}

func TestVerifyOfAVersionThatHasJustBegun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	for _, o := range w.store.AppendMany(t.Context(), []eventstore.Append{
		{Stream: userID(1), Org: "org1", Actor: "tester", Expected: eventstore.NoStream, At: epochTime, Events: encode(person(1)...)},
	}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	if _, err := w.ensure(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	if r, err := w.Verify(t.Context(), "users", 0); err != nil || r.Position != 0 || r.Drifted != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
