package projections

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// lifeEvent draws an event of a user's later life.
func lifeEvent(t *rapid.T) domain.Event {
	word := rapid.StringMatching(`[A-Za-zÄé ]{1,8}`)
	return rapid.Custom(func(t *rapid.T) domain.Event {
		switch rapid.IntRange(0, 23).Draw(t, "event") {
		case 0:
			return domain.EmailVerified{}
		case 1:
			return domain.PhoneVerified{}
		case 2:
			return domain.PasswordSet{Hash: "h", ChangeRequired: rapid.Bool().Draw(t, "change")}
		case 3:
			return domain.TOTPAdded{Secret: "S"}
		case 4:
			return domain.TOTPRemoved{}
		case 5:
			return domain.InitializationCodeAdded{SentCode: domain.SentCode{Secret: "C"}}
		case 6:
			return domain.InitializationSucceeded{}
		case 7:
			return domain.UserDeactivated{}
		case 8:
			return domain.UserReactivated{}
		case 9:
			return domain.UserLocked{}
		case 10:
			return domain.UserUnlocked{}
		case 11:
			return domain.UsernameChanged{UserName: word.Draw(t, "name")}
		case 12:
			return domain.ProfileChanged{Profile: domain.Profile{FirstName: word.Draw(t, "first"), LastName: word.Draw(t, "last"),
				NickName: word.Draw(t, "nick"), DisplayName: word.Draw(t, "display"), PreferredLanguage: "de", Gender: domain.GenderDiverse}}
		case 13:
			return domain.EmailChanged{Email: word.Draw(t, "email")}
		case 14:
			return domain.PhoneChanged{Phone: "+4112345"}
		case 15:
			return domain.PhoneRemoved{}
		case 16:
			return domain.PasskeyAdded{CredentialID: []byte{1}}
		case 17:
			return domain.PasswordChecked{}
		case 18:
			return domain.MetadataSet{Entries: []domain.Metadata{{Key: "k", Value: []byte("v")}}}
		case 19:
			return domain.PasswordCheckFailed{}
		case 20:
			return domain.PasswordRehashed{Hash: "h2"}
		case 21:
			return domain.IDPLinked{ConfigID: rapid.SampledFrom([]string{"google", "github"}).Draw(t, "idp"), ExternalUserID: word.Draw(t, "external")}
		case 22:
			return domain.PasswordDelegated{Job: "job", ChangeRequired: rapid.Bool().Draw(t, "change")}
		default:
			return domain.IDPLinkRemoved{ConfigID: "google", ExternalUserID: word.Draw(t, "external")}
		}
	}).Draw(t, "life")
}

// foldAll runs a model's fold over a stream's events.
func foldAll[R any](m *model[R], events []domain.Event) ([]R, error) {
	var rows, scratch []R
	for i, e := range events {
		ev := &eventstore.Event{Stream: "u1", Org: "org1", Sequence: int64(i + 1), Position: eventstore.Position(10 + i), Type: e.Type(), At: epochTime}
		if wanted, _ := m.concerns(ev.Type); !wanted {
			continue
		}
		var err error
		if rows, scratch, err = m.step(rows, scratch, &fact{ev: ev, e: e}); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// What the read models make of a life is what the aggregate makes of it.
func TestFoldAgreesWithTheAggregate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := person(7)
		for range rapid.IntRange(0, 30).Draw(t, "length") {
			events = append(events, lifeEvent(t))
		}
		switch rapid.IntRange(0, 4).Draw(t, "end") {
		case 0:
			events = append(events, domain.UserRemoved{})
		case 1:
			events = append(events, domain.UserRemoved{}, domain.UserErased{})
		}
		u := domain.NewUser("u1", "org1", events...)
		rows, err := foldAll(users, events)
		if err != nil {
			t.Fatal(err)
		}
		links, err := foldAll(idpLinks, events)
		if err != nil {
			t.Fatal(err)
		}
		if !u.Exists() {
			if len(rows) != 0 || len(links) != 0 {
				t.Fatalf("a removed user has rows: %v %v", rows, links)
			}
			return
		}
		got := rows[0].user()
		want := User{ID: "u1", Org: "org1", State: u.State, UserName: u.UserName, LoginNames: []string{u.UserName}, Profile: u.Profile,
			Email: u.Email, EmailVerified: u.EmailVerified, Phone: u.Phone, PhoneVerified: u.PhoneVerified, ExternalID: u.ExternalID,
			HasPassword: u.HasPassword, PasswordChangeRequired: u.ChangeRequired, HasTOTP: u.HasTOTP, Passkeys: len(u.Passkeys),
			Sequence: u.Sequence, Position: eventstore.Position(9 + len(events))}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(User{}, "Created", "Changed", "PasswordChanged")); diff != "" {
			t.Fatalf("row (-aggregate +row):\n%s", diff)
		}
		if rows[0].oldSystem != u.OldSystem {
			t.Fatalf("waiting for %q, and the aggregate for %q", rows[0].oldSystem, u.OldSystem)
		}
		if rows[0].loginKey != domain.LoginNameClaim(u.UserName).Value {
			t.Fatalf("the login key is %q", rows[0].loginKey)
		}
		identities := map[string]bool{}
		for _, l := range u.IDPLinks {
			identities[l.ConfigID+"|"+l.ExternalUserID] = true
		}
		for _, l := range links {
			if !identities[l.configID+"|"+l.externalID] {
				t.Fatalf("link %v is not the aggregate's", l)
			}
		}
		if len(links) != len(identities) {
			t.Fatalf("%d links, the aggregate has %d", len(links), len(identities))
		}
	})
}

func TestFoldRefusesAGap(t *testing.T) {
	rows, err := foldAll(users, person(1))
	if err != nil {
		t.Fatal(err)
	}
	before := rows[0]
	late := &fact{ev: &eventstore.Event{Stream: "u1", Sequence: 9}, e: domain.UserLocked{}}
	rows, _, err = users.step(rows, nil, late)
	if !errors.Is(err, errGap) {
		t.Errorf("an event that does not follow: %v", err)
	}
	if rows[0] != before {
		t.Error("the refused event left a trace")
	}
	if _, err := foldAll(users, person(1)[1:]); !errors.Is(err, errNotAdded) {
		t.Errorf("a stream that does not begin with HumanAdded: %v", err)
	}
}

// A fold that fails, however it does, leaves the rows as they were.
func TestStepUndoesWhatFailed(t *testing.T) {
	type row struct{ name string }
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("no") },
		"panic": func() error { panic("secret value") },
	} {
		m := &model[row]{definition: definition[row]{fold: func(rows []row, _ *eventstore.Event, _ domain.Event) ([]row, error) {
			rows[0].name = "half done"
			return rows[:0], fail()
		}}}
		rows, _, err := m.step([]row{{"whole"}}, nil, &fact{ev: &eventstore.Event{}})
		if err == nil || len(rows) != 1 || rows[0].name != "whole" {
			t.Errorf("%s: rows %v, error %v", name, rows, err)
		}
		if c := classOf(err); name == "panic" && c != errPanic.Error() {
			t.Errorf("the panic's value shows in %q", c)
		}
	}
}

// Every column survives the way into PostgreSQL's form and back.
func TestColumnsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := userRow{id: "u", state: int16(rapid.IntRange(-3, 6).Draw(t, "state")), sequence: rapid.Int64().Draw(t, "sequence"),
			created: micros(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "created")), userName: rapid.String().Draw(t, "name"), emailVerified: rapid.Bool().Draw(t, "verified")}
		var out userRow
		for i := range users.columns {
			b := users.columns[i].encode(nil, &in)
			users.columns[i].decode(b[4:], &out)
		}
		if in != out {
			t.Fatalf("%+v came back as %+v", in, out)
		}
	})
}
