package domain_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
)

var now = time.Date(2026, 3, 21, 12, 0, 0, 123456789, time.UTC)

// facts are what the service would find out for an import.
func facts() domain.Facts {
	return domain.Facts{
		UserID: "01JQ", Org: "org1", PasswordHash: "$argon2id$house", At: now,
		Init:    domain.Code{Secret: "INIT01", Lifetime: 72 * time.Hour},
		Email:   domain.Code{Secret: "MAIL01", Lifetime: time.Hour},
		Phone:   domain.Code{Secret: "PHON01", Lifetime: time.Hour},
		Passkey: domain.Code{ID: "C1", Secret: "passkey0code", Lifetime: time.Hour},
	}
}

func types(events []domain.Event) string {
	var names []string
	for _, e := range events {
		names = append(names, e.Type())
	}
	return strings.Join(names, " ")
}

// TestImportTruthTable has the rows of the wire's table (verified e-mail,
// password, passkey link, provider link), in our events: a password is an
// event of its own, and a verified e-mail address stays verified.
func TestImportTruthTable(t *testing.T) {
	const (
		initCode = "InitializationCodeAdded"
		mailCode = "EmailCodeAdded"
		passkey  = "PasskeyRegistrationRequested"
	)
	for _, row := range []struct {
		v, p, w, i bool
		events     string
		state      domain.State
	}{
		{false, false, false, false, "HumanAdded " + initCode, domain.StateInitial},
		{false, true, false, false, "HumanAdded PasswordSet " + initCode, domain.StateInitial},
		{false, false, true, false, "HumanAdded " + initCode + " " + passkey, domain.StateInitial},
		{false, true, true, false, "HumanAdded PasswordSet " + initCode + " " + passkey, domain.StateInitial},
		{true, false, false, false, "HumanAdded EmailVerified " + initCode, domain.StateInitial},
		{true, true, false, false, "HumanAdded EmailVerified PasswordSet", domain.StateActive},
		{true, false, true, false, "HumanAdded EmailVerified " + passkey, domain.StateActive},
		{true, true, true, false, "HumanAdded EmailVerified PasswordSet " + passkey, domain.StateActive},
		{false, false, false, true, "HumanAdded IDPLinked " + mailCode, domain.StateActive},
		{false, true, false, true, "HumanAdded PasswordSet IDPLinked " + mailCode, domain.StateActive},
		{true, false, false, true, "HumanAdded EmailVerified IDPLinked", domain.StateActive},
		{true, true, false, true, "HumanAdded EmailVerified PasswordSet IDPLinked", domain.StateActive},
		{false, false, true, true, "HumanAdded IDPLinked " + mailCode + " " + passkey, domain.StateActive},
		{false, true, true, true, "HumanAdded PasswordSet IDPLinked " + mailCode + " " + passkey, domain.StateActive},
		{true, false, true, true, "HumanAdded EmailVerified IDPLinked " + passkey, domain.StateActive},
		{true, true, true, true, "HumanAdded EmailVerified PasswordSet IDPLinked " + passkey, domain.StateActive},
	} {
		cmd := minimal(func(c *domain.ImportHuman) {
			c.Email.Verified, c.RequestPasskey = row.v, row.w
			if !row.p {
				c.HashedPassword = ""
			}
			if row.i {
				c.IDPLinks = []domain.IDPLink{{ConfigID: "google", ExternalUserID: "1"}}
			}
		})
		for _, phone := range []string{"", "verified", "unverified"} {
			want := row.events
			switch phone {
			case "verified":
				cmd.Phone = &domain.Phone{Number: "+41791234567", Verified: true}
				if row.v {
					want = strings.Replace(want, "EmailVerified", "EmailVerified PhoneVerified", 1)
				} else {
					want = strings.Replace(want, "HumanAdded", "HumanAdded PhoneVerified", 1)
				}
			case "unverified":
				cmd.Phone = &domain.Phone{Number: "+41791234567"}
				if row.w {
					want = strings.Replace(want, passkey, "PhoneCodeAdded "+passkey, 1)
				} else {
					want += " PhoneCodeAdded"
				}
			}
			h, _ := normalise(t, cmd)
			d := h.Import(facts())
			u := domain.NewUser(d.Stream, d.Org, d.Events...)
			if got := types(d.Events); got != want {
				t.Errorf("%+v, phone %q:\n got %s\nwant %s", row, phone, got, want)
			}
			if u.State != row.state || u.EmailVerified != row.v || u.Sequence != int64(len(d.Events)) {
				t.Errorf("%+v, phone %q: state %d, verified %v, sequence %d", row, phone, u.State, u.EmailVerified, u.Sequence)
			}
			needs := h.Codes()
			for code, needed := range map[string]bool{
				domain.TypeInitializationCodeAdded: needs.Init, domain.TypeEmailCodeAdded: needs.Email,
				domain.TypePhoneCodeAdded: needs.Phone, domain.TypePasskeyRegistrationRequested: needs.Passkey,
			} {
				if strings.Contains(want, code) != needed {
					t.Errorf("%+v, phone %q: Codes does not foretell %s", row, phone, code)
				}
			}
		}
	}
}

// TestImportOfTheDocumentationExample has every field of the example on the
// API's documentation page, as it stands there.
func TestImportOfTheDocumentationExample(t *testing.T) {
	h, warnings := normalise(t, domain.ImportHuman{
		UserName: "minnie-mouse",
		Profile: domain.Profile{
			FirstName: "Minnie", LastName: "Mouse", NickName: "Mini", DisplayName: "Minnie Mouse",
			PreferredLanguage: "en", Gender: domain.GenderFemale,
		},
		Email:    domain.Email{Address: "minnie@mouse.com", Verified: true},
		Phone:    &domain.Phone{Number: "+41 71 000 00 00", Verified: true},
		Password: "string", HashedPassword: bcryptHash, ChangeRequired: true,
		RequestPasskey: true, TOTPSecret: "string",
		IDPLinks: []domain.IDPLink{{ConfigID: "idp-config-id", ExternalUserID: "idp-config-id", DisplayName: "minnie.mouse@gmail.com"}},
	})
	if len(warnings) != 1 || warnings[0].Field != "otpCode" {
		t.Errorf("warnings %v", warnings)
	}
	if h.NeedsHash() {
		t.Error("the plain password would be hashed")
	}
	want := domain.Decision{
		Stream: "01JQ", Org: "org1",
		Events: []domain.Event{
			domain.HumanAdded{
				UserName: "minnie-mouse", Email: "minnie@mouse.com", Phone: "+41710000000",
				Profile: domain.Profile{
					FirstName: "Minnie", LastName: "Mouse", NickName: "Mini", DisplayName: "Minnie Mouse",
					PreferredLanguage: "en", Gender: domain.GenderFemale,
				},
			},
			domain.EmailVerified{},
			domain.PhoneVerified{},
			domain.PasswordSet{Hash: bcryptHash, ChangeRequired: true, Format: "bcrypt"},
			domain.TOTPAdded{Secret: "STRIM"},
			domain.IDPLinked{ConfigID: "idp-config-id", ExternalUserID: "idp-config-id", DisplayName: "minnie.mouse@gmail.com"},
			domain.PasskeyRegistrationRequested{CodeID: "C1", Secret: "passkey0code", Lifetime: time.Hour, Issued: now.Truncate(time.Microsecond)},
		},
		Take: []domain.Claim{
			{Kind: "login_name", Value: "minnie-mouse"},
			{Kind: "idp_link", Scope: "idp-config-id", Value: "idp-config-id"},
		},
	}
	if diff := cmp.Diff(want, h.Import(facts())); diff != "" {
		t.Error(diff)
	}
}

// TestImportHasEverythingInOrder gives all that a command can hold.
func TestImportHasEverythingInOrder(t *testing.T) {
	h, _ := normalise(t, minimal(func(c *domain.ImportHuman) {
		c.UserID, c.ExternalID, c.State = "own-id", "ldap-7", domain.StateLocked
		c.Email.Verified = false
		c.Phone = &domain.Phone{Number: "+41791234567"}
		c.RequestPasskey, c.TOTPSecret = true, "GEZDGNBVGY3TQOJQ"
		c.IDPLinks = []domain.IDPLink{{ConfigID: "A", ExternalUserID: "İ1"}, {ConfigID: "a", ExternalUserID: "2"}}
		c.Metadata = []domain.Metadata{{Key: "k", Value: []byte("v")}, {Key: "l"}}
	}))
	d := h.Import(facts())
	want := "HumanAdded PasswordSet TOTPAdded IDPLinked IDPLinked MetadataSet EmailCodeAdded PhoneCodeAdded PasskeyRegistrationRequested UserLocked"
	if got := types(d.Events); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if d.Stream != "own-id" || d.Expected != 0 {
		t.Errorf("stream %q, expected %d", d.Stream, d.Expected)
	}
	u := domain.NewUser(d.Stream, d.Org, d.Events...)
	if u.State != domain.StateLocked || u.ExternalID != "ldap-7" || len(u.Metadata) != 2 {
		t.Errorf("%+v", u)
	}
	if diff := cmp.Diff([]domain.Claim{
		{Kind: "login_name", Value: "gigi"}, {Kind: "idp_link", Scope: "a", Value: "i1"}, {Kind: "idp_link", Scope: "a", Value: "2"},
	}, d.Take); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(d.Take, u.Claims()); diff != "" {
		t.Error("the user must own what the import took:", diff)
	}
}

func TestImportSilently(t *testing.T) {
	h, _ := normalise(t, minimal(func(c *domain.ImportHuman) { c.HashedPassword, c.Silent = "", true }))
	for _, e := range h.Import(facts()).Events {
		if c, ok := e.(domain.InitializationCodeAdded); ok {
			if !c.Silent || c.Secret != "INIT01" || c.Lifetime != 72*time.Hour || !c.Issued.Equal(now.Truncate(time.Microsecond)) {
				t.Errorf("%+v", c)
			}
			return
		}
	}
	t.Error("no initialization code")
}

// TestImportForV2 has no initialization code ever; the caller says what
// becomes of an address.
func TestImportForV2(t *testing.T) {
	phone := func(m domain.Verification, verified bool) *domain.Phone {
		return &domain.Phone{Number: "+41791234567", Mode: m, Verified: verified}
	}
	for _, c := range []struct {
		name   string
		email  domain.Email
		phone  *domain.Phone
		want   string
		silent bool
	}{
		{"send", domain.Email{Mode: domain.VerifySend, URLTemplate: "https://a/{{.Code}}"}, nil, "HumanAdded EmailCodeAdded", false},
		{"return", domain.Email{Mode: domain.VerifyReturn}, phone(domain.VerifyReturn, false), "HumanAdded EmailCodeAdded PhoneCodeAdded", true},
		{"none", domain.Email{Mode: domain.VerifyNone}, phone(domain.VerifyNone, false), "HumanAdded", false},
		{"verified", domain.Email{Mode: domain.VerifySend, Verified: true}, phone(domain.VerifySend, true), "HumanAdded EmailVerified PhoneVerified", false},
		{"phone sent", domain.Email{Mode: domain.VerifyNone}, phone(domain.VerifySend, false), "HumanAdded PhoneCodeAdded", false},
	} {
		h, _ := normalise(t, minimal(func(cmd *domain.ImportHuman) {
			cmd.HashedPassword = ""
			c.email.Address = "gigi@example.com"
			cmd.Email, cmd.Phone = c.email, c.phone
		}))
		d := h.Import(facts())
		if got := types(d.Events); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if u := domain.NewUser("1", "2", d.Events...); u.State != domain.StateActive {
			t.Errorf("%s: state %d", c.name, u.State)
		}
		for _, e := range d.Events {
			switch e := e.(type) {
			case domain.EmailCodeAdded:
				if e.Silent != c.silent || e.URLTemplate != c.email.URLTemplate || e.Secret != "MAIL01" {
					t.Errorf("%s: %+v", c.name, e)
				}
			case domain.PhoneCodeAdded:
				if e.Silent != c.silent || e.Secret != "PHON01" {
					t.Errorf("%s: %+v", c.name, e)
				}
			}
		}
	}
}

func TestImportTakesTheHashThatTheServiceMade(t *testing.T) {
	h, _ := normalise(t, minimal(func(c *domain.ImportHuman) {
		c.HashedPassword, c.Password, c.ChangeRequired = "", "Password1!", true
	}))
	if !h.NeedsHash() {
		t.Error("no hash is asked for")
	}
	want := domain.Event(domain.PasswordSet{Hash: "$argon2id$house", ChangeRequired: true, Format: "argon2id"})
	d := h.Import(facts())
	if diff := cmp.Diff(want, d.Events[2]); diff != "" {
		t.Error(diff)
	}
	for _, e := range d.Events {
		if data, personal := domain.Encode(e); bytes.Contains(data, []byte("Password1!")) || bytes.Contains(personal, []byte("Password1!")) {
			t.Errorf("%s holds the plain password", e.Type())
		}
	}
}

func TestClaimsFoldCase(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"gigi", " GIGI ", true}, {"jörg", "JÖRG", true}, {"ΣΑΣ", "σας", false}, {"İ", "i", true},
		{"ß", "ss", false}, {"e\u0301", "\u00e9", false}, {"a", "b", false},
	} {
		if same := domain.LoginNameClaim(c.a) == domain.LoginNameClaim(c.b); same != c.same {
			t.Errorf("%q and %q: same = %v", c.a, c.b, same)
		}
	}
	if domain.IDPLinkClaim("a", "bc") == domain.IDPLinkClaim("ab", "c") {
		t.Error("provider and id run together")
	}
	if domain.IDPLinkClaim("A", "B") != domain.IDPLinkClaim("a", "b") {
		t.Error("links are told apart by case")
	}
	if err := domain.LoginNameClaim("a").ConflictError(); !errors.Is(err, domain.ErrUserExists) || err.Message != "User already exists" {
		t.Error(err)
	}
	if err := domain.IDPLinkClaim("a", "b").ConflictError(); err.Message != "External IDP already taken" || err.Kind != domain.KindAlreadyExists {
		t.Error(err)
	}
}

func TestCodesHaveTheWiresForm(t *testing.T) {
	const upperDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for name, c := range map[string]struct {
		spec domain.CodeSpec
		want domain.CodeSpec
	}{
		"initialization": {domain.InitializationCode, domain.CodeSpec{Length: 6, Alphabet: upperDigits, Lifetime: 72 * time.Hour}},
		"e-mail":         {domain.EmailCode, domain.CodeSpec{Length: 6, Alphabet: upperDigits, Lifetime: time.Hour}},
		"phone":          {domain.PhoneCode, domain.CodeSpec{Length: 6, Alphabet: upperDigits, Lifetime: time.Hour}},
		"passkey":        {domain.PasskeyCode, domain.CodeSpec{Length: 12, Alphabet: "abcdefghijklmnopqrstuvwxyz" + upperDigits, Lifetime: time.Hour}},
	} {
		if c.spec != c.want {
			t.Errorf("%s: %+v", name, c.spec)
		}
		code, err := domain.NewCode(rand.Reader, c.spec)
		if err != nil || len(code.Secret) != c.spec.Length || code.Lifetime != c.spec.Lifetime || strings.Trim(code.Secret, c.spec.Alphabet) != "" {
			t.Errorf("%s: %+v, %v", name, code, err)
		}
	}
}

// TestCodesAreUniform feeds bytes in order: every character of the alphabet,
// the last one too, comes out equally often, and the four bytes left over at
// the top of the range are thrown away.
func TestCodesAreUniform(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i - 4) // 252 to 255, which would favour some characters, come first
	}
	spec := domain.CodeSpec{Length: 72, Alphabet: domain.InitializationCode.Alphabet}
	code, err := domain.NewCode(bytes.NewReader(all), spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range spec.Alphabet {
		if n := strings.Count(code.Secret, string(c)); n != 2 {
			t.Errorf("%c occurs %d times, want 2", c, n)
		}
	}
	if _, err := domain.NewCode(bytes.NewReader(all[:40]), domain.CodeSpec{Length: 41, Alphabet: "ab"}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that ends: %v", err)
	}
}

func TestPasskeyLink(t *testing.T) {
	got := domain.PasskeyLink("https://muster.example", "u1", "o1", domain.Code{ID: "c1", Secret: "s1"})
	if want := "https://muster.example/ui/login/login/passwordless/init?userID=u1&orgID=o1&codeID=c1&code=s1"; got != want {
		t.Errorf("%s", got)
	}
}

func benchmarkImport(b *testing.B, cmd domain.ImportHuman) {
	policy, f := domain.DefaultPolicy(), facts()
	b.ReportAllocs()
	for b.Loop() {
		h, _, err := cmd.Normalise(policy)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range h.Import(f).Events {
			domain.Encode(e)
		}
	}
}

func BenchmarkImportHashed(b *testing.B) {
	benchmarkImport(b, minimal(func(c *domain.ImportHuman) { c.Profile.PreferredLanguage = "de-CH" }))
}

func BenchmarkImportHashedWithPhone(b *testing.B) {
	benchmarkImport(b, minimal(func(c *domain.ImportHuman) {
		c.Profile.PreferredLanguage = "de"
		c.Phone = &domain.Phone{Number: "+41 79 123 45 67", Verified: true}
	}))
}
