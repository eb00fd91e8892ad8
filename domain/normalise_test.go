package domain_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/language"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
)

const bcryptHash = "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"

// minimal is a command that has what every import needs, and a way in.
func minimal(change ...func(*domain.ImportHuman)) domain.ImportHuman {
	c := domain.ImportHuman{
		UserName:       "gigi",
		Profile:        domain.Profile{FirstName: "Gigi", LastName: "Giraffe"},
		Email:          domain.Email{Address: "gigi@example.com", Verified: true},
		HashedPassword: bcryptHash,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func normalise(t testing.TB, c domain.ImportHuman) (domain.Human, []domain.Warning) {
	t.Helper()
	h, w, err := c.Normalise(domain.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	return h, w
}

func TestNormaliseRefuses(t *testing.T) {
	type C = domain.ImportHuman
	long := strings.Repeat("ä", 201)
	link := func(config, id, name string) func(*C) {
		return func(c *C) {
			c.IDPLinks = append(c.IDPLinks, domain.IDPLink{ConfigID: config, ExternalUserID: id, DisplayName: name})
		}
	}
	email := func(s string) func(*C) { return func(c *C) { c.Email.Address = s } }
	phone := func(s string) func(*C) { return func(c *C) { c.Phone = &domain.Phone{Number: s} } }
	plain := func(s string) func(*C) { return func(c *C) { c.HashedPassword, c.Password = "", s } }
	totp := func(s string) func(*C) { return func(c *C) { c.TOTPSecret = s } }
	userID := func(s string) func(*C) { return func(c *C) { c.UserID = s } }
	meta := func(key string, n int) func(*C) {
		return func(c *C) { c.Metadata = append(c.Metadata, domain.Metadata{Key: key, Value: make([]byte, n)}) }
	}
	with := func(fs ...func(*C)) func(*C) {
		return func(c *C) {
			for _, f := range fs {
				f(c)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*C)
		kind   domain.Kind
		id     string
		field  string
	}{
		{"no user name", func(c *C) { c.UserName = "" }, 3, "COMMAND-00p2b", "userName"},
		{"user name of blanks", func(c *C) { c.UserName = " \t\u00a0 " }, 3, "COMMAND-00p2b", "userName"},
		{"long user name", func(c *C) { c.UserName = long }, 3, "MUSTER-length", "userName"},
		{"NUL in user name", func(c *C) { c.UserName = "a\x00b" }, 3, "MUSTER-text", "userName"},
		{"bad UTF-8 in user name", func(c *C) { c.UserName = "a\xff" }, 3, "MUSTER-text", "userName"},
		{"no first name", func(c *C) { c.Profile.FirstName = "" }, 3, "PROFILE-RF5z2", "profile.firstName"},
		{"first name of blanks, trimmed", func(c *C) { c.Profile.FirstName, c.TrimNames = " ", true }, 3, "PROFILE-RF5z2", "profile.firstName"},
		{"no last name", func(c *C) { c.Profile.LastName = "" }, 3, "PROFILE-DSUkN", "profile.lastName"},
		{"long first name", func(c *C) { c.Profile.FirstName = long }, 3, "MUSTER-length", "profile.firstName"},
		{"long last name", func(c *C) { c.Profile.LastName = long }, 3, "MUSTER-length", "profile.lastName"},
		{"long nick name", func(c *C) { c.Profile.NickName = long }, 3, "MUSTER-length", "profile.nickName"},
		{"long display name", func(c *C) { c.Profile.DisplayName = long }, 3, "MUSTER-length", "profile.displayName"},
		{"NUL in nick name", func(c *C) { c.Profile.NickName = "é\x00" }, 3, "MUSTER-text", "profile.nickName"},
		{"no e-mail", email(""), 3, "EMAIL-spblu", "email.email"},
		{"e-mail of blanks", email("  "), 3, "EMAIL-spblu", "email.email"},
		{"e-mail without @", email("gigi"), 3, "EMAIL-599BI", "email.email"},
		{"e-mail with two @", email("gigi@a@b"), 3, "EMAIL-599BI", "email.email"},
		{"e-mail with a blank", email("gi gi@example.com"), 3, "EMAIL-599BI", "email.email"},
		{"e-mail with a comment", email("gigi@example.com (Gigi)"), 3, "EMAIL-599GV", "email.email"},
		{"e-mail in brackets", email("<gigi@example.com>"), 3, "EMAIL-599BI", "email.email"},
		{"e-mail with a display name", email("Gigi <gigi@example.com>"), 3, "EMAIL-599GV", "email.email"},
		{"e-mail with a new line", email("gigi@example.com\r\nBcc: a@b"), 3, "EMAIL-599BI", "email.email"},
		{"long local part", email(strings.Repeat("a", 65) + "@example.com"), 3, "EMAIL-599BI", "email.email"},
		{"long e-mail", email("a@" + strings.Repeat("b", 253)), 3, "EMAIL-599BI", "email.email"},
		{"NUL in e-mail", email("a\x00@b"), 3, "MUSTER-text", "email.email"},
		{"phone empty", phone(""), 3, "PHONE-Zt0NV", "phone.phone"},
		{"phone +", phone("+"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone +0", phone("+0"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone +1", phone("+1"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone +abc", phone("+abc"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone with a zero before the country", phone("+0120123456"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone of no country", phone("+999999999999"), 3, "PHONE-so0wa", "phone.phone"},
		{"phone of 21 digits", phone("+417912345678901234567"), 3, "PHONE-so0wa", "phone.phone"},
		{"NUL in phone", phone("+41791234567\x00"), 3, "MUSTER-text", "phone.phone"},
		{"long phone", phone("+" + strings.Repeat("1", 200)), 3, "MUSTER-length", "phone.phone"},
		{"password too short", plain("string"), 3, "DOMAIN-HuJf6", "password"},
		{"password too short, in bytes not runes", plain("Aa1ä"), 3, "DOMAIN-HuJf6", "password"},
		{"password without lower case", plain("PASSWORD"), 3, "DOMAIN-co3Xw", "password"},
		{"password without upper case", plain("password"), 3, "DOMAIN-VoaRj", "password"},
		{"password without number", plain("Password"), 3, "DOMAIN-ZBv4H", "password"},
		{"password without symbol", plain("Password1"), 3, "DOMAIN-ZDLwA", "password"},
		{"password with NUL", plain("Password1!\x00"), 3, "MUSTER-text", "password"},
		{"password that nobody could verify", plain("Password1!" + strings.Repeat("ä", 2044)), 3, "MUSTER-length", "password"},
		{"hash of nothing known", func(c *C) { c.HashedPassword = "garbage" }, 3, "USER-JDk4t", "hashedPassword.value"},
		{"hash that costs too much", func(c *C) { c.HashedPassword = "$2y$31$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm" }, 3, "USER-JDk4t", "hashedPassword.value"},
		{"hash with NUL", func(c *C) { c.HashedPassword += "\x00" }, 3, "USER-JDk4t", "hashedPassword.value"},
		{"link without provider", link("", "1", ""), 3, "COMMAND-6m9Kd", "idps[0].configId"},
		{"link without id", with(link("a", "1", ""), link("a", "", "")), 3, "COMMAND-6m9Kd", "idps[1].externalUserId"},
		{"link with a long name", link("a", "1", long), 3, "MUSTER-length", "idps[0].displayName"},
		{"link with a long id", link("a", long, ""), 3, "MUSTER-length", "idps[0].externalUserId"},
		{"link with a long provider", link(long, "1", ""), 3, "MUSTER-length", "idps[0].configId"},
		{"link with NUL", link("a", "\x00", ""), 3, "MUSTER-text", "idps[0].externalUserId"},
		{"link twice", with(link("a", "Id", ""), link("b", "Id", ""), link("a", "iD", "x")), 6, "V3-DKcYh", "idps[2].externalUserId"},
		{"TOTP not base32", totp("otp-code"), 3, "MUSTER-totp", "otpCode"},
		{"TOTP of digits that base32 lacks", totp("GEZDGNBV1"), 3, "MUSTER-totp", "otpCode"},
		{"TOTP of one character", totp("x"), 3, "MUSTER-totp", "otpCode"},
		{"TOTP of padding", totp("===="), 3, "MUSTER-totp", "otpCode"},
		{"TOTP with padding within", totp("GE==ZDGN"), 3, "MUSTER-totp", "otpCode"},
		{"TOTP URI without secret", totp("otpauth://totp/a"), 3, "MUSTER-totp", "otpCode"},
		{"TOTP URI that is none", totp("otpauth://%zz"), 3, "MUSTER-totp", "otpCode"},
		{"HOTP URI", totp("otpauth://hotp/a?secret=GEZDGNBVGY3TQOJQ&counter=1"), 3, "MUSTER-totpkind", "otpCode"},
		{"TOTP URI with SHA-256", totp("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ&algorithm=SHA256"), 3, "MUSTER-totpkind", "otpCode"},
		{"TOTP URI with 8 digits", totp("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ&digits=8"), 3, "MUSTER-totpkind", "otpCode"},
		{"TOTP URI with 60 s", totp("otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ&period=60"), 3, "MUSTER-totpkind", "otpCode"},
		{"long TOTP", totp(strings.Repeat("A", 2049)), 3, "MUSTER-totp", "otpCode"},
		{"metadata without key", meta("", 1), 3, "MUSTER-metakey", "metadata[0].key"},
		{"metadata with a long key", with(meta("a", 1), meta(long, 1)), 3, "MUSTER-metakey", "metadata[1].key"},
		{"metadata with NUL in the key", meta("a\x00", 1), 3, "MUSTER-text", "metadata[0].key"},
		{"metadata too big", meta("a", 500_001), 3, "MUSTER-metavalue", "metadata[0].value"},
		{"state deleted", func(c *C) { c.State = domain.StateDeleted }, 3, "MUSTER-state", "state"},
		{"state unknown", func(c *C) { c.State = 99 }, 3, "MUSTER-state", "state"},
		{"long external id", func(c *C) { c.ExternalID = strings.Repeat("x", 1001) }, 3, "MUSTER-length", "externalId"},
		{"NUL in external id", func(c *C) { c.ExternalID = "\x00" }, 3, "MUSTER-text", "externalId"},
		{"long user id", userID(long), 3, "MUSTER-length", "userId"},
		{"user id of the service", userID("$org-1"), 3, "MUSTER-userid", "userId"},
		{"user id with a control character", userID("a\nb"), 3, "MUSTER-userid", "userId"},
		{"NUL in user id", userID("a\x00b"), 3, "MUSTER-text", "userId"},
		{"long link template", func(c *C) { c.Email.URLTemplate = strings.Repeat("x", 2001) }, 3, "MUSTER-length", "email.urlTemplate"},

		// The first broken rule is told, in the wire's order.
		{"everything is wrong", func(c *C) { *c = C{Password: "a", Phone: &domain.Phone{}} }, 3, "COMMAND-00p2b", "userName"},
		{"name, then e-mail", with(func(c *C) { c.Profile.LastName = "" }, email("x")), 3, "PROFILE-DSUkN", "profile.lastName"},
		{"e-mail, then phone", with(email("x"), phone("+")), 3, "EMAIL-599BI", "email.email"},
		{"phone, then password", with(phone("+"), plain("a")), 3, "PHONE-so0wa", "phone.phone"},
		{"password, then links", with(plain("a"), link("", "", "")), 3, "DOMAIN-HuJf6", "password"},
		{"links, then TOTP", with(link("", "", ""), totp("1")), 3, "COMMAND-6m9Kd", "idps[0].configId"},
		{"e-mail as user name is bad", func(c *C) { c.UserName, c.UserNameFallback, c.Email.Address = "", true, "x" }, 3, "EMAIL-599BI", "email.email"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, w, err := minimal(c.change).Normalise(domain.DefaultPolicy())
			var e *domain.Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %v", err)
			}
			if e.Kind != c.kind || e.ID != c.id || e.Field != c.field {
				t.Errorf("got kind %d, id %q, field %q; want %d, %q, %q", e.Kind, e.ID, e.Field, c.kind, c.id, c.field)
			}
			if diff := cmp.Diff(domain.Human{}, h); diff != "" || w != nil {
				t.Errorf("something came with the error: %v %s", w, diff)
			}
		})
	}
}

func TestNormaliseTellsTheWiresTexts(t *testing.T) {
	for err, text := range map[*domain.Error]string{
		domain.ErrUserNameEmpty:    "Username is empty (COMMAND-00p2b)",
		domain.ErrFirstNameEmpty:   "First name in profile is empty (PROFILE-RF5z2)",
		domain.ErrLastNameEmpty:    "Last name in profile is empty (PROFILE-DSUkN)",
		domain.ErrEmailEmpty:       "Email is empty (EMAIL-spblu)",
		domain.ErrEmailInvalid:     "Email is invalid (EMAIL-599BI)",
		domain.ErrPhoneInvalid:     "Phone is invalid (PHONE-so0wa)",
		domain.ErrIDPLinkInvalid:   "External IDP invalid (COMMAND-6m9Kd)",
		domain.ErrIDPConfigUnknown: "Identity Provider Configuration doesn't exist (COMMAND-39nfs)",
		domain.ErrIDPLinkTaken:     "External IDP already taken (V3-DKcYh)",
		domain.ErrUserExists:       "User already exists (V3-DKcYh)",
		domain.ErrCodeInvalid:      "Code is invalid (COMMAND-11v6G)",
	} {
		if err.Error() != text {
			t.Errorf("%q, want %q", err, text)
		}
	}
}

func TestPhones(t *testing.T) {
	for in, want := range map[string]string{
		"+41 71 000 00 00":       "+41710000000",
		"+4179123":               "+4179123",
		"+1-800-FLOWERS":         "+18003569377",
		"+49 (0)30 123456":       "+4930123456",
		"+41 79 123 45 67 ext 3": "+41791234567",
		"+41791234567x3":         "+41791234567",
		" +41 79 123-45-67 ":     "+41791234567",
		"+41 079 123 45 67":      "+41791234567",
		"+390612345678":          "+390612345678",
		"+1 1 800 356 9377":      "+18003569377",
		"0791234567":             "+41791234567",
		"+４１７９１２３４５６７":           "+41791234567",
	} {
		got, err := domain.NormalisePhone(in)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// TestPhonesAgreeWithTheLibrary draws numbers of all countries, right and
// wrong, with and without separators: what is decided without the library is
// what the library says.
func TestPhonesAgreeWithTheLibrary(t *testing.T) {
	var codes []int
	for code := range phonenumbers.GetSupportedCallingCodes() {
		codes = append(codes, code)
	}
	check := func(t interface{ Fatalf(string, ...any) }, s string) {
		want := ""
		if n, err := phonenumbers.Parse(s, "CH"); err == nil {
			want = phonenumbers.Format(n, phonenumbers.E164)
		}
		if got, _ := domain.NormalisePhone(s); got != want {
			t.Fatalf("%q: %q; the library says %q", s, got, want)
		}
	}
	for _, code := range codes {
		for d := '0'; d <= '9'; d++ {
			for _, rest := range []string{"", "0", "1", "00", "23456", "12345678", "0123456789", "9876543210", "12345678901234", "1234567890123456"} {
				check(t, "+"+strconv.Itoa(code)+string(d)+rest)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		number := "+"
		if rapid.Bool().Draw(t, "known") {
			number += strconv.Itoa(rapid.SampledFrom(codes).Draw(t, "code"))
		}
		number += rapid.StringMatching(`[0-9]{0,18}`).Draw(t, "digits")
		b := []byte{number[0]}
		for i := 1; i < len(number); i++ {
			b = append(b, number[i])
			b = append(b, rapid.SampledFrom([]string{"", "", "", "", " ", "-", "  ", " - "}).Draw(t, "separator")...)
		}
		check(t, strings.TrimSpace(string(b)))
	})
}

func TestLanguages(t *testing.T) {
	for in, want := range map[string]string{
		"": "und", "und": "und", "not valid": "und", "english": "und", "xx": "und", "zz": "und", "C": "und",
		"en": "en", "EN": "en", "en-": "en", "de_CH": "de-CH", "de-CH": "de-CH", "fr-FRA": "fr", "iw": "he",
		"zh-Hans-CN": "zh-Hans-CN", "en_US.UTF-8": "en", strings.Repeat("x", 36): "und", "\x00": "und", "\xff": "und",
	} {
		h, warnings := normalise(t, minimal(func(c *domain.ImportHuman) { c.Profile.PreferredLanguage = in }))
		if got := h.Profile.PreferredLanguage; got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		warned := len(warnings) == 1 && warnings[0].Field == "profile.preferredLanguage"
		if should := want == "und" && in != "" && in != "und"; warned != should || len(warnings) > 1 {
			t.Errorf("%q: warnings %v", in, warnings)
		}
	}
}

// TestLanguagesOfTwoLetters: the short way is the long one's.
func TestLanguagesOfTwoLetters(t *testing.T) {
	short := 0
	for a := range 1 << 16 {
		in := string([]byte{byte(a >> 8), byte(a)})
		tag, err := language.Parse(in)
		want := tag.String()
		if want == in && err == nil {
			short++
		}
		h, _ := normalise(t, minimal(func(c *domain.ImportHuman) { c.Profile.PreferredLanguage = in }))
		if got := h.Profile.PreferredLanguage; got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if short < 150 {
		t.Errorf("only %d languages", short)
	}
}

func TestNormaliseBringsIntoForm(t *testing.T) {
	type C = domain.ImportHuman
	type H = domain.Human
	base, _ := normalise(t, minimal())
	if want := (H{
		UserName:     "gigi",
		Profile:      domain.Profile{FirstName: "Gigi", LastName: "Giraffe", DisplayName: "Gigi Giraffe", PreferredLanguage: "und"},
		Email:        domain.Email{Address: "gigi@example.com", Verified: true},
		PasswordHash: bcryptHash, PasswordFormat: "bcrypt",
	}); !cmp.Equal(want, base) {
		t.Fatal(cmp.Diff(want, base))
	}
	for _, c := range []struct {
		name     string
		in       func(*C)
		want     func(*H)
		warnings []string
	}{
		{"user name is trimmed", func(c *C) { c.UserName = "  Gigi " }, func(h *H) { h.UserName = "Gigi" }, nil},
		{"user name of 200 characters", func(c *C) { c.UserName = strings.Repeat("ä", 200) }, func(h *H) { h.UserName = strings.Repeat("ä", 200) }, nil},
		{"user name falls back", func(c *C) { c.UserName, c.UserNameFallback = " ", true }, func(h *H) { h.UserName = "gigi@example.com" }, nil},
		{"user name does not fall back when given", func(c *C) { c.UserNameFallback = true }, func(*H) {}, nil},
		{"names are not trimmed", func(c *C) { c.Profile.FirstName, c.Profile.NickName = " Gigi ", " " }, func(h *H) {
			h.Profile.FirstName, h.Profile.NickName, h.Profile.DisplayName = " Gigi ", " ", " Gigi  Giraffe"
		}, nil},
		{"names are trimmed for v2", func(c *C) { c.Profile.FirstName, c.Profile.NickName, c.TrimNames = " Gigi ", " ", true }, func(*H) {}, nil},
		{"display name is kept", func(c *C) { c.Profile.DisplayName = "G" }, func(h *H) { h.Profile.DisplayName = "G" }, nil},
		{"gender", func(c *C) { c.Profile.Gender = domain.GenderDiverse }, func(h *H) { h.Profile.Gender = domain.GenderDiverse }, nil},
		{"gender unknown", func(c *C) { c.Profile.Gender = 4 }, func(*H) {}, nil},
		{"gender negative", func(c *C) { c.Profile.Gender = -1 }, func(*H) {}, nil},
		{"e-mail is trimmed, case kept", func(c *C) { c.Email.Address = " Gigi@Example.com " }, func(h *H) { h.Email.Address = "Gigi@Example.com" }, nil},
		{"e-mail without top level domain", func(c *C) { c.Email.Address = "a@b" }, func(h *H) { h.Email.Address = "a@b" }, nil},
		{"e-mail beyond ASCII", func(c *C) { c.Email.Address = "jörg@bücher.example" }, func(h *H) { h.Email.Address = "jörg@bücher.example" }, nil},
		{"local part of 64", func(c *C) { c.Email.Address = strings.Repeat("a", 64) + "@b" }, func(h *H) { h.Email.Address = strings.Repeat("a", 64) + "@b" }, nil},
		{"phone", func(c *C) { c.Phone = &domain.Phone{Number: "+41 79 123 45 67", Verified: true} }, func(h *H) { h.Phone = &domain.Phone{Number: "+41791234567", Verified: true} }, nil},
		{"plain password", func(c *C) { c.HashedPassword, c.Password, c.ChangeRequired = "", "Password1!", true }, func(h *H) {
			h.PasswordHash, h.PasswordFormat, h.Password, h.ChangeRequired = "", "", "Password1!", true
		}, nil},
		{"plain password beside a hash is dropped unseen", func(c *C) { c.Password = "a\x00" }, func(*H) {}, nil},
		{"change required with a hash is honoured", func(c *C) { c.ChangeRequired = true }, func(h *H) { h.ChangeRequired = true }, nil},
		{"change required without password is dropped", func(c *C) { c.HashedPassword, c.ChangeRequired = "", true }, func(h *H) { h.PasswordHash, h.PasswordFormat = "", "" }, []string{"passwordChangeRequired"}},
		{"weak hash", func(c *C) { c.HashedPassword = "5f4dcc3b5aa765d61d8327deb882cf99" }, func(h *H) {
			h.PasswordHash, h.PasswordFormat, h.PasswordWeak = "5f4dcc3b5aa765d61d8327deb882cf99", "md5", true
		}, []string{"hashedPassword.value"}},
		{"TOTP", func(c *C) { c.TOTPSecret = " nnrv i33u obJWKY3SMV2DAMJSGM2DKNTY " }, func(h *H) { h.TOTPSecret = "NNRVI33UOBJWKY3SMV2DAMJSGM2DKNTY" }, nil},
		{"TOTP with padding", func(c *C) { c.TOTPSecret = "GEZDGNBVGY3TQOJQGE======" }, func(h *H) { h.TOTPSecret = "GEZDGNBVGY3TQOJQGE" }, nil},
		{"TOTP with bits to spare", func(c *C) { c.TOTPSecret = "GEZDGNBVGY3TQOJQGEB" }, func(h *H) { h.TOTPSecret = "GEZDGNBVGY3TQOJQGE" }, nil},
		{"TOTP too short", func(c *C) { c.TOTPSecret = "string" }, func(h *H) { h.TOTPSecret = "STRIM" }, []string{"otpCode"}},
		{"TOTP URI", func(c *C) { c.TOTPSecret = "otpauth://totp/D:gu?secret=NNRVI33UOBJWKY3SMV2DAMJSGM2DKNTY&issuer=D" }, func(h *H) { h.TOTPSecret = "NNRVI33UOBJWKY3SMV2DAMJSGM2DKNTY" }, nil},
		{"TOTP URI, all parameters", func(c *C) {
			c.TOTPSecret = "OTPAUTH://TOTP/D?secret=nnrvi33uobjwky3smv2damjsgm2dknty&algorithm=sha1&digits=6&period=30"
		}, func(h *H) { h.TOTPSecret = "NNRVI33UOBJWKY3SMV2DAMJSGM2DKNTY" }, nil},
		{"metadata", func(c *C) {
			c.Metadata = []domain.Metadata{{Key: "a", Value: make([]byte, 500_000)}, {Key: "b"}}
		}, func(h *H) { h.Metadata = []domain.Metadata{{Key: "a", Value: make([]byte, 500_000)}, {Key: "b"}} }, nil},
		{"metadata key twice", func(c *C) {
			c.Metadata = []domain.Metadata{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "a", Value: []byte("2")}}
		}, func(h *H) { h.Metadata = []domain.Metadata{{Key: "a", Value: []byte("2")}, {Key: "b"}} }, []string{"metadata[2].key"}},
		{"links", func(c *C) {
			c.IDPLinks = []domain.IDPLink{{ConfigID: "a", ExternalUserID: "1"}, {ConfigID: "b", ExternalUserID: "1"}}
		}, func(h *H) {
			h.IDPLinks = []domain.IDPLink{{ConfigID: "a", ExternalUserID: "1"}, {ConfigID: "b", ExternalUserID: "1"}}
		}, nil},
		{"state active", func(c *C) { c.State = domain.StateActive }, func(*H) {}, nil},
		{"state initial", func(c *C) { c.State = domain.StateInitial }, func(*H) {}, nil},
		{"state inactive", func(c *C) { c.State = domain.StateInactive }, func(h *H) { h.State = domain.StateInactive }, nil},
		{"ids", func(c *C) { c.UserID, c.ExternalID = "163840776835432705", "auth0|1" }, func(h *H) { h.UserID, h.ExternalID = "163840776835432705", "auth0|1" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, warnings := normalise(t, minimal(c.in))
			want := base
			c.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			var fields []string
			for _, w := range warnings {
				fields = append(fields, w.Field)
				if w.Text == "" {
					t.Errorf("a warning about %s says nothing", w.Field)
				}
			}
			if diff := cmp.Diff(c.warnings, fields); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPolicies(t *testing.T) {
	v2 := domain.DefaultPolicy()
	v2.PasswordIDPrefix = "COMMA-"
	lax := domain.Policy{MinLength: 3}
	some := domain.DefaultPolicy()
	some.IDPConfigs = []string{"a", "b"}
	none := domain.DefaultPolicy()
	none.IDPConfigs = []string{}
	plain := func(s string) domain.ImportHuman {
		return minimal(func(c *domain.ImportHuman) { c.HashedPassword, c.Password = "", s })
	}
	link := func(id string) domain.ImportHuman {
		return minimal(func(c *domain.ImportHuman) { c.IDPLinks = []domain.IDPLink{{ConfigID: id, ExternalUserID: "1"}} })
	}
	for _, c := range []struct {
		name   string
		policy domain.Policy
		cmd    domain.ImportHuman
		id     string
	}{
		{"v2's ids", v2, plain("string"), "COMMA-HuJf6"},
		{"import's ids", domain.Policy{MinLength: 8}, plain("string"), "DOMAIN-HuJf6"},
		{"a lax policy", lax, plain("aaa"), ""},
		{"a good password", v2, plain("Password1!"), ""},
		{"a letter beyond ASCII is a symbol", v2, plain("Passwörd1"), ""},
		{"a provider of the list", some, link("b"), ""},
		{"a provider not on the list", some, link("c"), "COMMAND-39nfs"},
		{"an empty list", none, link("a"), "COMMAND-39nfs"},
	} {
		_, _, err := c.cmd.Normalise(c.policy)
		id := ""
		if e := (*domain.Error)(nil); errors.As(err, &e) {
			id = e.ID
			if id == "COMMAND-39nfs" && (e.Kind != domain.KindFailedPrecondition || e.Field != "idps[0].configId") {
				t.Errorf("%s: %+v", c.name, e)
			}
		}
		if id != c.id {
			t.Errorf("%s: %q, want %q", c.name, id, c.id)
		}
	}
}

// TestNormaliseNeverPanicsAndLeavesTheCommandAlone feeds anything, and looks
// for what PostgreSQL could not hold.
func TestNormaliseNeverPanicsAndKeepsOutWhatPostgreSQLCannotHold(t *testing.T) {
	anyText := rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "bytes")) + rapid.SampledFrom([]string{"", "a@b.c", "x"}).Draw(t, "end")
	})
	rapid.Check(t, func(t *rapid.T) {
		c := domain.ImportHuman{
			UserID: anyText.Draw(t, "userID"), UserName: anyText.Draw(t, "userName"),
			Profile: domain.Profile{
				FirstName: anyText.Draw(t, "first"), LastName: anyText.Draw(t, "last"), NickName: anyText.Draw(t, "nick"),
				DisplayName: anyText.Draw(t, "display"), PreferredLanguage: anyText.Draw(t, "language"),
			},
			Email:          domain.Email{Address: rapid.SampledFrom([]string{"a@b", anyText.Draw(t, "email")}).Draw(t, "email")},
			HashedPassword: rapid.SampledFrom([]string{"", bcryptHash, anyText.Draw(t, "hash")}).Draw(t, "hash"),
			TOTPSecret:     rapid.SampledFrom([]string{"", anyText.Draw(t, "totp")}).Draw(t, "totp"),
			ExternalID:     anyText.Draw(t, "external"),
		}
		h, _, err := c.Normalise(domain.DefaultPolicy())
		if err != nil {
			return
		}
		for _, s := range []string{
			h.UserID, h.UserName, h.Profile.FirstName, h.Profile.LastName, h.Profile.NickName, h.Profile.DisplayName,
			h.Profile.PreferredLanguage, h.Email.Address, h.PasswordHash, h.TOTPSecret, h.ExternalID,
		} {
			if strings.ContainsRune(s, 0) || strings.ToValidUTF8(s, "") != s {
				t.Fatalf("%q came through", s)
			}
		}
	})
}
