package projections

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// texts are the columns that may hold anything that somebody said.
func (m *model[R]) texts() (names []string) {
	for _, c := range m.columns {
		if c.kind == kindText {
			names = append(names, c.name)
		}
	}
	return names
}

// Whatever holds what a person told us has to be declared, so that erasure can
// be checked: of the columns that hold texts, only these may be left out. They
// are ids, words of ours, and organisations' names.
func TestPersonalColumnsAreDeclared(t *testing.T) {
	open := set([]string{
		"users.id", "users.org", "users.old_system", "idp_links.user_id", "idp_links.org", "idp_links.config_id",
		"organisations.stream", "organisations.id", "organisations.name", "organisations.name_key",
		"import_jobs.stream", "import_jobs.id", "import_jobs.org", "import_jobs.actor", "import_jobs.on_conflict", "import_jobs.notify", "import_jobs.state",
	})
	for _, m := range Models() {
		texts := m.(interface{ texts() []string }).texts()
		for _, c := range m.Columns() {
			_, free := open[m.Name()+"."+c.Name]
			text := strings.Contains(" "+strings.Join(texts, " ")+" ", " "+c.Name+" ")
			if text && !free && !c.Personal {
				t.Errorf("%s.%s is a text and not declared personal", m.Name(), c.Name)
			}
			if free && c.Personal {
				t.Errorf("%s.%s is declared personal and let off", m.Name(), c.Name)
			}
		}
	}
}

// marked tells which columns, of all the read models' tables that there are,
// hold a mark of the test's.
func marked(t *testing.T, w *world) map[string]bool {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = $1`, Schema)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < len(Models()) {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	found := map[string]bool{}
	for _, table := range tables {
		rows, err := w.pool.Query(t.Context(), fmt.Sprintf(`SELECT DISTINCT e.key FROM %s.%s t, jsonb_each_text(to_jsonb(t)) e WHERE e.value ILIKE '%%canary%%'`, Schema, table))
		if err != nil {
			t.Fatal(err)
		}
		columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		model, _, _ := strings.Cut(table, "_v")
		for _, c := range columns {
			found[model+"."+c] = true
		}
	}
	return found
}

// What is declared personal is exactly what holds what a person told us; after
// that person's erasure no table of any read model holds any of it, neither the
// live ones nor those that a rebuild makes of what is left.
func TestErasureLeavesNothingPersonal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	run(t, w.Engine)
	profile := domain.Profile{FirstName: "canary first", LastName: "canary last", NickName: "canary nick", DisplayName: "canary display", PreferredLanguage: "canary-language"}
	w.do(t, userID(1), "org1",
		domain.HumanAdded{UserName: "canary-name", Email: "canary@example.test", Phone: "canary-phone", ExternalID: "canary-external", Profile: profile, Job: "j", Line: 1},
		domain.PasswordSet{Hash: "canary-hash", Format: "bcrypt"}, domain.TOTPAdded{Secret: "CANARY"},
		domain.MetadataSet{Entries: []domain.Metadata{{Key: "canary-key", Value: []byte("canary-value")}}},
		domain.InitializationCodeAdded{SentCode: domain.SentCode{Secret: "CANARY"}},
		domain.IDPLinked{ConfigID: "google", ExternalUserID: "canary-identity", DisplayName: "canary-link"},
		domain.PasskeyAdded{CredentialID: []byte("canary-credential"), Name: "canary-passkey"})
	w.do(t, userID(2), "org1", person(2)...)
	w.do(t, domain.OrganisationStream("org1"), "org1", domain.OrganisationAdded{Name: "One"})
	w.do(t, domain.ImportStream("j"), "org1", domain.ImportStarted{OnConflict: "fail", Notify: "none", Remote: "canary-remote"}, domain.ImportFinished{Created: 1})
	var names []string
	declared := map[string]bool{}
	for _, m := range Models() {
		names = append(names, m.Name())
		for _, c := range m.Columns() {
			if c.Personal {
				declared[m.Name()+"."+c.Name] = true
			}
		}
	}
	w.settle(t, names...)
	held := marked(t, w)
	for c := range held {
		if !declared[c] {
			t.Errorf("%s holds what a person told us, and is not declared personal", c)
		}
	}
	for c := range declared {
		if !held[c] {
			t.Errorf("%s is declared personal, and holds nothing that a person told us", c)
		}
	}
	r, err := w.store.Append(t.Context(), eventstore.Append{Stream: userID(1), Org: "org1", Actor: "tester", Expected: eventstore.Any, At: epochTime,
		Events: encode(domain.UserRemoved{}, domain.UserErased{}), Erase: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.settle(t, names...)
		if left := marked(t, w); len(left) != 0 {
			t.Errorf("after the erasure at %d there is still something in %v", r.Position, left)
		}
		for _, name := range names {
			w.sound(t, name)
			if result, err := w.Rebuild(t.Context(), name, nil); err != nil || result.Stopped != 0 || len(result.Differing) != 0 {
				t.Errorf("rebuilding %s: %+v, %v", name, result, err)
			}
		}
	}
}
