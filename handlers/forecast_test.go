package handlers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/handlers/signin/softkey"
)

// family is one golden vector: an encoding that other software made.
type family struct{ format, password, encoded string }

// families are one vector for each format that is accepted, and the secrets
// that some of them refer to.
func families(t testing.TB) ([]family, password.Secrets) {
	t.Helper()
	f, err := os.Open("../domain/password/testdata/vectors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// What was hashed as "word" is the hash of "wor" under the pepper "d".
	pepper := password.Secret{Pepper: &password.Pepper{Key: password.Key("d"), How: password.PepperSuffix}}
	secrets := password.Secrets{"pepper": pepper}
	seen := map[string]bool{}
	var out []family
	add := func(format, plain, encoded string) {
		if !seen[format] && plain != "" && len(plain) <= 200 {
			seen[format] = true
			out = append(out, family{format, plain, encoded})
		}
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p := strings.Split(lines.Text(), "\t")
		if strings.HasPrefix(lines.Text(), "#") || len(p) != 4 {
			continue
		}
		encoded, err := password.Lift(p[3], secrets, "lifted")
		if err != nil {
			t.Fatalf("%s: %v", p[0], err)
		}
		add(p[0], p[1], encoded)
		if plain, ok := strings.CutSuffix(p[1], "d"); ok {
			if bound, err := password.Bind(p[3], "pepper", pepper); err == nil {
				if format, err := password.Recognise(bound); err == nil {
					add(format.Name, plain, bound)
				}
			}
		}
	}
	for _, name := range password.Accepted() {
		if !seen[name] {
			t.Errorf("no vector for %s", name)
		}
	}
	return out, secrets
}

// forecasted is how a job says that people will get in.
type forecasted struct {
	Users, Password, OldSystem, IDP, Passkey, Verify, Reset, Blocked, Cannot, ChangeRequired, TOTP int64
}

func (f *forecasted) add(o forecasted) {
	f.Users, f.Password, f.OldSystem, f.IDP = f.Users+o.Users, f.Password+o.Password, f.OldSystem+o.OldSystem, f.IDP+o.IDP
	f.Passkey, f.Verify, f.Reset, f.Blocked = f.Passkey+o.Passkey, f.Verify+o.Verify, f.Reset+o.Reset, f.Blocked+o.Blocked
	f.Cannot, f.ChangeRequired, f.TOTP = f.Cannot+o.Cannot, f.ChangeRequired+o.ChangeRequired, f.TOTP+o.TOTP
}

// userBase is an import, and what its people know.
type userBase struct {
	t      *testing.T
	file   strings.Builder
	people []struct{ name, password string }
}

func (c *userBase) line(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	c.file.Write(append(b, '\n'))
}

// add adds a person who will try a password; "" is none.
func (c *userBase) add(name, plain string, fields map[string]any) {
	line := map[string]any{
		"userName": name, "profile": map[string]string{"firstName": "A", "lastName": "B"},
		"email": map[string]any{"email": name + "@example.test", "isEmailVerified": true},
	}
	maps.Copy(line, fields)
	c.line(line)
	c.people = append(c.people, struct{ name, password string }{name, plain})
}

func hashed(encoded string) map[string]string { return map[string]string{"value": encoded} }

func linked(id string) []map[string]string {
	return []map[string]string{{"configId": "google", "externalUserId": id}}
}

func unverified(name string) map[string]any { return map[string]any{"email": name + "@example.test"} }

// cheapest is an md5-crypt hash of "password".
const cheapest = "$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1"

// The forecast of an import is what a scripted login of every user achieves:
// nobody who was said to get in stays out, by whichever way, and nobody else
// gets in. Every format of hashes is among them.
func TestTheForecastIsWhatLoginsAchieve(t *testing.T) {
	t.Parallel()
	s := start(t, withSignIn(t, func(c *signin.Config) { c.PublicURL = "https://id.example.org" }))
	c := &userBase{t: t}
	vectors, secrets := families(t)
	c.line(map[string]any{"secrets": secrets})
	for _, v := range vectors {
		c.add("hash-"+v.format, v.password, map[string]any{"hashedPassword": hashed(v.encoded)})
	}
	c.add("plain", "Correct-horse-7", map[string]any{"password": "Correct-horse-7"})
	c.add("change", "password", map[string]any{"hashedPassword": hashed(cheapest), "passwordChangeRequired": true})
	c.add("totp", "password", map[string]any{"hashedPassword": hashed(cheapest), "otpCode": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"})
	c.add("hash-and-link", "password", map[string]any{"hashedPassword": hashed(cheapest), "idps": linked("1")})
	c.add("link", "", map[string]any{"idps": linked("2")})
	c.add("passkey", "", map[string]any{"requestPasswordlessRegistration": true})
	c.add("passkey-and-link", "", map[string]any{"requestPasswordlessRegistration": true, "idps": linked("3")})
	c.add("verify", "password", map[string]any{"hashedPassword": hashed(cheapest), "email": unverified("verify"), "passwordChangeRequired": true})
	c.add("reset", "", nil)
	c.add("reset-unverified", "", map[string]any{"email": unverified("reset")})
	c.add("inactive", "password", map[string]any{"hashedPassword": hashed(cheapest), "state": "inactive"})
	c.add("locked", "password", map[string]any{"hashedPassword": hashed(cheapest), "state": "locked"})
	// Refused lines are in no forecast.
	c.line(map[string]any{"userName": "unknown-hash", "profile": map[string]string{"firstName": "A", "lastName": "B"},
		"email": unverified("unknown"), "hashedPassword": hashed("$nobody$knows$this")})

	said, ids, links := s.forecast(t, c, "")
	if want := int64(len(vectors) + 4); said.Users != int64(len(c.people)) || said.Password != want || said.TOTP != 1 {
		t.Errorf("the forecast: %+v, want %d by password of %d", said, want, len(c.people))
	}
	if got := s.everybody(t, c, ids, links); got != said {
		t.Errorf("forecast %+v\nachieved %+v", said, got)
	}
}

// Those whom the old system knows get in with their password through it, once,
// and are forecast to.
func TestTheForecastCountsOnTheOldSystem(t *testing.T) {
	t.Parallel()
	const known = "known there only"
	var asked atomic.Int64
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var q struct{ Password string }
		if json.NewDecoder(r.Body).Decode(&q) != nil || q.Password != known || r.Header.Get("Authorization") != "Basic old" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer old.Close()
	s := start(t, withSignIn(t, nil))
	c := &userBase{t: t}
	c.add("old", known, nil)
	c.add("old-change", known, map[string]any{"passwordChangeRequired": true})
	c.add("old-totp", known, map[string]any{"otpCode": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"})
	c.add("old-hash", known, map[string]any{"hashedPassword": hashed("$nobody$knows$this"), "idps": linked("1")})
	c.add("old-verify", known, map[string]any{"email": unverified("verify")})
	c.add("hash", "password", map[string]any{"hashedPassword": hashed(cheapest)})
	c.add("link", "", map[string]any{"idps": linked("2")})
	c.add("inactive", known, map[string]any{"state": "inactive"})

	query, header := "verifyURL="+old.URL+"/check", "Muster-Verify-Authorization"
	begin := func(query, authorization string) answer {
		t.Helper()
		return s.rest(t, "POST", importPath+"?"+query, "", "Content-Type", "application/x-ndjson", header, authorization)
	}
	for _, bad := range []string{"verifyURL=http://example.org/", "verifyURL=/check", "verifyURL=https://u:p@example.org/", "verifyURL=ftp://example.org", "verifyURL=https://"} {
		want(t, begin(bad, "Basic old"), 400, 3, "MUSTER-verifyurl")
	}
	want(t, begin("dryRun=true", "Basic old"), 400, 3, "MUSTER-verifyurl")
	said, ids, links := s.forecast(t, c, query, header, "Basic old")
	want(t, begin("jobId=forecast&verifyURL=https://other.example/", "Basic old"), 400, 9, "MUSTER-joboptions")
	want(t, begin("jobId=forecast&"+query, "Basic other"), 400, 9, "MUSTER-joboptions")
	if said != (forecasted{Users: 8, Password: 1, OldSystem: 4, Verify: 1, IDP: 1, Blocked: 1, ChangeRequired: 1, TOTP: 1}) {
		t.Errorf("forecast %+v", said)
	}
	if n := s.waiting(t); n != 6 { // all that the old system knows, whatever else they need
		t.Errorf("%v wait for the old system", n)
	}
	if got := s.everybody(t, c, ids, links); got != said {
		t.Errorf("forecast %+v\nachieved %+v", said, got)
	}
	if n := s.waiting(t); n != 1 { // who is inactive
		t.Errorf("%v wait for the old system after everybody tried", n)
	}
	before := asked.Load()
	for _, name := range []string{"old", "old-hash", "old-verify"} {
		if a := s.rest(t, "POST", "/v2/sessions", checks(name, known)); a.HTTP != 200 {
			t.Errorf("%s, again: %d: %s", name, a.HTTP, a.Body)
		}
	}
	if n := asked.Load(); n != before {
		t.Errorf("the old system was asked %d times more", n-before)
	}
	for _, secret := range []string{known, "Basic old", old.URL} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
		var found int
		if err := s.store.Pool().QueryRow(context.Background(), `
			SELECT count(*) FROM events e WHERE strpos(convert_from(coalesce(e.data, ''), 'SQL_ASCII'), $1) > 0`, secret).Scan(&found); err == nil && found > 0 {
			t.Errorf("%q is in %d events in clear", secret, found)
		}
	}
}

// forecast imports a corpus, as a rehearsal first, and returns what the job
// forecasts, its users, and the links that it gave them. A call that resumes it
// need not name the old system's authorization.
func (s *system) forecast(t *testing.T, c *userBase, query string, headers ...string) (said forecasted, ids, links []string) {
	t.Helper()
	summary := func(answers []bulkAnswer) (f forecasted) {
		t.Helper()
		sum := answers[len(answers)-1].Summary
		if sum == nil {
			t.Fatalf("%+v", answers[len(answers)-1])
		}
		b, err := json.Marshal(sum.Forecast)
		if err == nil {
			err = json.Unmarshal(b, &f)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	dry := summary(s.bulk(t, s.http, query+"&dryRun=true", strings.NewReader(c.file.String()), headers...))
	answers := s.bulk(t, s.http, query+"&jobId=forecast", strings.NewReader(c.file.String()), headers...)
	said = summary(answers)
	if dry != said {
		t.Errorf("the dry run said %+v, the import %+v", dry, said)
	}
	if again := summary(s.bulk(t, s.http, query+"&jobId=forecast", strings.NewReader(c.file.String()))); again != said {
		t.Errorf("resumed it says %+v, before %+v", again, said)
	}
	for i, p := range c.people {
		a := answers[i]
		if a.Outcome != "created" {
			t.Fatalf("%s: %+v: %+v", p.name, a, a.Error)
		}
		link := ""
		if a.PasswordlessRegistration != nil {
			link = a.PasswordlessRegistration.Link
		}
		ids, links = append(ids, a.UserID), append(links, link)
	}
	return said, ids, links
}

// waiting is how many of the job's users wait for the old system.
func (s *system) waiting(t *testing.T) float64 {
	t.Helper()
	if err := s.deps.Projections.WaitFor(context.Background(), "users", s.head(t)); err != nil {
		t.Fatal(err)
	}
	a := s.rest(t, "GET", "/v1/imports/forecast", "")
	return a.raw["import"].(map[string]any)["waitingForOldSystem"].(float64)
}

// everybody has all people of a corpus try to get in, and adds up how they did.
func (s *system) everybody(t *testing.T, c *userBase, ids, links []string) (got forecasted) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, p := range c.people {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			way := s.tryToGetIn(t, ids[i], p.name, p.password, links[i])
			mu.Lock()
			defer mu.Unlock()
			got.add(way)
		})
	}
	wg.Wait()
	return got
}

// tryToGetIn does what a person does: logs in with the password; when that does
// not do, takes the code of the mail, which is read from the log here, and
// tries again, or sets a password with it; takes the passkey link; or has come
// with a provider's account, which is the provider's affair: the user is active
// and has the link.
func (s *system) tryToGetIn(t *testing.T, id, name, plain, link string) forecasted {
	u := s.opened(t, id)
	way := forecasted{Users: 1}
	logIn := func(plain string) bool {
		a := s.rest(t, "POST", "/v2/sessions", checks(name, plain))
		if a.HTTP != 200 {
			return false
		}
		if a.Header.Get("Muster-Password-Change-Required") == "true" {
			way.ChangeRequired = 1
		}
		if u.HasTOTP {
			way.TOTP = 1
			a = s.rest(t, "PATCH", "/v2/sessions/"+a.raw["sessionId"].(string), fmt.Sprintf(`{"checks":{"totp":{"code":%q}}}`, u.TOTPCode(time.Now())))
		}
		return a.HTTP == 200
	}
	complete := func(plain string) bool {
		_, err := s.deps.SignIn.Initialize(context.Background(), id, u.InitCode.Secret, plain)
		return err == nil
	}
	switch {
	case plain != "" && logIn(plain):
		if u.OldSystem != "" {
			way.OldSystem = 1
		} else {
			way.Password = 1
		}
	case plain != "" && u.InitCode != nil && complete("") && logIn(plain):
		way.Verify = 1
	case u.InitCode != nil && u.State == domain.StateInitial && complete("Correct-horse-7") && logIn("Correct-horse-7"):
		way.Reset = 1
	case len(u.IDPLinks) > 0 && u.State == domain.StateActive:
		way.IDP = 1
	case link != "" && s.passkey(t, id, link):
		way.Passkey = 1
	case u.State == domain.StateInactive || u.State == domain.StateLocked:
		way.Blocked = 1
	default:
		way.Cannot = 1
		t.Errorf("%s cannot get in: state %d", name, u.State)
	}
	return way
}

// passkey registers one by a link and logs in with it.
func (s *system) passkey(t *testing.T, id, link string) bool {
	ctx := context.Background()
	u, err := url.Parse(link)
	if err != nil {
		t.Error(err)
		return false
	}
	q := u.Query()
	const origin = "https://id.example.org"
	c, err := s.deps.SignIn.BeginPasskey(ctx, origin, q.Get("userID"), q.Get("codeID"), q.Get("code"))
	if err != nil {
		t.Error(err)
		return false
	}
	k := softkey.New(t)
	if _, err := s.deps.SignIn.FinishPasskey(ctx, origin, id, q.Get("codeID"), q.Get("code"), c.State, "key", k.Register(t, c.Options, origin)); err != nil {
		t.Error(err)
		return false
	}
	begun := s.rest(t, "POST", "/v2/sessions", `{"checks":{"user":{"userId":"`+id+`"}},
		"challenges":{"webAuthN":{"domain":"id.example.org","userVerificationRequirement":"USER_VERIFICATION_REQUIREMENT_REQUIRED"}}}`)
	var asked struct {
		Challenges struct {
			WebAuthN struct {
				Options struct{ PublicKey json.RawMessage } `json:"publicKeyCredentialRequestOptions"`
			}
		}
	}
	if err := json.Unmarshal(begun.Body, &asked); err != nil || begun.HTTP != 200 {
		t.Errorf("%d: %s", begun.HTTP, begun.Body)
		return false
	}
	response := k.Assert(t, asked.Challenges.WebAuthN.Options.PublicKey, origin)
	done := s.rest(t, "PATCH", "/v2/sessions/"+begun.raw["sessionId"].(string), `{"checks":{"webAuthN":{"credentialAssertionData":`+string(response)+`}}}`)
	got := s.rest(t, "GET", "/v2/sessions/"+begun.raw["sessionId"].(string), "")
	if done.HTTP != 200 || !strings.Contains(string(got.Body), `"userVerified":true`) {
		t.Errorf("%d: %s; %s", done.HTTP, done.Body, got.Body)
		return false
	}
	return true
}

// opened reads a user's state as who holds the keys does.
func (s *system) opened(t *testing.T, id string) *domain.User {
	events, err := s.store.ReadStream(context.Background(), id, 0)
	if err == nil {
		err = s.store.Open(context.Background(), events)
	}
	u := domain.NewUser(id, "org-1")
	for _, e := range events {
		fact, decodeErr := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err = errors.Join(err, decodeErr); err == nil {
			u.Apply(fact)
		}
	}
	if err != nil {
		t.Error(err)
	}
	return u
}
