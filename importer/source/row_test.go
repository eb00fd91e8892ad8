package source

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
)

func TestNames(t *testing.T) {
	type names struct{ First, Last, Display string }
	for _, c := range []struct {
		given, family, name, nick, user, email string
		want                                   names
		warnings                               int
	}{
		{given: "Ada", family: "Lind", want: names{"Ada", "Lind", ""}},
		{given: " Ada ", family: "Lind", name: "Ada L.", want: names{"Ada", "Lind", "Ada L."}},
		{name: "Ada Maria  Lind", want: names{"Ada Maria", "Lind", "Ada Maria  Lind"}, warnings: 1},
		{given: "Ada", name: "Ada van der Lind", want: names{"Ada", "van der Lind", "Ada van der Lind"}, warnings: 1},
		{family: "Lind", name: "Ada Maria Lind", want: names{"Ada Maria", "Lind", "Ada Maria Lind"}, warnings: 1},
		{name: "Ada", want: names{"Ada", "Ada", "Ada"}, warnings: 2},
		{given: "Ada", user: "al", want: names{"Ada", "Ada", "Ada"}, warnings: 1},
		{nick: "al", want: names{"al", "al", "al"}, warnings: 2},
		{user: "al", want: names{"al", "al", "al"}, warnings: 2},
		{email: "al@example.test", want: names{"al", "al", "al"}, warnings: 2},
	} {
		line := `{"user_id":"x|1","identities":[],"given_name":"` + c.given + `","family_name":"` + c.family + `","name":"` + c.name +
			`","nickname":"` + c.nick + `","username":"` + c.user + `","email":"` + c.email + `"}`
		r, _ := single(t, line, Options{})
		p := r.Command.Profile
		if d := cmp.Diff(c.want, names{p.FirstName, p.LastName, p.DisplayName}); d != "" || len(r.Warnings) != c.warnings {
			t.Errorf("%s: %s %v", line, d, r.Warnings)
		}
	}
}

func TestLanguages(t *testing.T) {
	for in, want := range map[string]string{
		"en_US": "en-US", "en_US.UTF-8": "en-US", "de, en-gb;q=0.8": "de", "sv-SE": "sv-SE", " fr ": "fr", "": "", "de_DE@euro": "de-DE",
	} {
		if got := language(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestPhones(t *testing.T) {
	for _, c := range []struct{ in, region, want string }{
		{"+46701234567", "", "+46701234567"},
		{"0046701234567", "", "+46701234567"},
		{"tel:+46701234567", "", "+46701234567"},
		{"070-123 45 67", "SE", "+46701234567"},
		{"070-123 45 67", "", ""}, // whose number it would be depends on the country
		{"call me", "SE", ""},
	} {
		r, l := single(t, `{"user_id":"x|1","identities":[],"phone_number":"`+c.in+`"}`, Options{PhoneRegion: c.region})
		got := ""
		if p := r.Command.Phone; p != nil {
			got = p.Number
		}
		if got != c.want || (got == "") != (warned(r, "phone.phone") != "") || (got == "") != (l.Fields["phone without a country code"] == 1) {
			t.Errorf("%+v: %q %v", c, got, l)
		}
	}
}

func TestIDs(t *testing.T) {
	laravel := "id,name,email,password,remember_token\n7,A B,a@example.test,,\n"
	auth0 := `{"user_id":"auth0|7","identities":[]}`
	for _, c := range []struct {
		in         string
		ids        IDs
		user, from string
	}{
		{laravel, IDsAuto, "", "7"}, {laravel, IDsKeep, "7", "7"}, {laravel, IDsNew, "", "7"},
		{auth0, IDsAuto, "auth0|7", "auth0|7"}, {auth0, IDsNew, "", "auth0|7"},
	} {
		r, _ := single(t, c.in, Options{IDs: c.ids})
		if r.Command.UserID != c.user || r.Command.ExternalID != c.from {
			t.Errorf("%+v: %+v", c, r.Command)
		}
	}
}

func TestAssumeVerifiedOnlyWhereTheSourceIsSilent(t *testing.T) {
	for in, want := range map[string]bool{
		"id,name,email,password,remember_token\n7,A B,a@example.test,,\n":                                                                     true,
		"id,name,email,email_verified_at,password,remember_token\n7,A B,a@example.test,,,\n":                                                  false,
		"id,name,email,email_verified_at,password,remember_token\n7,A B,a@example.test,NULL,,\n":                                              false,
		"id,name,email,password,remember_token\n7,A B,,,\n":                                                                                   false,
		`{"user_id":"x|1","identities":[],"email":"a@example.test","email_verified":false}`:                                                   false,
		`{"id":"1","schema_id":"x","traits":{"email":"a@example.test"},"verifiable_addresses":[{"value":"a@example.test","verified":false}]}`: false,
	} {
		if r, _ := single(t, in, Options{AssumeVerified: true}); r.Command.Email.Verified != want {
			t.Errorf("%s: %v", in, r.Command.Email.Verified)
		}
	}
}

func TestMapping(t *testing.T) {
	m, err := ParseMapping([]string{"idp:oidc|a=b=1", "field:phone=attributes.mobile", "metadata:a.b=c"})
	if err != nil {
		t.Fatal(err)
	}
	want := Mapping{
		IDPs: map[string]string{"oidc|a=b": "1"}, Fields: map[string]string{"phone": "attributes.mobile"}, Metadata: map[string]string{"a.b": "c"},
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "idp:a", "idp:=1", "idp:a=", "field:nonsense=a", "x:a=b", "field:phone="} {
		if _, err := ParseMapping([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestLossesNameFieldsAndNeverPeople(t *testing.T) {
	l := newLosses()
	var d doc
	for range 2 {
		if err := d.parse([]byte(`{"a":{"b":[{"c":1},{"c":2},{"d":""}]},"e":null,"roles":{"ada@example.test":true,"6f1c2a7e-0000-4000-8000-000000000001":1,"12345":1},"kept":1}`)); err != nil {
			t.Fatal(err)
		}
		d.root().get("kept").use()
		l.count(d.root(), "p.")
	}
	if d := cmp.Diff(map[string]int64{"p.a.b[].c": 2, "p.roles.*": 2}, l.report().Fields); d != "" {
		t.Error(d)
	}
	for i := range 3 * maxPaths {
		l.add(strings.Repeat("x", i%(2*maxPaths)))
	}
	if n := len(l.report().Fields); n != maxPaths+1 {
		t.Error(n)
	}
}

func TestForecast(t *testing.T) {
	email := domain.Email{Address: "a@example.test", Verified: true}
	unverified := domain.Email{Address: "a@example.test"}
	link := []domain.IDPLink{{ConfigID: "g", ExternalUserID: "1"}}
	var f, other Forecast
	for i, c := range []domain.ImportHuman{
		{Email: email, HashedPassword: bcrypt},
		{Email: email, HashedPassword: bcrypt, ChangeRequired: true, TOTPSecret: secret},
		{Email: email, HashedPassword: "AHN5bnRoZXRpYy1zYWx0MTZm/sutduXS7kN+ObLrfB0GRqTjjbWYsiwEJvpuxbG4VA==", IDPLinks: link},
		{Email: email, Password: plain},
		{Email: unverified, HashedPassword: bcrypt},
		{Email: unverified, HashedPassword: bcrypt, IDPLinks: link},
		{Email: domain.Email{Address: "a@example.test", Mode: domain.VerifyNone}, HashedPassword: bcrypt},
		{Email: unverified, IDPLinks: link},
		{Email: email, HashedPassword: "nonsense", IDPLinks: link},
		{Email: email, RequestPasskey: true},
		{Email: unverified, RequestPasskey: true},
		{Email: email},
		{Email: unverified},
		{Email: email, HashedPassword: bcrypt, State: domain.StateLocked},
		{},
	} {
		if i%2 == 0 {
			f.Add(c)
		} else {
			other.Add(c)
		}
		// The forecast follows the rule of the import itself.
		if c.Email.Address == "" || c.HashedPassword == "nonsense" {
			continue
		}
		var one Forecast
		one.Add(c)
		h := domain.Human{Email: c.Email, IDPLinks: c.IDPLinks, Password: c.Password, PasswordHash: c.HashedPassword, RequestPasskey: c.RequestPasskey}
		if initial := one.Verify+one.Reset == 1; c.State == 0 && initial != h.Codes().Init {
			t.Errorf("%+v: %v", c, one)
		}
	}
	f.Merge(other)
	want := Forecast{
		Users: 15, Password: 6, IDP: 2, Passkey: 1, Verify: 2, Reset: 2, Blocked: 1, Cannot: 1, ChangeRequired: 1, TOTP: 1,
		Formats: map[string]FormatForecast{
			"bcrypt": {Users: 6}, Plain: {Users: 1},
			"aspnet-identity-v2": {Users: 1, Weak: 1, Weakness: f.Formats["aspnet-identity-v2"].Weakness},
		},
		Refused: f.Refused,
	}
	if d := cmp.Diff(want, f); d != "" || len(f.Refused) != 1 {
		t.Error(d, f.Refused)
	}
}
