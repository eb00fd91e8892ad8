package handlers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// The canaries are in lines that fail, or are secrets: none may be found
// anywhere afterwards. All hold the word.
const (
	canaryTOTP   = "CANARYTOTPSECRETAAAA2222"
	canaryPlain  = "Canary-pw-1"
	canaryPepper = "Y2FuYXJ5LXBlcHBlci1rZXk=" // of "canary-pepper-key"
)

// defect is a change to a good line, and what must be said of it. Where old is
// empty, the whole line is replaced.
type defect struct {
	old, new string
	code     int
	id       string
	field    string
}

var defects = []defect{
	{`"userName":"canaryname-%d"`, `"userName":""`, 3, "", "userName"},
	{`"userName":`, `"userNome":`, 3, "", "userName"},
	{`"canaryname-%d",`, `"` + strings.Repeat("canary", 34) + `",`, 3, "", "userName"},
	{`"canaryname-%d",`, `" \t ",`, 3, "COMMAND-00p2b", "userName"},
	{`"canaryname-%d",`, `4711,`, 3, "", "userName"},
	{`{"userName"`, `{"user_name":"canary","userName"`, 3, "", "userName"},
	{`"profile":{"firstName":"Ada","lastName":"Lind"}`, `"profile":null`, 3, "", "profile"},
	{`"profile":{"firstName":"Ada","lastName":"Lind"}`, `"profile":["canary"]`, 3, "", "profile"},
	{`"firstName":"Ada"`, `"firstName":""`, 3, "", "profile.firstName"},
	{`"firstName":"Ada"`, `"firstName":{"canary":1}`, 3, "", "profile.firstName"},
	{`"lastName":"Lind"`, `"lastNames":"canary"`, 3, "", "profile.lastName"},
	{`"lastName":"Lind"`, `"lastName":"` + strings.Repeat("ü", 201) + `"`, 3, "", "profile.lastName"},
	{`"lastName":"Lind"`, `"lastName":"Lind","nickName":"` + strings.Repeat("canary", 34) + `"`, 3, "", "profile.nickName"},
	{`"lastName":"Lind"`, `"lastName":"Lind","displayName":"` + strings.Repeat("canary", 34) + `"`, 3, "", "profile.displayName"},
	{`"lastName":"Lind"`, `"lastName":"Lind","preferredLanguage":"canary-lang"`, 3, "", "profile.preferredLanguage"},
	{`"lastName":"Lind"`, `"lastName":"Lind","gender":true`, 3, "", "profile.gender"},
	{`"lastName":"Lind"`, `"lastName":"Li\u0000nd"`, 3, "MUSTER-text", "profile.lastName"},
	{`"email":{"email":"canaryname-%d@example.test","isEmailVerified":true},`, ``, 3, "", "email"},
	{`"email":"canaryname-%d@example.test"`, `"email":""`, 3, "", "email.email"},
	{`"email":"canaryname-%d@example.test"`, `"email":"canary.example.test"`, 3, "", "email.email"},
	{`"email":"canaryname-%d@example.test"`, `"email":"a@canary@example.test"`, 3, "", "email.email"},
	{`"email":"canaryname-%d@example.test"`, `"email":"canary@-example.test"`, 3, "", "email.email"},
	{`"email":"canaryname-%d@example.test"`, `"email":"Canary <canary@example.test>"`, 3, "EMAIL-599GV", "email.email"},
	{`"email":"canaryname-%d@example.test"`, `"email":"` + strings.Repeat("canary", 11) + `@example.test"`, 3, "", "email.email"},
	{`"isEmailVerified":true`, `"isEmailVerified":"canary"`, 3, "", "email.isEmailVerified"},
	{`"phone":"+41791234567"`, `"phone":""`, 3, "", "phone.phone"},
	{`"phone":"+41791234567"`, `"phone":"canary"`, 3, "", "phone.phone"},
	{`"phone":"+41791234567"`, `"phone":"+` + strings.Repeat("4", 50) + `"`, 3, "", "phone.phone"},
	{`"phone":"+41791234567"`, `"phone":"+0canary"`, 3, "PHONE-so0wa", "phone.phone"},
	{bulkHash, `canary`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `$2y$31$canarycanarycanarycanary.jFh817Z6lwmcanarycanarycanar`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `$argon2id$v=19$m=99999999,t=1,p=1$Y2FuYXJ5Y2FuYXJ5$Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `$argon2d$v=19$m=65536,t=1,p=1$Y2FuYXJ5Y2FuYXJ5$Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `$pbkdf2-sha256$99999999$Y2FuYXJ5$Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2E`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `{CLEARTEXT}canary`, 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, strings.Repeat("ca", 32), 3, "USER-JDk4t", "hashedPassword.value"},
	{bulkHash, `$muster-pepper$other$$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm`, 3, "USER-JDk4t", "hashedPassword.value"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"Cana1!"`, 3, "DOMAIN-HuJf6", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"CANARY-PW-1"`, 3, "DOMAIN-co3Xw", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"canary-pw-1"`, 3, "DOMAIN-VoaRj", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"Canary-pw-x"`, 3, "DOMAIN-ZBv4H", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"Canarypw1"`, 3, "DOMAIN-ZDLwA", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":"` + strings.Repeat("Canary1!", 513) + `"`, 3, "MUSTER-length", "password"},
	{`"hashedPassword":{"value":"` + bulkHash + `"}`, `"password":["canary"]`, 3, "", "password"},
	{canaryTOTP, `canary-1-8-9`, 3, "MUSTER-totp", "otpCode"},
	{canaryTOTP, `otpauth://totp/canary?secret=` + canaryTOTP + `&algorithm=SHA256`, 3, "MUSTER-totpkind", "otpCode"},
	{`"configId":"google"`, `"configId":""`, 3, "", "idps[0].configId"},
	{`"externalUserId":"canary-g-%d"`, `"externalUser":"canary"`, 3, "", "idps[0].externalUserId"},
	{`"idps":[`, `"idps":[{"configId":"GOOGLE","externalUserId":"CANARY-G-%d"},`, 6, "V3-DKcYh", "idps[1].externalUserId"},
	{`"key":"k"`, `"key":""`, 3, "MUSTER-metakey", "metadata[0].key"},
	{`"value":"dg=="`, `"value":"*canary*"`, 3, "", "metadata[0].value"},
	{`{"userName"`, `{"state":"canary","userName"`, 3, "MUSTER-state", "state"},
	{`{"userName"`, `{"userId":"$canary","userName"`, 3, "MUSTER-userid", "userId"},
	{`{"userName"`, `{"userId":"id-5","userName"`, 6, "V3-DKcYh", "userId"},
	{`"canaryname-%d",`, `"USER-5",`, 6, "V3-DKcYh", "userName"},
	{`"canary-g-%d"`, `"g-5"`, 6, "V3-DKcYh", ""},
	{``, `{"userName":"canary","profile":{"firstName"`, 3, "", ""},
	{``, "{\"userName\":\"canary\xff\"}", 3, "MUSTER-text", ""},
	{``, `["canary"]`, 3, "", ""},
	{``, `{"userName":"` + strings.Repeat("canary", 200_000) + `"}`, 3, "", ""},
}

// corpus is 1,000 lines, 60 of which are defective, each in another way.
func corpus(t testing.TB) (text string, wrong map[int64]defect) {
	t.Helper()
	if len(defects) != 60 {
		t.Fatalf("%d defects", len(defects))
	}
	wrong = map[int64]defect{}
	var b strings.Builder
	next := 0
	for n := 1; n <= 1000; n++ {
		line := fmt.Sprintf(`{"userName":"user-%d","profile":{"firstName":"Ada","lastName":"Lind"},"email":{"email":"user-%d@example.test","isEmailVerified":true},"phone":{"phone":"+41791234567"},`+
			`"hashedPassword":{"value":%q},"idps":[{"configId":"google","externalUserId":"g-%d"}],"metadata":[{"key":"k","value":"dg=="}],"otpCode":%q,"userId":"id-%d"}`, n, n, bulkHash, n, canaryTOTP, n)
		if n%16 == 15 && next < len(defects) {
			d := defects[next]
			next++
			wrong[int64(n)] = d
			if d.old == "" {
				line = d.new
			} else {
				line = strings.NewReplacer("user-", "canaryname-", `"g-`, `"canary-g-`, fmt.Sprintf(`,"userId":"id-%d"`, n), "").Replace(line)
				was, is := strings.ReplaceAll(d.old, "%d", fmt.Sprint(n)), strings.ReplaceAll(d.new, "%d", fmt.Sprint(n))
				if !strings.Contains(line, was) {
					t.Fatalf("defect %d: %s is not in %s", next, was, line)
				}
				line = strings.Replace(line, was, is, 1)
			}
		}
		b.WriteString(line + "\n")
	}
	return b.String(), wrong
}

// hidden checks that the word is nowhere: not in a log line, an answer, a table.
func (s *system) hidden(t *testing.T, texts ...string) {
	t.Helper()
	for i, text := range append(texts, s.log.String()) {
		if at := strings.Index(strings.ToLower(text), "canary"); at >= 0 {
			t.Errorf("text %d has a canary: …%.200s", i, text[max(0, at-100):])
		}
	}
	ctx := context.Background()
	conn, err := s.store.Pool().Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname),
		coalesce((SELECT string_agg(format('encode(%I, ''escape'')', a.attname), ' || ') FROM pg_attribute a
			WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'bytea'::regtype), '''''')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'read_models') AND has_table_privilege(c.oid, 'SELECT')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Bytes string }])
	if err != nil || len(tables) < 15 {
		t.Fatalf("%d tables: %v", len(tables), err)
	}
	for _, table := range tables {
		var n int
		if err := conn.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) FROM %s AS t WHERE t::text || coalesce(%s, '') ILIKE '%%canary%%'`, table.Name, table.Bytes)).Scan(&n); err != nil {
			t.Fatalf("%s: %v", table.Name, err)
		}
		if n > 0 {
			t.Errorf("%d rows of %s have a canary", n, table.Name)
		}
	}
}

func TestBulkCorpus(t *testing.T) {
	s := start(t, withJobs)
	text, wrong := corpus(t)
	dry := s.bulk(t, s.http, "jobId=dry&dryRun=true", strings.NewReader(text))
	done := s.bulk(t, s.http, "jobId=real", strings.NewReader(text))
	if len(dry) != 1001 || len(done) != 1001 {
		t.Fatalf("%d and %d answers", len(dry), len(done))
	}
	for i, a := range done[:1000] {
		n := int64(i + 1)
		d, bad := wrong[n]
		switch {
		case a.Line != n:
			t.Fatalf("answer %d is of line %d", n, a.Line)
		case !bad && a.Outcome != "created":
			t.Errorf("line %d: %+v %+v", n, a, a.Error)
		case bad && (a.Outcome != "failed" || a.Error == nil || a.Error.Code != d.code || a.id() != d.id || a.Field != d.field || a.UserID != ""):
			t.Errorf("line %d (%.60s): %+v %+v", n, d.new, a, a.Error)
		}
		// The same report, but for what only an append has.
		a.Details = dry[i].Details
		if diff := cmp.Diff(a, dry[i], cmp.AllowUnexported(bulkAnswer{})); diff != "" {
			t.Errorf("line %d: real and dry run differ: %s", n, diff)
		}
	}
	for _, all := range [][]bulkAnswer{dry, done} {
		sum := all[1000].Summary
		if sum == nil || sum.Created != 940 || sum.Failed != 60 || sum.Lines != 1000 {
			t.Errorf("summary %+v", sum)
		}
	}
	if diff := cmp.Diff(done[1000].Summary.Forecast, dry[1000].Summary.Forecast); diff != "" {
		t.Errorf("the forecasts differ: %s", diff)
	}
	if err := s.deps.Projections.WaitFor(context.Background(), "users", s.head(t)); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, path := range []string{"/real/failures", "/real/answers", "/dry/failures", "/real", ""} {
		a := s.rest(t, "GET", "/v1/imports"+path, "")
		if a.HTTP != 200 || len(a.Body) < 100 {
			t.Errorf("%s: %d %s", path, a.HTTP, a.Body)
		}
		texts = append(texts, string(a.Body))
	}
	if n := strings.Count(texts[0], "\n"); n != 60 {
		t.Errorf("%d failures are kept", n)
	}
	s.hidden(t, append(texts, fmt.Sprintf("%+v %+v", done, dry))...)
}

// TestBulkSecrets tells a job a project's secret: it is sealed, hashes refer to
// it under the job's name, and whoever verifies them finds it.
func TestBulkSecrets(t *testing.T) {
	s := start(t, withJobs)
	peppered := func(n int, ref string) string {
		return strings.Replace(person(n), bulkHash, "$muster-pepper$"+ref+"$"+"$2a$10$AfvyXJACBoJAd.2sfPz7ouoPDdExvK/2x8IAMVBl01t/0lDpITuUC", 1)
	}
	secrets := `{"secrets":{"main":{"pepper":{"key":"` + canaryPepper + `","how":"suffix"}}}}`
	body := strings.Join([]string{peppered(1, "main"), secrets, peppered(2, "main"), secrets, peppered(3, "other"),
		strings.Replace(secrets, canaryPepper, "Y2FuYXJ5", 1), `{"secrets":{"a b":{}}}`, `{"secrets":"canary"}`,
		`{"userName":"plain","profile":{"firstName":"a","lastName":"b"},"email":{"email":"a@b.c","isEmailVerified":true},"password":"` + canaryPlain + `"}`}, "\n")
	for _, query := range []string{"dryRun=true", "jobId=j1", "jobId=j1"} {
		got := s.bulk(t, s.http, query, strings.NewReader(body))
		var says []string
		for _, a := range got {
			says = append(says, fmt.Sprintf("%d %s %s %s", a.Line, a.Outcome, a.id(), a.Field))
		}
		want := []string{"1 failed USER-JDk4t hashedPassword.value", "3 created  ", "5 failed USER-JDk4t hashedPassword.value", "6 failed  ", "7 failed  ", "8 failed  ", "9 created  ", "0   "}
		if diff := cmp.Diff(want, says); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
		s.hidden(t, fmt.Sprintf("%+v", got))
	}
	ctx := context.Background()
	found, err := s.deps.Jobs.Secrets(ctx, "j1:main")
	if err != nil || string(found["j1:main"].Pepper.Key) != "canary-pepper-key" {
		t.Errorf("the secret is not found: %v", err)
	}
	var lines []byte
	n, err := s.deps.Jobs.Export(ctx, "org-1", func(b []byte) error { lines = append(lines, b...); return nil })
	if err != nil || n != 2 || strings.Count(string(lines), "\n") != 3 || !strings.Contains(string(lines), "$muster-pepper$s1$") || strings.Count(string(lines), canaryPepper) != 1 {
		t.Errorf("exported %d users: %v\n%s", n, err, lines)
	}
}
