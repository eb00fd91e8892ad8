package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

const (
	plain  = "Migrate-Me-42"
	bcrypt = "$2a$10$LY3TRSJiUMhvcKc3cZKsXenFtNih/KMt4SNN41/QAxxfQFX8wIGyq"
	secret = "NNRVI33UOBJWKY3SMV2DAMJSGM2DKNTY" // base32 of kcTotpSecret0123456x
)

// commands reads a source of which every row has to be a good one.
func commands(t *testing.T, inputs []Input, opts Options) []domain.ImportHuman {
	t.Helper()
	rs, _, _ := read(t, inputs, opts)
	var cs []domain.ImportHuman
	for _, r := range rs {
		if r.Err != nil {
			t.Fatalf("row %d: %v", r.Row, r.Err)
		}
		if r.Skipped == "" {
			cs = append(cs, r.Command)
		}
	}
	return cs
}

// single reads a source with one person in it.
func single(t *testing.T, s string, opts Options) (Record, Losses) {
	t.Helper()
	rs, _, l := read(t, one(s), opts)
	if len(rs) != 1 || rs[0].Err != nil {
		t.Fatalf("%+v", rs)
	}
	return rs[0], l
}

func warned(r Record, field string) string {
	for _, w := range r.Warnings {
		if w.Field == field {
			return w.Text
		}
	}
	return ""
}

// Every hash in testdata is of the same password, except one that is broken on
// purpose: what the readers made of it must verify.
func TestHashesOfAllSourcesVerify(t *testing.T) {
	verified := map[Format]int{}
	for _, g := range goldens {
		rs, _, _ := read(t, folder(t, g.folder), g.opts)
		for _, r := range rs {
			if r.Command.HashedPassword == "" {
				continue
			}
			ok, err := password.Verify(context.Background(), r.Command.HashedPassword, plain, g.opts.Secrets)
			if err != nil || !ok {
				t.Errorf("%s row %d: %v %v", g.folder, r.Row, ok, err)
			}
			verified[g.format]++
		}
	}
	for _, f := range Formats() {
		if verified[f] == 0 && f != Cognito {
			t.Errorf("%s: no hash", f)
		}
	}
}

// No value of a source may be in what goes into reports.
func TestReportsHoldNoValues(t *testing.T) {
	for _, g := range goldens {
		rs, _, l := read(t, folder(t, g.folder), g.opts)
		report, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var f Forecast
		for _, r := range rs {
			for _, w := range r.Warnings {
				report = append(report, w.Field+w.Text...)
			}
			if r.Err != nil {
				report = append(report, r.Err.Error()...)
			} else if r.Skipped == "" {
				f.Add(r.Command)
			}
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		report = append(report, b...)
		for _, canary := range []string{"example.test", "$2", "c3ludGhl", secret, "kcTotp", "+46", "00000000", "Lind", "abcd1234", "1100000"} {
			if bytes.Contains(report, []byte(canary)) {
				t.Errorf("%s: %q in %s", g.folder, canary, report)
			}
		}
	}
}

func TestAuth0SameAddressInTwoConnectionsKeepsItsOwnHash(t *testing.T) {
	cs := commands(t, folder(t, "auth0"), Options{})
	if cs[0].Email.Address != cs[1].Email.Address || !strings.HasPrefix(cs[0].HashedPassword, "$2a$") || !strings.HasPrefix(cs[1].HashedPassword, "$2b$") {
		t.Errorf("%+v\n%+v", cs[0], cs[1])
	}
}

func TestAuth0BlockedBecomesLocked(t *testing.T) {
	cs := commands(t, folder(t, "auth0"), Options{})
	if cs[0].State != domain.StateUnspecified || cs[1].State != domain.StateLocked {
		t.Error(cs[0].State, cs[1].State)
	}
}

func TestAuth0AltIDIsAKeyToo(t *testing.T) {
	if c := commands(t, folder(t, "auth0"), Options{})[4]; c.UserID != "auth0|custom-7" || c.HashedPassword == "" {
		t.Errorf("%+v", c)
	}
}

func TestAuth0UsersByMessageHaveNeitherPasswordNorLink(t *testing.T) {
	c := commands(t, folder(t, "auth0"), Options{})[3]
	if len(c.IDPLinks) > 0 || c.HashedPassword != "" || c.Phone == nil || !c.Phone.Verified {
		t.Errorf("%+v", c)
	}
}

func TestAuth0JoinsOnDiskAsInMemory(t *testing.T) {
	users, passwords := auth0Pair(3000)
	pair := func() []Input {
		return []Input{{Name: "u", R: strings.NewReader(users)}, {Name: "p", R: strings.NewReader(passwords)}}
	}
	want := commands(t, pair(), Options{})
	got := commands(t, pair(), Options{joinMemory: 10_000, TempDir: t.TempDir()})
	for i := range want {
		if want[i].HashedPassword == "" || got[i].HashedPassword != want[i].HashedPassword || got[i].UserID != want[i].UserID {
			t.Fatalf("%d: %q, want %q", i, got[i].HashedPassword, want[i].HashedPassword)
		}
	}
}

// auth0Pair makes n users and their hashes, each hash with the user's number in
// its cost-free tail, in different orders.
func auth0Pair(n int) (users, passwords string) {
	var u, p strings.Builder
	for i := range n {
		u.WriteString(auth0User(i))
		p.WriteString(auth0Password(n - 1 - i))
	}
	return u.String(), p.String()
}

func auth0User(i int) string {
	return fmt.Sprintf(`{"user_id":"auth0|65f0a1b2%016x","email":"user%d@example.test","email_verified":true,"username":"user%d","given_name":"Given","family_name":"Family%d","locale":"sv-SE","created_at":"2024-03-12T10:00:00.000Z","logins_count":7,"app_metadata":{"roles":["editor"]},"identities":[{"provider":"auth0","user_id":"65f0a1b2%016x","connection":"Username-Password-Authentication","isSocial":false},{"provider":"google-oauth2","user_id":"11%019d","connection":"google-oauth2","isSocial":true}]}`+"\n", i, i, i, i, i, i)
}

func auth0Password(i int) string {
	return fmt.Sprintf(`{"_id":{"$oid":"65f0a1b2%016x"},"email":"user%d@example.test","email_verified":true,"passwordHash":"$2a$10$LY3TRSJiUMhvcKc3cZKsXenFtNih/KMt4SNN41/%s","password_set_date":{"$date":"2024-03-12T10:00:00.000Z"},"tenant":"t1","connection":"Username-Password-Authentication"}`+"\n", i, i, tail(i))
}

// tail writes a number in 14 letters of bcrypt's alphabet; the last is "y",
// which ends 23 bytes in it.
func tail(i int) string {
	b := []byte(".............y")
	for k := 12; i > 0; k, i = k-1, i/26 {
		b[k] = 'a' + byte(i%26)
	}
	return string(b)
}

func TestKeycloakOTPSecretIsRawUnlessSaidToBeBase32(t *testing.T) {
	cs := commands(t, folder(t, "keycloak"), Options{})
	if cs[0].TOTPSecret != secret || cs[1].TOTPSecret != secret {
		t.Error(cs[0].TOTPSecret, cs[1].TOTPSecret)
	}
}

func TestKeycloakFactorsOfAnotherKindAreRefusedWithAWarning(t *testing.T) {
	for credential, want := range map[string]string{
		`{"subType":"hotp","digits":6,"counter":3,"algorithm":"HmacSHA1"}`:                           "HOTP",
		`{"subType":"totp","digits":6,"period":30,"algorithm":"HmacSHA256"}`:                         "digest",
		`{"subType":"totp","digits":8,"period":30,"algorithm":"HmacSHA1"}`:                           "length",
		`{"subType":"totp","digits":6,"period":60,"algorithm":"HmacSHA1"}`:                           "period",
		`{"subType":"totp","digits":6,"period":30,"algorithm":"HmacSHA1","secretEncoding":"BASE64"}`: "encoding",
		`not JSON`: "malformed",
	} {
		data, err := json.Marshal(credential)
		if err != nil {
			t.Fatal(err)
		}
		r, l := single(t, `{"realm":"r","users":[{"username":"a","credentials":[{"type":"otp","secretData":"{\"value\":\"abcdefghij\"}","credentialData":`+string(data)+`}]}]}`, Options{})
		if !strings.Contains(warned(r, "otpCode"), want) || r.Command.TOTPSecret != "" || len(l.Factors) != 1 {
			t.Errorf("%s: %+v", credential, r)
		}
	}
}

// The name says 256 and older versions stored 64 bytes; the stored length counts.
func TestKeycloakKeyLengthIsThatOfTheStoredValue(t *testing.T) {
	c := commands(t, folder(t, "keycloak"), Options{})[2]
	_, sum, _ := strings.Cut(c.HashedPassword[len("$pbkdf2-sha256$27500$"):], "$")
	if len(sum) != 86 { // 64 bytes
		t.Error(len(sum))
	}
}

func TestKeycloakLeavesServiceAccountsOut(t *testing.T) {
	r, l := single(t, `{"realm":"r","users":[{"username":"service-account-x","serviceAccountClientId":"x","email":"a@example.test"}]}`, Options{})
	if r.Skipped != "service account" || l.Skipped["service account"] != 1 || r.Command.UserName != "" {
		t.Errorf("%+v", r)
	}
}

func TestKeycloakFederatedUserHasNoPasswordHere(t *testing.T) {
	r, l := single(t, `{"realm":"r","users":[{"username":"a","email":"a@example.test","federationLink":"ldap"}]}`, Options{})
	if warned(r, "hashedPassword") == "" || len(l.Hashes) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestKeycloakReadsAllRealmsOfOneFile(t *testing.T) {
	cs := commands(t, one(`[{"realm":"a","users":[{"username":"u1"},{"username":"u2"}],"groups":[]},{"users":[{"username":"u3"}],"realm":"b"}]`), Options{Format: Keycloak})
	if len(cs) != 3 || cs[2].UserName != "u3" {
		t.Errorf("%+v", cs)
	}
}

func TestFirebaseParametersAreInNoRow(t *testing.T) {
	for _, f := range []string{"firebase", "firebase-csv"} {
		cs := commands(t, folder(t, f), Options{Secrets: firebaseSecret(), SecretRef: "job"})
		if h := cs[0].HashedPassword; !strings.Contains(h, "$job$") || strings.Contains(h, "c3ludGhldGljLXNpZ25lcn") {
			t.Error(h)
		}
	}
}

func TestFirebaseKeyInARowMovesIntoTheSecrets(t *testing.T) {
	opts := Options{Secrets: password.Secrets{}}
	row := `{"users":[{"localId":"a","email":"a@example.test","passwordHash":"$firescrypt$ln=14,r=8,p=1$ZmJzYWx0MA==$ROuR/OQf3pmx0AZ4KHrEqs9JoEuMr6wnHeHhYnZPPzzfvrqHOanFPBROLf+DaAIFHHMcdEazM88GPUDNX7jW5g==$Bw==$c3ludGhldGljLXNpZ25lcnN5bnRoZXRpYy1zaWduZXJzeW50aGV0aWMtc2lnbmVyc3ludGhldGljLXNpZ25lcg=="}]}`
	r, _ := single(t, row, opts)
	if strings.Contains(r.Command.HashedPassword, "c3ludGhldGljLXNpZ25lcn") {
		t.Error("the project's key is in the row")
	}
	if ok, err := password.Verify(context.Background(), r.Command.HashedPassword, plain, opts.Secrets); !ok || err != nil {
		t.Error(ok, err)
	}
	if len(opts.Secrets) != 1 {
		t.Error(len(opts.Secrets))
	}
}

func TestFirebaseWithoutParametersCountsTheHashes(t *testing.T) {
	_, _, l := read(t, folder(t, "firebase"), Options{})
	if l.Hashes["the project's hash parameters were not given"] != 2 {
		t.Errorf("%+v", l.Hashes)
	}
}

func TestFirebaseOlderCSVEndsAtItsCustomAttributes(t *testing.T) {
	row := "uid,a@example.test,true,,,A B,," + "g-1,,,," + "f-1,,,," + "t-1,,,," + "h-1,,,," + `1,2,+46701234567,false,"{""k"":""v""}"`
	c := commands(t, one(row+"\n"), Options{})[0]
	if len(c.IDPLinks) != 4 || len(c.Metadata) != 1 || c.Phone == nil {
		t.Errorf("%+v", c)
	}
}

func TestDjangoSaltIsText(t *testing.T) {
	c := commands(t, folder(t, "django"), Options{})[0]
	if ok, err := password.Verify(context.Background(), c.HashedPassword, plain, nil); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestDjangoUnusablePasswordIsNoLoss(t *testing.T) {
	rs, _, l := read(t, folder(t, "django"), Options{})
	if c := rs[2]; c.Command.HashedPassword != "" || len(c.Warnings) > 0 || len(l.Hashes) > 0 {
		t.Errorf("%+v %+v", c, l)
	}
}

func TestKratosWritesNWhereOthersWriteItsLogarithm(t *testing.T) {
	if c := commands(t, folder(t, "kratos"), Options{})[1]; !strings.HasPrefix(c.HashedPassword, "$scrypt$ln=14,") {
		t.Error(c.HashedPassword)
	}
}

func TestKratosTraitsByTheOperatorsMap(t *testing.T) {
	m, err := ParseMapping([]string{"field:email=traits.contact.mail", "field:firstName=traits.who.0", "field:lastName=traits.who.1", "metadata:traits.unit=dept", "idp:g=2648"})
	if err != nil {
		t.Fatal(err)
	}
	r, l := single(t, `{"id":"1","schema_id":"x","traits":{"contact":{"mail":"a@example.test"},"who":["A","B"],"unit":"it"},"verifiable_addresses":[{"value":"a@example.test","verified":true}],"credentials":{"oidc":{"config":{"providers":[{"provider":"g","subject":"s"}]}}}}`, Options{Map: m})
	c := r.Command
	if c.Email.Address != "a@example.test" || !c.Email.Verified || c.Profile.LastName != "B" || len(c.Metadata) != 1 ||
		string(c.Metadata[0].Value) != "it" || c.IDPLinks[0].ConfigID != "2648" || len(l.Providers) > 0 {
		t.Errorf("%+v %+v", c, l)
	}
}

func TestCognitoCommaIsEscapedByABackslash(t *testing.T) {
	m := Mapping{Metadata: map[string]string{"address": "address"}}
	c := commands(t, folder(t, "cognito"), Options{Map: m})[0]
	if got := string(c.Metadata[0].Value); got != "1 Main Street, Floor 2" || c.Email.Address != "ed@example.test" {
		t.Errorf("%q %+v", got, c)
	}
}

func TestSupabasePhoneGetsItsPlus(t *testing.T) {
	if p := commands(t, folder(t, "supabase"), Options{})[0].Phone; p.Number != "+46701234570" || p.Verified {
		t.Errorf("%+v", p)
	}
}

func TestSupabaseEmptyDeletedAtIsNotDeleted(t *testing.T) {
	if cs := commands(t, folder(t, "supabase"), Options{}); len(cs) != 2 || cs[0].Email.Address != "hy@example.test" {
		t.Errorf("%+v", cs)
	}
}

func TestSupabaseJSONInAString(t *testing.T) {
	if p := commands(t, folder(t, "supabase"), Options{})[0].Profile; p.FirstName != "Hy" || p.LastName != "Lo" {
		t.Errorf("%+v", p)
	}
}

func TestLDIFPasswordIsWrappedTwice(t *testing.T) {
	want := "{SSHA}Q5TmBD1+Nhhzvb+XrBNL/+d7ZDVzYWx0U0FMVA=="
	for _, s := range []string{
		"userPassword: " + want,
		"userPassword:: e1NTSEF9UTVUbUJEMStOaGh6dmIrWHJCTkwvK2Q3WkRWellXeDBVMEZNVkE9PQ==",
		"userPassword:: e1NTSEF9UTVUbUJEMStOaGh6dmIr\n WHJCTkwvK2Q3WkRWellXeDBVMEZNVkE9PQ==",
		"userPassword: e1NTSEF9UTVUbUJEMStOaGh6dmIrWHJCTkwvK2Q3WkRWellXeDBVMEZNVkE9PQ==",
		"userPassword: {NOPE}x\nuserPassword: " + want,
	} {
		if c := commands(t, one("dn: uid=a\nuid: a\n"+s), Options{})[0]; c.HashedPassword != want {
			t.Errorf("%s: %q", s, c.HashedPassword)
		}
	}
}

func TestClerkListsAreSeparatedByBarOrComma(t *testing.T) {
	for cell, want := range map[string]bool{
		`a@example.test`: true, `b@example.test|A@example.test`: true, `"b@example.test,a@example.test"`: true, `b@example.test`: false, ``: false,
	} {
		r, _ := single(t, "id,primary_email_address,verified_email_addresses\nu,a@example.test,"+cell+"\n", Options{})
		if r.Command.Email.Verified != want {
			t.Errorf("%s: %v", cell, r.Command.Email.Verified)
		}
	}
}

func TestASPNetLockoutCountsOnlyInTheFuture(t *testing.T) {
	for end, want := range map[string]domain.State{
		"2024-05-31 23:59:59 +00:00": domain.StateUnspecified, "2024-06-01 00:00:01.0000000 +00:00": domain.StateLocked,
		"2024-06-01T02:00:01+02:00": domain.StateLocked, "NULL": domain.StateUnspecified, "": domain.StateUnspecified,
	} {
		r, _ := single(t, "Id,UserName,PasswordHash,LockoutEnd\n1,a,,"+end+"\n", Options{})
		if r.Command.State != want {
			t.Errorf("%s: %v", end, r.Command.State)
		}
	}
}

func TestASPNetAuthenticatorKeyCountsOnlyWhenSwitchedOn(t *testing.T) {
	cs := commands(t, folder(t, "aspnet"), Options{})
	if cs[0].TOTPSecret != secret || cs[1].TOTPSecret != "" {
		t.Error(cs[0].TOTPSecret, cs[1].TOTPSecret)
	}
}

func TestOktaBcryptIsRejoinedOfItsParts(t *testing.T) {
	if c := commands(t, folder(t, "okta"), Options{})[1]; c.HashedPassword != bcrypt || c.State != domain.StateLocked {
		t.Errorf("%+v", c)
	}
}

func TestOktaLocaleHasAnUnderscore(t *testing.T) {
	if c := commands(t, folder(t, "okta"), Options{})[0]; c.Profile.PreferredLanguage != "en-US" {
		t.Error(c.Profile.PreferredLanguage)
	}
}

func TestFusionAuthSchemeOfTheDocument(t *testing.T) {
	user := `{"id":"1","email":"a@example.test","salt":"LY3TRSJiUMhvcKc3cZKsXe","password":"nFtNih/KMt4SNN41/QAxxfQFX8wIGyq"}`
	r, _ := single(t, `{"encryptionScheme":"bcrypt","factor":10,"users":[`+user+`]}`, Options{Format: FusionAuth})
	if r.Command.HashedPassword != bcrypt {
		t.Errorf("%+v", r)
	}
	behind := `{"users":[` + user + `],"encryptionScheme":"bcrypt","factor":10}`
	r, _ = single(t, behind, Options{Format: FusionAuth})
	if !strings.Contains(warned(r, "hashedPassword"), "encryption scheme") {
		t.Errorf("%+v", r)
	}
	r, _ = single(t, behind, Options{Format: FusionAuth, Scheme: "bcrypt", Factor: 10})
	if r.Command.HashedPassword != bcrypt {
		t.Errorf("%+v", r)
	}
}

func TestZITADELDocumentBothSpellingsAndAnyOrder(t *testing.T) {
	user := func(id string) string {
		return `{"userId":"` + id + `","user":{"userName":"n` + id + `","profile":{"firstName":"A","lastName":"B"},"email":{"email":"a@example.test","isEmailVerified":true}}}`
	}
	for name, doc := range map[string]string{
		"camel": `{"dataOrgs":{"orgs":[{"orgId":"o","humanUsers":[` + user("1") + `,` + user("2") + `]}]},"timeout":"30m0s"}`,
		"snake": `{"timeout":"30m0s","data_orgs":{"orgs":[{"human_users":[` + user("1") + `,` + user("2") + `],"org_id":"o","unknown":{"a":[1,{"b":"]}"}]}}]},"more":1}`,
		"blank": "\n {\t\"dataOrgs\" :  {\"orgs\"\n:[ {\"orgId\" : \"o\", \"humanUsers\" : [ " + user("1") + " , " + user("2") + " ] } ]\r\n} }",
	} {
		rs, _, _ := read(t, one(doc), Options{})
		if len(rs) != 2 || rs[1].Org != "o" || rs[1].Command.UserID != "2" || rs[1].Command.UserName != "n2" || !rs[1].Command.Email.Verified {
			t.Errorf("%s: %+v", name, rs)
		}
	}
}

// A document that was cut off is an error, not a smaller document.
func TestCutOffDocumentsAreErrors(t *testing.T) {
	for name, doc := range map[string]string{
		"zitadel":  `{"dataOrgs":{"orgs":[{"orgId":"o","humanUsers":[{"userId":"1","user":{}},{"userId":`,
		"users":    `{"dataOrgs":{"orgs":[{"orgId":"o","humanUsers":[{"userId":"1","user":{}}`,
		"orgs":     `{"dataOrgs":{"orgs":[{"orgId":"o","humanUsers":[{"userId":"1","user":{}}]}`,
		"keycloak": `{"realm":"r","users":[{"username":"a"},{"username":`,
		"wrapper":  `{"realm":"r","users":[{"username":"a"}]`,
		"csv":      "id,primary_email_address\n1,\"a@example.test",
	} {
		r, _, err := Open(one(doc), Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		for err == nil {
			_, err = r.Next(context.Background())
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The defects of the converter that people use today (docs/sources/zitadel.md),
// by the numbers there.
func TestDefectsOfTheOtherConverter(t *testing.T) {
	t.Run("1 verified flags are kept", func(t *testing.T) {
		for _, f := range []string{"auth0", "keycloak", "firebase"} {
			if !commands(t, folder(t, f), Options{})[0].Email.Verified {
				t.Error(f)
			}
		}
	})
	t.Run("2 the join reads each file once", func(t *testing.T) {
		users, passwords := auth0Pair(20_000)
		u, p := strings.NewReader(users), strings.NewReader(passwords)
		cs := commands(t, []Input{{Name: "u", R: struct{ io.Reader }{u}}, {Name: "p", R: struct{ io.Reader }{p}}}, Options{})
		if len(cs) != 20_000 || u.Len() != 0 || p.Len() != 0 {
			t.Error(len(cs), u.Len(), p.Len())
		}
		for i, c := range cs {
			if c.HashedPassword == "" {
				t.Fatalf("user %d has lost the hash", i)
			}
		}
	})
	t.Run("3 the join is by id", TestAuth0SameAddressInTwoConnectionsKeepsItsOwnHash)
	t.Run("4 no user aborts a file", func(t *testing.T) {
		users := `{"realm":"r","users":[{"username":"a","credentials":[{"type":"password","secretData":"{\"value\":\"AAAA\",\"salt\":\"AAAA\"}","credentialData":"{\"hashIterations\":5,\"algorithm\":\"home-made\"}"}]},17,{"username":"b","credentials":[{"type":"password","secretData":"{\"value\":\"pHGXaw/zOIsCWDp0ELKeUTUOooQFG5L6LttmlWh/CK4=\",\"salt\":\"c3ludGhldGljLXNhbHQxNg==\"}","credentialData":"{\"hashIterations\":5,\"algorithm\":\"argon2\",\"additionalParameters\":{\"memory\":[\"7168\"],\"type\":[\"id\"],\"version\":[\"1.3\"],\"parallelism\":[\"1\"]}}"}]}]}`
		rs, _, _ := read(t, one(users), Options{})
		if len(rs) != 3 || warned(rs[0], "hashedPassword") == "" || rs[1].Err == nil || !strings.HasPrefix(rs[2].Command.HashedPassword, "$argon2id$") {
			t.Errorf("%+v", rs)
		}
	})
	t.Run("5 state, factors, links and attributes are carried", func(t *testing.T) {
		c := commands(t, folder(t, "keycloak"), Options{})[0]
		if c.State != domain.StateInactive || c.TOTPSecret == "" || len(c.IDPLinks) != 1 || len(c.Metadata) != 2 || !c.ChangeRequired {
			t.Errorf("%+v", c)
		}
	})
	t.Run("6 any number of files, in constant memory", func(t *testing.T) {
		if cs := commands(t, folder(t, "keycloak"), Options{}); len(cs) != 5 {
			t.Error(len(cs))
		}
		for name, in := range map[string]Input{
			"lines": {Name: "a", R: repeat("", auth0User, "", 60_000)},
			"document": {Name: "a", R: repeat(`{"realm":"r","users":[`, func(i int) string {
				return comma(i) + `{"username":"u` + fmt.Sprint(i) + `","pad":"` + strings.Repeat("x", 500) + `"}`
			}, `]}`, 60_000)},
			"zitadel": {Name: "a", R: repeat(`{"dataOrgs":{"orgs":[{"humanUsers":[`, func(i int) string {
				return comma(i) + `{"userId":"u` + fmt.Sprint(i) + `","user":{"pad":"` + strings.Repeat("x", 500) + `"}}`
			}, `],"orgId":"o"}]}}`, 60_000)},
		} {
			if peak, n := peakOf(t, in); peak > 24<<20 || n != 60_000 {
				t.Errorf("%s: %d rows, %d MiB", name, n, peak>>20)
			}
		}
	})
	t.Run("7 blocked, social identities and metadata are carried", func(t *testing.T) {
		cs := commands(t, folder(t, "auth0"), Options{})
		if cs[1].State != domain.StateLocked || len(cs[2].IDPLinks) != 1 || len(cs[0].Metadata) != 2 {
			t.Errorf("%+v", cs)
		}
	})
	t.Run("8 what was left out is reported", func(t *testing.T) {
		_, _, l := read(t, folder(t, "keycloak"), Options{})
		if l.Skipped["service account"] != 1 || l.Fields["realmRoles[]"] != 1 || l.Fields["requiredActions[]"] != 1 || l.Fields["groups[]"] != 1 {
			t.Errorf("%+v", l)
		}
	})
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// repeat is a text of n parts that is made while it is read.
func repeat(head string, part func(int) string, tail string, n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, err := io.WriteString(w, head)
		for i := 0; i < n && err == nil; i++ {
			_, err = io.WriteString(w, part(i))
		}
		if err == nil {
			_, err = io.WriteString(w, tail)
		}
		w.CloseWithError(err)
	}()
	return r
}

// peakOf reads a source and returns by how much the live heap grew at most.
func peakOf(t *testing.T, in Input) (peak int64, n int) {
	t.Helper()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base := int64(m.HeapAlloc)
	r, _, err := Open([]Input{in}, Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for ; ; n++ {
		_, err := r.Next(context.Background())
		if err == io.EOF {
			return peak, n
		}
		if err != nil {
			t.Fatal(err)
		}
		if n%10_000 == 5_000 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, int64(m.HeapAlloc)-base)
		}
	}
}

func TestABadLineHarmsNoOther(t *testing.T) {
	good := `{"userName":"a","profile":{"firstName":"A","lastName":"B"},"email":{"email":"a@example.test"}}`
	for name, bad := range map[string]string{
		"cut off": `{"userName":"a","profile":`, "no object": `[1]`, "garbage": `%%%`, "two": good + good,
		"long": `{"userName":"` + strings.Repeat("x", maxRecord) + `"}`, "deep": `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		rs, _, _ := read(t, one(good+"\n"+bad+"\r\n\n"+good), Options{})
		if len(rs) != 3 || rs[0].Err != nil || rs[1].Err == nil || rs[1].Line != 2 || rs[2].Err != nil || rs[2].Line != 4 || rs[2].Row != 3 {
			t.Errorf("%s: %d rows", name, len(rs))
		}
	}
	// Elements of a list are as independent, as long as the brackets are even.
	rs, _, _ := read(t, one(`{"users":[{"localId":"1"},{"localId":x},{"localId":"`+strings.Repeat("x", maxRecord)+`"},{"localId":"4"}]}`), Options{})
	if len(rs) != 4 || rs[1].Err == nil || rs[2].Err == nil || rs[3].Command.UserID != "4" {
		t.Errorf("%d rows", len(rs))
	}
}

func TestInputsAreUnwrapped(t *testing.T) {
	s := `{"userName":"Åda","profile":{"firstName":"A","lastName":"B"},"email":{"email":"a@example.test"}}` + "\n"
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := io.WriteString(w, s); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var utf16 []byte
	for _, r := range "\ufeff" + s {
		utf16 = append(utf16, byte(r), byte(r>>8))
	}
	for name, b := range map[string][]byte{"plain": []byte(s), "gzip": gz.Bytes(), "zstd": zs.Bytes(), "mark": []byte("\ufeff" + s), "utf-16": utf16} {
		cs := commands(t, []Input{{Name: name, R: bytes.NewReader(b)}}, Options{})
		if len(cs) != 1 || cs[0].UserName != "Åda" {
			t.Errorf("%s: %+v", name, cs)
		}
	}
}

// A list, a document, objects a line, and objects that run over lines hold the
// same rows.
func TestShapesOfJSON(t *testing.T) {
	a, b := strings.TrimSpace(auth0User(1)), strings.TrimSpace(auth0User(2))
	for name, in := range map[string]string{
		"lines": a + "\n" + b, "list": "[" + a + ",\n " + b + "]", "document": `{"start":0,"users":[` + a + `,` + b + `],"total":2}`,
		"pages": `{"users":[` + a + `]}` + "\n" + `{"users":[` + b + `]}` + "\n", "over lines": strings.ReplaceAll(a, ",", ",\n") + b,
	} {
		cs := commands(t, one(in), Options{})
		if len(cs) != 2 || cs[1].UserName != "user2" || len(cs[1].IDPLinks) != 1 {
			t.Errorf("%s: %+v", name, cs)
		}
	}
}

func TestContextEndsReading(t *testing.T) {
	r, _, err := Open(one(auth0User(1)+auth0User(2)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	users, passwords := auth0Pair(1)
	for name, c := range map[string]struct {
		in   []Input
		opts Options
		want error
	}{
		"nothing":      {one(""), Options{}, ErrUnknownFormat},
		"unknown JSON": {one(`{"a":1}`), Options{}, ErrUnknownFormat},
		"unknown CSV":  {one("a,b\n1,2\n"), Options{}, ErrUnknownFormat},
		"only hashes":  {one(passwords), Options{}, ErrNoUsers},
		"mixed":        {append(one(users), one("dn: uid=a\nuid: a\n")...), Options{}, ErrMixedFormats},
		"no format":    {one(users), Options{Format: "x"}, ErrUnknownFormat},
	} {
		if _, _, err := Open(c.in, c.opts); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
