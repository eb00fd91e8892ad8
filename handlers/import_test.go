package handlers_test

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muster-id/muster/handlers/access"
	managementv1 "github.com/muster-id/muster/proto/zitadel/management/v1"
)

const (
	importPath      = "/management/v1/users/human/_import"
	importProcedure = "/zitadel.management.v1.ManagementService/ImportHumanUser"
)

// example is the documentation page's request, verbatim.
const example = `{
  "userName": "minnie-mouse",
  "profile": {
    "firstName": "Minnie",
    "lastName": "Mouse",
    "nickName": "Mini",
    "displayName": "Minnie Mouse",
    "preferredLanguage": "en",
    "gender": "GENDER_FEMALE"
  },
  "email": {
    "email": "minnie@mouse.com",
    "isEmailVerified": true
  },
  "phone": {
    "phone": "+41 71 000 00 00",
    "isPhoneVerified": true
  },
  "password": "string",
  "hashedPassword": {
    "value": "$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"
  },
  "passwordChangeRequired": true,
  "requestPasswordlessRegistration": true,
  "otpCode": "string",
  "idps": [
    {
      "configId": "idp-config-id",
      "externalUserId": "idp-config-id",
      "displayName": "minnie.mouse@gmail.com"
    }
  ]
}`

func TestTheDocumentationPagesExample(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	before := time.Now().Add(-time.Minute)
	a := s.rest(t, "POST", importPath, example)
	if a.HTTP != http.StatusOK {
		t.Fatalf("%d: %s", a.HTTP, a.Body)
	}
	details := a.raw["details"].(map[string]any)
	if details["sequence"] != "7" || details["resourceOwner"] != "org-1" || details["creationDate"] != details["changeDate"] {
		t.Errorf("details: %v", details)
	}
	if at, err := time.Parse(time.RFC3339Nano, details["creationDate"].(string)); err != nil || at.Before(before) || !strings.HasSuffix(details["creationDate"].(string), "Z") {
		t.Errorf("creationDate: %v, %v", details["creationDate"], err)
	}
	id := a.raw["userId"].(string)
	link := a.raw["passwordlessRegistration"].(map[string]any)
	want := regexp.MustCompile(`^` + regexp.QuoteMeta(s.url) + `/ui/login/login/passwordless/init\?userID=` + id + `&orgID=org-1&codeID=[0-9A-Z]{26}&code=[a-zA-Z0-9]{12}$`)
	if !want.MatchString(link["link"].(string)) || link["lifetime"] != "3600s" || link["expiration"] != "3600s" {
		t.Errorf("passwordlessRegistration: %v", link)
	}
	// Two organisations came before: each is an event.
	if got := a.Header.Get("Muster-Position"); got != "9" {
		t.Errorf("Muster-Position %q", got)
	}
	if got, want := a.Header.Get("Muster-Position-Token"), s.store.LogID().String()+".1.9"; got != want {
		t.Errorf("Muster-Position-Token %q, want %q", got, want)
	}
	events, err := s.store.ReadStream(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
		if e.Actor != access.AdminID || e.Org != "org-1" {
			t.Errorf("%s: actor %q, organisation %q", e.Type, e.Actor, e.Org)
		}
	}
	if got, want := strings.Join(types, " "), "HumanAdded EmailVerified PhoneVerified PasswordSet TOTPAdded IDPLinked PasskeyRegistrationRequested"; got != want {
		t.Errorf("events %s\nwant   %s", got, want)
	}
}

// body is a request that differs from a plain good one in some fields; a nil
// value leaves the field out. Each has its own user name unless it gives one.
func body(changes map[string]string) string {
	fields := map[string]string{
		"userName": fmt.Sprintf("%q", "user-"+unique()),
		"profile":  `{"firstName":"Minnie","lastName":"Mouse"}`,
		"email":    `{"email":"minnie@mouse.com","isEmailVerified":true}`,
	}
	maps.Copy(fields, changes)
	var parts []string
	for name, value := range fields {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

var uniqueNumbers = make(chan int)

func init() {
	go func() {
		for n := 1; ; n++ {
			uniqueNumbers <- n
		}
	}()
}

func unique() string { return fmt.Sprint(<-uniqueNumbers) }

// with is one changed field.
func with(name, value string) map[string]string { return map[string]string{name: value} }

// padded is a text of n runes that no other call returns.
func padded(n int) string {
	text := unique()
	return text + strings.Repeat("ü", n-len(text))
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

const (
	invalid      = 3
	hash         = `{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}`
	userNameRule = "invalid ImportHumanUserRequest.UserName: value length must be between 1 and 200 runes, inclusive"
	inProfile    = "invalid ImportHumanUserRequest.Profile: embedded message failed validation | caused by: invalid ImportHumanUserRequest_Profile."
	inEmail      = "invalid ImportHumanUserRequest.Email: embedded message failed validation | caused by: invalid ImportHumanUserRequest_Email.Email: value must be a valid email address | caused by: "
	inPhone      = "invalid ImportHumanUserRequest.Phone: embedded message failed validation | caused by: invalid ImportHumanUserRequest_Phone.Phone: "
	inIDP        = "invalid ImportHumanUserRequest.Idps[0]: embedded message failed validation | caused by: invalid ImportHumanUserRequest_IDP."
	oneTo200     = "value length must be between 1 and 200 runes, inclusive"
	atMost200    = "value length must be at most 200 runes"
)

func profile(field, value string) map[string]string {
	p := map[string]string{"firstName": `"Minnie"`, "lastName": `"Mouse"`}
	p[field] = value
	var parts []string
	for k, v := range p {
		if v != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", k, v))
		}
	}
	return with("profile", "{"+strings.Join(parts, ",")+"}")
}

func email(address string) map[string]string {
	return with("email", fmt.Sprintf(`{"email":%q,"isEmailVerified":true}`, address))
}

func phone(number string) map[string]string {
	return with("phone", fmt.Sprintf(`{"phone":%q}`, number))
}

func idp(config, user, name string) map[string]string {
	return with("idps", fmt.Sprintf(`[{"configId":%q,"externalUserId":%q,"displayName":%q}]`, config, user, name))
}

// importCase is one request and what it has to come to, over every protocol.
type importCase struct {
	name    string
	body    string
	headers []string
	code    int    // gRPC; 0: success
	status  int    // HTTP; 0: that of success, or of the code
	id      string // "": no details
	message string // without the id; "" for success
	events  int    // expected sequence on success; 0: any
	// json says that the case is about JSON, and has no form in proto.
	json bool
}

var statuses = map[int]int{0: 200, 3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 12: 501, 16: 401}

func importCases() []importCase {
	long := func(n int, s string) string { return quoted(strings.Repeat(s, n)) }
	bad := func(name, message string, changes map[string]string) importCase {
		return importCase{name: name, body: body(changes), code: invalid, message: message}
	}
	refused := func(name, id, message string, changes map[string]string) importCase {
		return importCase{name: name, body: body(changes), code: invalid, id: id, message: message}
	}
	good := func(name string, events int, changes map[string]string) importCase {
		return importCase{name: name, body: body(changes), events: events}
	}
	merge := func(ms ...map[string]string) map[string]string {
		out := map[string]string{}
		for _, m := range ms {
			maps.Copy(out, m)
		}
		return out
	}
	verified := func(is bool) map[string]string {
		return with("email", fmt.Sprintf(`{"email":"a@b.c","isEmailVerified":%t}`, is))
	}
	passkey := with("requestPasswordlessRegistration", "true")
	link := func(configs ...string) map[string]string {
		var links []string
		for _, c := range configs {
			links = append(links, fmt.Sprintf(`{"configId":%q,"externalUserId":"u-%s"}`, c, unique()))
		}
		return with("idps", "["+strings.Join(links, ",")+"]")
	}
	otp := func(secret string) map[string]string { return with("otpCode", quoted(secret)) }
	hashed := func(value string) map[string]string {
		return with("hashedPassword", fmt.Sprintf(`{"value":%q}`, value))
	}
	const twice = `[{"configId":"c","externalUserId":"twice"},{"configId":"c","externalUserId":"twice"}]`
	return []importCase{
		// Validation, in order of the fields.
		{name: "nothing", body: `{}`, code: invalid, message: userNameRule},
		{name: "empty body", body: ``, code: invalid, message: userNameRule, json: true},
		bad("no user name", userNameRule, with("userName", "")),
		bad("empty user name", userNameRule, with("userName", `""`)),
		bad("user name of 201 runes", userNameRule, with("userName", long(201, "ü"))),
		good("user name of 200 runes", 0, with("userName", quoted(padded(200)))),
		bad("no profile", "invalid ImportHumanUserRequest.Profile: value is required", with("profile", "")),
		bad("profile null", "invalid ImportHumanUserRequest.Profile: value is required", with("profile", "null")),
		bad("no email", "invalid ImportHumanUserRequest.Email: value is required", with("email", "")),
		bad("profile before email", "invalid ImportHumanUserRequest.Profile: value is required", map[string]string{"profile": "", "email": ""}),
		bad("user name before profile", userNameRule, map[string]string{"profile": "", "userName": ""}),
		bad("no first name", inProfile+"FirstName: "+oneTo200, profile("firstName", "")),
		bad("no last name", inProfile+"LastName: "+oneTo200, profile("lastName", "")),
		bad("first name too long", inProfile+"FirstName: "+oneTo200, profile("firstName", long(201, "é"))),
		bad("last name too long", inProfile+"LastName: "+oneTo200, profile("lastName", long(201, "é"))),
		good("first name of 200 runes", 0, profile("firstName", long(200, "é"))),
		bad("nick name too long", inProfile+"NickName: "+atMost200, profile("nickName", long(201, "é"))),
		good("nick name of 200 runes", 0, profile("nickName", long(200, "é"))),
		bad("display name too long", inProfile+"DisplayName: "+atMost200, profile("displayName", long(201, "é"))),
		bad("language too long", inProfile+"PreferredLanguage: value length must be at most 10 runes", profile("preferredLanguage", long(11, "e"))),
		good("language of 10 runes, and none", 0, profile("preferredLanguage", long(10, "é"))),
		bad("empty e-mail", inEmail+"mail: no address", email("")),
		bad("e-mail without @", inEmail+"mail: missing '@' or angle-addr", email("minnie")),
		bad("e-mail host with a hyphen first", inEmail+"hostname parts cannot begin with hyphens", email("a@-b.c")),
		bad("e-mail before phone", inEmail+"mail: no address", merge(email(""), phone("079"))),
		refused("e-mail with a display name", "EMAIL-599GV", "Email is invalid", email("Foo <a@b.c>")),
		good("e-mail without a top-level domain", 0, email("a@b")),
		bad("phone without +", inPhone+`value does not have prefix "+"`, phone("0791234567")),
		bad("phone empty", inPhone+"value length must be between 1 and 50 runes, inclusive", with("phone", "{}")),
		bad("phone of 51 runes", inPhone+"value length must be between 1 and 50 runes, inclusive", phone("+"+strings.Repeat("1", 50))),
		bad("link without config", inIDP+"ConfigId: "+oneTo200, idp("", "u", "")),
		bad("link without user", inIDP+"ExternalUserId: "+oneTo200, idp("c", "", "")),
		bad("link's name too long", inIDP+"DisplayName: "+atMost200, idp("c", "u", strings.Repeat("x", 201))),
		bad("second link", strings.Replace(inIDP, "[0]", "[1]", 1)+"ConfigId: "+oneTo200,
			with("idps", `[{"configId":"c","externalUserId":"u-`+unique()+`"},{"externalUserId":"u"}]`)),

		// JSON.
		{name: "cut off", body: `{`, code: invalid, message: "unexpected EOF", json: true},
		{name: "no value", body: `{"userName":}`, code: invalid, message: "invalid character '}' looking for beginning of value", json: true},
		{name: "number for a text", body: `{"userName":1}`, code: invalid, message: "proto: (line 1:13): invalid value for string field userName: 1", json: true},
		{name: "list", body: `[]`, code: invalid, message: "proto: syntax error (line 1:1): unexpected token [", json: true},
		{name: "text", body: `hello`, code: invalid, message: "invalid character 'h' looking for beginning of value", json: true},
		{name: "same field twice", body: `{"userName":"a","userName":"b"}`, code: invalid, message: `proto: (line 1:17): duplicate field "userName"`, json: true},
		{name: "both spellings of one field", body: `{"userName":"a","user_name":"b"}`, code: invalid, message: `proto: (line 1:17): duplicate field "user_name"`, json: true},
		{name: "garbage behind the value", body: body(nil) + ` garbage`, json: true},
		{name: "blanks only", body: "  \n", code: invalid, message: userNameRule, json: true},
		{name: "unknown field", body: body(with("unknown", `{"a":[1]}`)), json: true},
		{name: "unknown field inside", body: body(with("hashedPassword", `{"algorithm":"bcrypt","value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}`)), json: true, events: 3},
		{name: "snake case", body: `{"user_name":"snake-` + unique() + `","profile":{"first_name":"a","last_name":"b","preferred_language":"en"},"email":{"email":"a@b.c","is_email_verified":true},"password_change_required":false}`, json: true},
		{name: "null", body: body(map[string]string{"phone": "null", "password": "null", "idps": "null", "passwordChangeRequired": "null"}), json: true},
		{name: "enum by number", body: body(profile("gender", "2")), json: true},
		{name: "enum by a number outside", body: body(profile("gender", "77"))},
		{name: "enum by an unknown name", body: body(profile("gender", `"GENDER_X"`)), json: true},
		{name: "enum by name", body: body(profile("gender", `"GENDER_DIVERSE"`)), json: true},

		// Domain.
		refused("user name of blanks", "COMMAND-00p2b", "Username is empty", with("userName", `"   "`)),
		refused("phone: no number", "PHONE-so0wa", "Phone is invalid", phone("+")),
		refused("phone: no such country", "PHONE-so0wa", "Phone is invalid", phone("+999999999999")),
		good("phone with letters", 4, phone("+1-800-FLOWERS")),
		refused("password too short", "DOMAIN-HuJf6", "Password is too short", with("password", `"string"`)),
		refused("password without lower case", "DOMAIN-co3Xw", "Password must contain lower case", with("password", `"STRING12!"`)),
		refused("password without upper case", "DOMAIN-VoaRj", "Password must contain upper case", with("password", `"string12!"`)),
		refused("password without number", "DOMAIN-ZBv4H", "Password must contain number", with("password", `"String!!!"`)),
		refused("password without symbol", "DOMAIN-ZDLwA", "Password must contain symbol", with("password", `"String123"`)),
		{name: "hash nobody can verify", body: body(with("hashedPassword", `{"value":"garbage"}`)), code: invalid, id: "USER-JDk4t"},
		{name: "cost bomb", body: body(with("hashedPassword", `{"value":"$2y$31$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"}`)), code: invalid, id: "USER-JDk4t"},
		{name: "otpCode not base32", body: body(with("otpCode", `"x-1!"`)), code: invalid, id: "MUSTER-totp"},
		{name: "two equal links", body: body(with("idps", `[{"configId":"c","externalUserId":"same"},{"configId":"c","externalUserId":"same"}]`)),
			code: 6, id: "V3-DKcYh", message: "External IDP already taken"},

		// What goes in, and how many facts it is (A.2's and §14's cases).
		good("verified, nothing else", 3, nil),
		good("verified, hash", 3, with("hashedPassword", hash)),
		good("verified, hash, change required", 3, map[string]string{"hashedPassword": hash, "passwordChangeRequired": "true"}),
		good("verified, good password", 3, map[string]string{"password": `"Secr3t!pass"`, "passwordChangeRequired": "true"}),
		good("hash and a weak password", 3, map[string]string{"password": `"string"`, "hashedPassword": hash}),
		good("unverified, nothing else", 2, with("email", `{"email":"a@b.c"}`)),
		good("unverified, hash", 3, map[string]string{"email": `{"email":"a@b.c"}`, "hashedPassword": hash}),
		good("verified, passkey", 3, with("requestPasswordlessRegistration", "true")),
		good("unverified, link", 3, merge(with("email", `{"email":"a@b.c"}`), idp("c", "u-"+unique(), "n"))),
		good("hash, phone verified", 4, map[string]string{"hashedPassword": hash, "phone": `{"phone":"+41 71 000 00 00","isPhoneVerified":true}`}),
		good("hash, phone unverified", 4, map[string]string{"hashedPassword": hash, "phone": `{"phone":"+41 71 000 00 00"}`}),
		good("no language", 0, profile("preferredLanguage", `"xx"`)),
		good("empty hash", 3, with("hashedPassword", `{"value":""}`)),

		// The truth table of what comes of verified (V), credential (P), passkey
		// (W) and link (I), where the rows above have not been there; a phone is
		// always one fact more.
		good("V", 3, verified(true)),
		good("W", 3, merge(verified(false), passkey)),
		good("P W", 4, merge(verified(false), passkey, with("hashedPassword", hash))),
		good("V P W", 4, merge(verified(true), passkey, with("hashedPassword", hash))),
		good("P I", 4, merge(verified(false), link("i"), with("hashedPassword", hash))),
		good("V I", 3, merge(verified(true), link("i"))),
		good("V P I", 4, merge(verified(true), link("i"), with("hashedPassword", hash))),
		good("V I I", 4, merge(verified(true), link("i", "j"))),
		good("I I I", 5, merge(verified(false), link("i", "j", "k"))),
		good("W I", 4, merge(verified(false), passkey, link("i"))),
		good("V W I", 4, merge(verified(true), passkey, link("i"))),
		good("V P W I, phone", 6, merge(verified(true), passkey, link("i"), with("hashedPassword", hash), phone("+41791234567"))),
		good("nothing, phone", 3, merge(verified(false), phone("+41791234567"))),
		good("V W, verified phone", 4, merge(verified(true), passkey, with("phone", `{"phone":"+41791234567","isPhoneVerified":true}`))),
		good("V, TOTP", 4, merge(verified(true), otp("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"))),
		good("V P, TOTP", 4, merge(verified(true), with("hashedPassword", hash), otp("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"))),
		good("V P, change required, no effect on the count", 3, merge(verified(true), with("hashedPassword", hash), with("passwordChangeRequired", "true"))),
		good("change required without a password", 3, merge(verified(true), with("passwordChangeRequired", "true"))),

		// TOTP secrets.
		good("TOTP in lower case with blanks and padding", 4, otp("jbsw y3dp ehpk 3pxp jbsw y3dp ehpk 3pxp====")),
		good("TOTP as a URI", 4, otp("otpauth://totp/Example:ada?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Example")),
		good("a short TOTP secret", 4, otp("JBSWY3DP")),
		good("no TOTP", 3, otp("")),
		refused("TOTP: a URI without a secret", "MUSTER-totp", "TOTP secret is not base32", otp("otpauth://totp/Example:ada?issuer=Example")),
		refused("TOTP of eight digits", "MUSTER-totpkind", "", otp("otpauth://totp/x?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&digits=8")),

		// Hashes, each of the word password in another encoding.
		good("hash: bcrypt 2a", 3, hashed("$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy")),
		good("hash: argon2id", 3, hashed("$argon2id$v=19$m=4096,t=3,p=1$cmFuZG9tc2FsdGlzaGFyZA$DYojYpnUWSMmTtrkVXyaNWVGxLmGe1n8VJBPDdFkbjU")),
		good("hash: md5-crypt", 3, hashed("$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1")),
		good("hash: plain MD5", 3, hashed("5f4dcc3b5aa765d61d8327deb882cf99")),
		good("hash: scrypt", 3, hashed("$scrypt$ln=16,r=8,p=1$cmFuZG9tc2FsdGlzaGFyZA$Rh+NnJNo1I6nRwaNqbDm6kmADswD1+7FTKZ7Ln9D8nQ")),
		good("hash: PBKDF2", 3, hashed("$pbkdf2-sha256$12$cmFuZG9tc2FsdGlzaGFyZA$OFvEcLOIPFd/oq8egf10i.qJLI7A8nDjPLnolCWarQY")),
		good("hash: Drupal 7", 3, hashed("$S$ErandomsaOpYrAZqwxGynirQbWYCb3ejW4BwGH81LJcOzbzeVd02")),
		{name: "hash: bcrypt cut short", body: body(hashed("$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o")), code: invalid, id: "USER-JDk4t"},
		{name: "hash: argon2d", body: body(hashed("$argon2d$v=19$m=4096,t=3,p=1$cmFuZG9tc2FsdGlzaGFyZA$DYojYpnUWSMmTtrkVXyaNWVGxLmGe1n8VJBPDdFkbjU")), code: invalid, id: "USER-JDk4t"},
		{name: "hash: a secret that nobody told", body: body(hashed("$muster-pepper$job$$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm")), code: invalid, id: "USER-JDk4t"},
		{name: "hash: a job's secret by its full name", body: body(hashed("$muster-pepper$job:x$$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm")), code: invalid, id: "USER-JDk4t"},
		{name: "hash: a good password beside garbage", body: body(map[string]string{"password": `"Secr3t!pass"`, "hashedPassword": `{"value":"garbage"}`}), code: invalid, id: "USER-JDk4t"},

		// Passwords: the first rule that is broken, in the wire's order.
		refused("password: all rules broken", "DOMAIN-HuJf6", "Password is too short", with("password", `"A"`)),
		refused("password: upper case and number missing", "DOMAIN-VoaRj", "Password must contain upper case", with("password", `"secretpass!"`)),
		refused("password: number and symbol missing", "DOMAIN-ZBv4H", "Password must contain number", with("password", `"Secretpass"`)),
		{name: "password: length counts bytes", body: body(with("password", `"Aa1!éé"`)), events: 3},
		{name: "password of blanks", body: body(with("password", `"        "`)), code: invalid, id: "DOMAIN-co3Xw"},
		good("password empty", 3, with("password", `""`)),

		// E-mail addresses and phones.
		good("e-mail with a tag", 0, email("a+b@c.example")),
		good("e-mail with an apostrophe", 0, email("o'brien@c.example")),
		good("e-mail in capitals", 0, email("MINNIE@MOUSE.COM")),
		good("e-mail of 64 characters before the @", 0, email(strings.Repeat("a", 64)+"@c.example")),
		bad("e-mail of 65 characters before the @", inEmail+"email address local phrase cannot exceed 64 characters", email(strings.Repeat("a", 65)+"@c.example")),
		bad("e-mail of two addresses", inEmail+"mail: expected single address, got \", b@c.d\"", email("a@b.c, b@c.d")),
		bad("e-mail: host label too long", inEmail+"hostname part must be non-empty and cannot exceed 63 characters", email("a@"+strings.Repeat("b", 64)+".c")),
		bad("e-mail null", "invalid ImportHumanUserRequest.Email: value is required", with("email", "null")),
		bad("e-mail an empty object", inEmail+"mail: no address", with("email", "{}")),
		refused("phone: an extension alone", "PHONE-so0wa", "Phone is invalid", phone("+abc")),
		refused("phone: zero", "PHONE-so0wa", "Phone is invalid", phone("+0")),
		refused("phone: one digit", "PHONE-so0wa", "Phone is invalid", phone("+1")),
		refused("phone of 21 digits", "PHONE-so0wa", "Phone is invalid", phone("+411234567890123456789")),
		good("phone with brackets", 4, phone("+49 (0)30 123456")),
		good("phone with an extension", 4, phone("+41 79 123 45 67 ext 3")),
		good("a short phone number", 4, phone("+4179123")),

		// Languages of the person; what is none becomes und, silently.
		good("language with an underscore", 3, profile("preferredLanguage", `"de_CH"`)),
		good("language in capitals", 3, profile("preferredLanguage", `"EN"`)),
		good("language that is a sentence", 3, profile("preferredLanguage", `"not valid"`)),
		good("an old language code", 3, profile("preferredLanguage", `"iw"`)),
		good("language empty", 3, profile("preferredLanguage", `""`)),

		// Names.
		good("user name with blanks around", 3, with("userName", quoted("  padded-"+unique()+" "))),
		good("user name that is an address", 3, with("userName", quoted("u"+unique()+"@example.org"))),
		good("names in another script", 3, with("profile", `{"firstName":"ミニー","lastName":"マウス","displayName":"ミニー・マウス"}`)),
		good("last name of 200 runes", 3, profile("lastName", long(200, "é"))),
		good("display name of 200 runes", 3, profile("displayName", long(200, "é"))),
		good("first name of a blank", 3, profile("firstName", `" "`)),
		good("no nick name and no display name", 3, merge(profile("nickName", `""`), profile("displayName", `""`))),
		good("links of one user at two providers", 4, with("idps", `[{"configId":"c1","externalUserId":"two-`+unique()+`"},{"configId":"c2","externalUserId":"two-`+unique()+`"}]`)),
		good("link's name of 200 runes", 3, idp("c", "u-"+unique(), strings.Repeat("ü", 200))),
		bad("link's config too long", inIDP+"ConfigId: "+oneTo200, idp(strings.Repeat("c", 201), "u", "")),
		bad("link's user too long", inIDP+"ExternalUserId: "+oneTo200, idp("c", strings.Repeat("u", 201), "")),
		bad("first name before last name", inProfile+"FirstName: "+oneTo200, with("profile", `{}`)),
		bad("phone before link", inPhone+`value does not have prefix "+"`, merge(phone("079"), idp("", "", ""))),
		bad("profile's text before e-mail's", inProfile+"NickName: "+atMost200, merge(profile("nickName", long(201, "é")), email(""))),

		// The edge's rule for e-mail addresses, to its ends.
		bad("e-mail of 255 characters", inEmail+"email addresses cannot exceed 254 characters", email("a@"+strings.Repeat("b.", 125)+"ccc")),
		good("e-mail of 254 characters", 3, email("a@"+strings.Repeat("b.", 125)+"cc")),
		bad("e-mail host that ends in a hyphen", inEmail+"hostname parts cannot end with hyphens", email("a@b-.c")),
		bad("e-mail host with an underscore", inEmail+`hostname parts can only contain alphanumeric characters or hyphens, got "_"`, email("a@b_c.d")),
		bad("e-mail host in another script", inEmail+`hostname parts can only contain alphanumeric characters or hyphens, got "ü"`, email("a@bü.c")),
		good("e-mail in another script before the @", 3, email("jürg@b.c")),
		refused("e-mail in quotes", "EMAIL-599BI", "Email is invalid", email(`"a b"@c.d`)),
		refused("e-mail with a comment, which is a name", "EMAIL-599GV", "Email is invalid", email("a@b.c (Ada)")),
		refused("e-mail in angle brackets", "EMAIL-599BI", "Email is invalid", email("<a@b.c>")),
		good("e-mail with blanks around", 3, email("  a@b.c ")),
		good("e-mail with each sign that is allowed", 3, email("!#$%&'*+/=?^_`{|}~-.a@b.c")),
		bad("e-mail with two dots", inEmail+"mail: missing '@' or angle-addr", email("a..b@c.d")),

		// The order in which the command judges (§1.3).
		refused("user name before e-mail", "COMMAND-00p2b", "Username is empty", merge(with("userName", `" "`), email("Foo <a@b.c>"))),
		refused("e-mail before phone, in the command", "EMAIL-599GV", "Email is invalid", merge(email("Foo <a@b.c>"), phone("+"))),
		refused("phone before password", "PHONE-so0wa", "Phone is invalid", merge(phone("+"), with("password", `"A"`))),
		refused("password before links", "DOMAIN-HuJf6", "Password is too short", merge(with("password", `"A"`), with("idps", twice))),
		{name: "hash before links", body: body(merge(hashed("garbage"), with("idps", twice))), code: invalid, id: "USER-JDk4t"},
		{name: "links before TOTP", body: body(merge(otp("x-1!"), with("idps", twice))), code: 6, id: "V3-DKcYh", message: "External IDP already taken"},
		{name: "TOTP before a name that is taken", body: body(merge(otp("x-1!"), with("userName", `"  "`))), code: invalid, id: "COMMAND-00p2b"},

		// Passwords that other hashers cannot take.
		good("password of 73 bytes", 3, with("password", quoted("Aa1!"+strings.Repeat("x", 69)))),
		good("password of 4096 bytes", 3, with("password", quoted("Aa1!"+strings.Repeat("x", 4092)))),
		{name: "password of 4097 bytes", body: body(with("password", quoted("Aa1!"+strings.Repeat("x", 4093)))), code: invalid, id: "MUSTER-length"},
		{name: "password with a NUL", body: body(with("password", `"Aa1!aaaa\u0000"`)), code: invalid, id: "MUSTER-text"},
		{name: "a NUL in a name", body: body(profile("firstName", `"a\u0000"`)), code: invalid, id: "MUSTER-text"},
		good("hash null", 3, with("hashedPassword", "null")),
		good("hash without a value", 3, with("hashedPassword", "{}")),
		good("links, none", 3, with("idps", "[]")),

		// JSON again.
		{name: "recovery codes are nobody's", body: body(with("recoveryCodes", `[{"raw":"x"}]`)), events: 3, json: true},
		{name: "a text for a message", body: `{"profile":"x"}`, code: invalid, message: `proto: syntax error (line 1:12): unexpected token "x"`, json: true},
		{name: "null in a list", body: `{"idps":[null]}`, code: invalid, message: "proto: syntax error (line 1:10): unexpected token null", json: true},
		{name: "null inside", body: body(with("phone", `{"phone":null}`)), code: invalid, message: inPhone + "value length must be between 1 and 50 runes, inclusive", json: true},
		{name: "gender null", body: body(profile("gender", "null")), events: 3, json: true},
		{name: "gender a fraction", body: `{"profile":{"gender":1.5}}`, code: invalid, message: "proto: (line 1:22): invalid value for enum field gender: 1.5", json: true},
		{name: "half a surrogate pair", body: `{"userName":"\ud800"}`, code: invalid, message: "proto: unexpected EOF", json: true},
		{name: "two values", body: body(nil) + body(nil), events: 3, json: true},
		{name: "a list for a message", body: `{"profile":[]}`, code: invalid, message: "proto: syntax error (line 1:12): unexpected token [", json: true},
		{name: "a text for a truth", body: `{"passwordChangeRequired":"yes"}`, code: invalid, message: `proto: (line 1:27): invalid value for bool field passwordChangeRequired: "yes"`, json: true},
		{name: "cut off inside a text", body: `{"userName":"a`, code: invalid, message: "unexpected EOF", json: true},
		{name: "an escape that is none", body: `{"userName":"\x"}`, code: invalid, message: "invalid character 'x' in string escape code", json: true},
		{name: "same field twice inside", body: `{"email":{"email":"a","email":"b"}}`, code: invalid, message: `proto: (line 1:23): duplicate field "email"`, json: true},
		{name: "null alone", body: `null`, code: invalid, message: "proto: syntax error (line 1:1): unexpected token null", json: true},
		{name: "a comment", body: `{/**/}`, code: invalid, message: "invalid character '/' looking for beginning of object key string", json: true},

		// Authentication and permission, before validation and behind JSON.
		{name: "nothing behind the scheme", body: `{}`, headers: []string{"Authorization", "Bearer"}, code: 16, id: "AUTH-toLo1", message: "invalid auth header"},
		{name: "the scheme and two blanks", body: `{}`, headers: []string{"Authorization", "Bearer  " + adminToken}, code: 16, id: "AUTH-7fs1e", message: "Errors.Token.Invalid"},
		{name: "unknown organisation, German", body: `{}`, headers: []string{"x-zitadel-orgid", "nowhere", "Accept-Language", "de"}, code: 7, id: "AUTH-Bs7Ds", message: "Organisation doesn't exist"},
		{name: "no header", body: `{}`, headers: []string{"Authorization", ""}, code: 16, message: "auth header missing"},
		{name: "no header, good body", body: body(nil), headers: []string{"Authorization", ""}, code: 16, message: "auth header missing"},
		{name: "broken JSON and no header", body: `{`, headers: []string{"Authorization", ""}, code: invalid, message: "unexpected EOF", json: true},
		{name: "other scheme", body: `{}`, headers: []string{"Authorization", "Basic YTpi"}, code: 16, id: "AUTH-toLo1", message: "invalid auth header"},
		{name: "scheme in lower case", body: `{}`, headers: []string{"Authorization", "bearer " + adminToken}, code: 16, id: "AUTH-toLo1", message: "invalid auth header"},
		{name: "unknown token", body: `{}`, headers: []string{"Authorization", "Bearer nobody's"}, code: 16, id: "AUTH-7fs1e", message: "Errors.Token.Invalid"},
		{name: "unknown token, German", body: `{}`, headers: []string{"Authorization", "Bearer nobody's", "Accept-Language", "de"}, code: 16, id: "AUTH-7fs1e", message: "Errors.Token.Invalid"},
		{name: "unknown organisation", body: `{}`, headers: []string{"x-zitadel-orgid", "nowhere"}, code: 7, id: "AUTH-Bs7Ds", message: "Organisation doesn't exist"},
		{name: "another organisation", body: body(nil), headers: []string{"x-zitadel-orgid", "org-2"}},

		// Languages.
		{name: "German", body: body(with("userName", `" "`)), headers: []string{"Accept-Language", "de-CH, en;q=0.5"}, code: invalid, id: "COMMAND-00p2b", message: "Der Benutzername ist leer"},
		{name: "French", body: body(with("password", `"string"`)), headers: []string{"Accept-Language", "fr"}, code: invalid, id: "DOMAIN-HuJf6", message: "Le mot de passe est trop court"},
		{name: "Italian", body: body(phone("+")), headers: []string{"Accept-Language", "it"}, code: invalid, id: "PHONE-so0wa", message: "Il numero di telefono non è valido"},
		{name: "Spanish", body: body(phone("+")), headers: []string{"Accept-Language", "es-MX"}, code: invalid, id: "PHONE-so0wa", message: "El número de teléfono no es válido"},
		{name: "a language that we lack", body: body(phone("+")), headers: []string{"Accept-Language", "ja"}, code: invalid, id: "PHONE-so0wa", message: "Phone is invalid"},
		{name: "validation is not translated", body: `{}`, headers: []string{"Accept-Language", "de"}, code: invalid, message: userNameRule},
		{name: "languages that are none", body: body(phone("+")), headers: []string{"Accept-Language", ";;;"}, code: invalid, id: "PHONE-so0wa", message: "Phone is invalid"},
	}
}

// TestImportOverEveryProtocol runs every case over REST, gRPC, gRPC-Web and
// Connect, on the RPC's path and, for gRPC's content types, on the REST URL.
func TestImportOverEveryProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	everywhere := 0
	for _, c := range importCases() {
		if !c.json {
			everywhere++
		}
	}
	if everywhere < 150 {
		t.Errorf("%d cases over every protocol, and 150 are promised", everywhere)
	}
	check := func(t *testing.T, c importCase, a answer, sequence string) {
		t.Helper()
		if a.Code != c.code {
			t.Fatalf("code %d, want %d; message %q", a.Code, c.code, a.Message)
		}
		if c.code == 0 {
			if c.events > 0 && sequence != fmt.Sprint(c.events) {
				t.Errorf("sequence %s, want %d", sequence, c.events)
			}
			return
		}
		if a.id() != c.id || (c.id == "") != (len(a.Details) == 0) {
			t.Errorf("details %v, want id %q", a.Details, c.id)
		}
		if c.id != "" && (a.Details[0].Type != "type.googleapis.com/zitadel.v1.ErrorDetail" || a.Message != a.Details[0].Message+" ("+c.id+")") {
			t.Errorf("message %q, details %v", a.Message, a.Details)
		}
		bare := strings.TrimSuffix(a.Message, " ("+c.id+")")
		if c.message != "" && bare != c.message {
			t.Errorf("message %q\nwant    %q", bare, c.message)
		}
	}
	t.Run("REST", func(t *testing.T) {
		for _, c := range importCases() {
			t.Run(c.name, func(t *testing.T) {
				a := s.rest(t, "POST", importPath, c.body, c.headers...)
				status := c.status
				if status == 0 {
					status = statuses[c.code]
				}
				if a.HTTP != status {
					t.Errorf("HTTP %d, want %d: %s", a.HTTP, status, a.Body)
				}
				sequence := ""
				if d, ok := a.raw["details"].(map[string]any); ok {
					sequence, _ = d["sequence"].(string)
				}
				check(t, c, a, sequence)
			})
		}
	})
	for i, p := range protocols {
		for _, path := range []string{importProcedure, importPath} {
			if path == importPath && !strings.HasPrefix(p.name, "gRPC") {
				continue
			}
			t.Run(p.name+" "+path[strings.LastIndex(path, "/")+1:], func(t *testing.T) {
				for _, c := range importCases() {
					if c.json {
						continue
					}
					t.Run(c.name, func(t *testing.T) {
						req := &managementv1.ImportHumanUserRequest{}
						fromJSON(t, c.body, req)
						res, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, i, path, req, c.headers...)
						check(t, c, a, fmt.Sprint(res.GetDetails().GetSequence()))
					})
				}
			})
		}
	}
}

// TestConflictsOverEveryProtocol imports somebody and then others who want the
// same: each is told of it in the wire's words, and leaves no fact behind.
func TestConflictsOverEveryProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	viewer := "Bearer " + s.token(t, "org-1", access.OrgUserViewer)
	manager := "Bearer " + s.token(t, "org-2", access.OrgUserManager)
	type call func(t *testing.T, request string, headers ...string) answer
	calls := map[string]call{"REST": func(t *testing.T, request string, headers ...string) answer {
		return s.rest(t, "POST", importPath, request, headers...)
	}}
	for i, p := range protocols {
		calls[p.name] = func(t *testing.T, request string, headers ...string) answer {
			req := &managementv1.ImportHumanUserRequest{}
			fromJSON(t, request, req)
			_, a := rpc[managementv1.ImportHumanUserRequest, managementv1.ImportHumanUserResponse](t, s, i, importProcedure, req, headers...)
			return a
		}
	}
	for protocol, call := range calls {
		name, link := "Ada-"+unique(), func(user string) string {
			return fmt.Sprintf(`[{"configId":"c","externalUserId":%q}]`, protocol+user)
		}
		if a := call(t, body(map[string]string{"userName": quoted(name), "idps": link("a")})); a.Code != 0 {
			t.Fatalf("%s: %d %s", protocol, a.Code, a.Message)
		}
		before, err := s.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name, body string
			headers    []string
			code       int
			message    string
		}{
			{"the same name", body(with("userName", quoted(name))), nil, 6, "User already exists (V3-DKcYh)"},
			{"the same name in other letters", body(with("userName", quoted(strings.ToUpper(name)))), nil, 6, "User already exists (V3-DKcYh)"},
			{"the same name with blanks", body(with("userName", quoted(" "+name+" "))), nil, 6, "User already exists (V3-DKcYh)"},
			{"the same name in another organisation", body(with("userName", quoted(name))), []string{"x-zitadel-orgid", "org-2"}, 6, "User already exists (V3-DKcYh)"},
			{"the same name by another organisation's token", body(with("userName", quoted(name))), []string{"Authorization", manager}, 6, "User already exists (V3-DKcYh)"},
			{"the same link", body(with("idps", link("a"))), nil, 6, "External IDP already taken (V3-DKcYh)"},
			{"the same link in another organisation", body(with("idps", link("a"))), []string{"x-zitadel-orgid", "org-2"}, 6, "External IDP already taken (V3-DKcYh)"},
			{"the same name, German", body(with("userName", quoted(name))), []string{"Accept-Language", "de"}, 6, "Der Benutzer existiert bereits (V3-DKcYh)"},
			{"no permission", body(nil), []string{"Authorization", viewer}, 7, "No matching permissions found (AUTH-5mWD2)"},
			{"no membership", body(nil), []string{"Authorization", manager, "x-zitadel-orgid", "org-1"}, 5, "membership not found (AUTHZ-cdgFk)"},
		} {
			a := call(t, c.body, c.headers...)
			if a.Code != c.code || a.Message != c.message || a.id() == "" {
				t.Errorf("%s, %s: %d %q %v", protocol, c.name, a.Code, a.Message, a.Details)
			}
		}
		after, err := s.store.Head(t.Context())
		if err != nil || after != before {
			t.Errorf("%s: the refused have moved the log from %v to %v, %v", protocol, before, after, err)
		}
		// What the first did not take is free.
		if a := call(t, body(with("idps", link("b"))), "Authorization", manager); a.Code != 0 {
			t.Errorf("%s: %d %s", protocol, a.Code, a.Message)
		}
	}
}
