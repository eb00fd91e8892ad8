package handlers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
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
	secrets := password.Secrets{
		"pepper": {Pepper: &password.Pepper{Key: password.Key("-and-more"), How: password.PepperSuffix}},
		"second": {Pepper: &password.Pepper{Key: password.Key("-and-more"), How: password.PepperSuffix}},
	}
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
		// What was hashed as "xyz-and-more" is the peppered hash of "xyz".
		if plain, ok := strings.CutSuffix(p[1], "d"); ok && plain != "" {
			secret := password.Secret{Pepper: &password.Pepper{Key: password.Key("d"), How: password.PepperSuffix}}
			if bound, err := password.Bind(p[3], "pepper", secret); err == nil {
				if format, err := password.Recognise(bound); err == nil {
					secrets["pepper"] = secret
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
	delete(secrets, "second")
	return out, secrets
}

// forecasted is how a job says that people will get in.
type forecasted struct {
	Users, Password, OldSystem, IDP, Passkey, Verify, Reset, Blocked, Cannot, ChangeRequired, TOTP int64
}

// The forecast of an import is what a scripted login of every user achieves:
// nobody who was said to get in stays out, by whichever way, and nobody else
// gets in.
func TestTheForecastIsWhatLoginsAchieve(t *testing.T) {
	t.Parallel()
	const oldPassword = "known there only"
	var asked atomic.Int64
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var q struct{ Password string }
		if json.NewDecoder(r.Body).Decode(&q) != nil || q.Password != oldPassword || r.Header.Get("Authorization") != "Basic old" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer old.Close()
	s := start(t, withSignIn(t, nil))
	ctx := context.Background()

	// someone is what the script knows of a line, as the person does.
	type someone struct {
		name, password, code string
		blocked              bool
		idp                  bool
	}
	var (
		people []someone
		file   strings.Builder
	)
	vectors, secrets := families(t)
	told, err := json.Marshal(map[string]any{"secrets": secrets})
	if err != nil {
		t.Fatal(err)
	}
	file.Write(append(told, '\n'))
	add := func(name, plain string, fields map[string]any) {
		line := map[string]any{
			"userName": name, "profile": map[string]string{"firstName": "A", "lastName": "B"},
			"email": map[string]any{"email": name + "@example.test", "isEmailVerified": true},
		}
		for k, v := range fields {
			line[k] = v
		}
		b, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(b, '\n'))
		p := someone{name: name, password: plain}
		p.blocked = fields["state"] != nil
		p.idp = fields["idps"] != nil
		people = append(people, p)
	}
	hashed := func(encoded string) map[string]string { return map[string]string{"value": encoded} }
	link := []map[string]string{{"configId": "google", "externalUserId": "g"}}
	unverified := func(name string) map[string]any { return map[string]any{"email": name + "@example.test"} }
	cheap := hashed("$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1")
	for _, v := range vectors {
		add("hash-"+v.format, v.password, map[string]any{"hashedPassword": hashed(v.encoded)})
	}
	add("plain", "Correct-horse-7", map[string]any{"password": "Correct-horse-7"})
	add("change", "password", map[string]any{"hashedPassword": cheap, "passwordChangeRequired": true})
	add("totp", "password", map[string]any{"hashedPassword": cheap, "otpCode": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"})
	add("hash-and-link", "password", map[string]any{"hashedPassword": cheap, "idps": []map[string]string{{"configId": "google", "externalUserId": "h"}}})
	add("link", "", map[string]any{"idps": link})
	add("passkey", "", map[string]any{"requestPasswordlessRegistration": true, "idps": []map[string]string{{"configId": "google", "externalUserId": "p"}}})
	add("verify", "password", map[string]any{"hashedPassword": cheap, "email": unverified("verify")})
	add("verify-old", oldPassword, map[string]any{"email": unverified("verify-old")})
	add("inactive", "password", map[string]any{"hashedPassword": cheap, "state": "inactive"})
	add("locked", "password", map[string]any{"hashedPassword": cheap, "state": "locked"})
	add("old", oldPassword, nil)
	add("old-change", oldPassword, map[string]any{"passwordChangeRequired": true})
	add("old-hash", oldPassword, map[string]any{"hashedPassword": hashed("$nobody$knows$this"), "idps": []map[string]string{{"configId": "google", "externalUserId": "o"}}})
	add("old-wrong", "not the right one", nil)

	query := "verifyURL=" + old.URL + "/check"
	header := []string{"Muster-Verify-Authorization", "Basic old"}
	want(t, s.rest(t, "POST", importPath+"?verifyURL=http://example.org/", "{}", "Content-Type", "application/x-ndjson"), 400, 3, "MUSTER-verifyurl")
	dry := s.bulk(t, s.http, query+"&dryRun=true", strings.NewReader(file.String()), header...)
	real := s.bulk(t, s.http, query+"&jobId=forecast", strings.NewReader(file.String()), header...)
	if a := s.bulk(t, s.http, query+"&jobId=forecast", strings.NewReader(file.String())); a[len(a)-1].Summary == nil {
		t.Errorf("the job cannot be resumed without telling the authorization again: %+v", a[len(a)-1])
	}
	want(t, s.rest(t, "POST", importPath+"?verifyURL=https://other.example/&jobId=forecast", "{}", "Content-Type", "application/x-ndjson"), 400, 9, "MUSTER-joboptions")
	said := forecastOf(t, real)
	if said != forecastOf(t, dry) {
		t.Errorf("the dry run said %+v, the import %+v", forecastOf(t, dry), said)
	}
	if sum := real[len(real)-1].Summary; sum.Created != int64(len(people)) || sum.Failed != 0 {
		for _, a := range real {
			if a.Error != nil {
				t.Errorf("line %d: %s %s", a.Line, a.Error.Message, a.Field)
			}
		}
		t.Fatalf("%+v", sum)
	}
	if waiting := s.rest(t, "GET", "/v1/imports/forecast", "", "Muster-Min-Position", "0"); waiting.HTTP != 200 {
		t.Fatalf("%d: %s", waiting.HTTP, waiting.Body)
	}
	waits := func() (n float64) {
		t.Helper()
		if err := s.deps.Projections.WaitFor(ctx, "users", s.head(t)); err != nil {
			t.Fatal(err)
		}
		a := s.rest(t, "GET", "/v1/imports/forecast", "")
		return a.raw["import"].(map[string]any)["waitingForOldSystem"].(float64)
	}
	if n := waits(); n != float64(said.OldSystem)+1 { // and the one who has to prove the address first
		t.Errorf("%v wait for the old system, forecast %d", n, said.OldSystem)
	}

	// The script: everybody tries what they have.
	var (
		mu  sync.Mutex
		got forecasted
		wg  sync.WaitGroup
	)
	slots := make(chan struct{}, 4)
	for i, p := range people {
		id := real[i].UserID // a line of secrets has no answer
		link := ""
		if l := real[i].PasswordlessRegistration; l != nil {
			link = l.Link
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			way := s.tryToGetIn(t, id, p.name, p.password, link)
			mu.Lock()
			defer mu.Unlock()
			got.Users++
			got.TOTP += way.TOTP
			got.ChangeRequired += way.ChangeRequired
			got.Password, got.OldSystem, got.Verify = got.Password+way.Password, got.OldSystem+way.OldSystem, got.Verify+way.Verify
			got.IDP, got.Passkey, got.Reset = got.IDP+way.IDP, got.Passkey+way.Passkey, got.Reset+way.Reset
			got.Blocked, got.Cannot = got.Blocked+way.Blocked, got.Cannot+way.Cannot
		})
	}
	wg.Wait()
	// One of those whom the old system knows has forgotten the password: that
	// is all that a forecast cannot know.
	got.OldSystem++
	got.Cannot--
	if got != said {
		t.Errorf("forecast %+v\nachieved %+v", said, got)
	}
	if n := waits(); n != 1 {
		t.Errorf("%v wait for the old system after everybody tried", n)
	}
	before := asked.Load()
	for _, name := range []string{"old", "old-hash", "verify-old"} {
		if a := s.rest(t, "POST", "/v2/sessions", checks(name, oldPassword)); a.HTTP != 200 {
			t.Errorf("%s, again: %d: %s", name, a.HTTP, a.Body)
		}
	}
	if n := asked.Load(); n != before {
		t.Errorf("the old system was asked %d times more", n-before)
	}
	for _, secret := range []string{oldPassword, "Basic old", old.URL} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func forecastOf(t *testing.T, answers []bulkAnswer) (f forecasted) {
	t.Helper()
	sum := answers[len(answers)-1].Summary
	if sum == nil {
		t.Fatalf("no summary: %+v", answers[len(answers)-1])
	}
	b, err := json.Marshal(sum.Forecast)
	if err == nil {
		err = json.Unmarshal(bytes.ToLower(b), &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// tryToGetIn does what a person does: logs in with the password; when the
// account is not complete, takes the mail's code first; when there is no
// password, takes the provider, the passkey link, or a new password by mail.
func (s *system) tryToGetIn(t *testing.T, id, name, plain, link string) (way forecasted) {
	ctx := context.Background()
	history, events, err := s.opened(id)
	if err != nil {
		t.Error(err)
		return way
	}
	state := func(pass string) (done, change, totp bool) {
		a := s.rest(t, "POST", "/v2/sessions", checks(name, pass))
		if a.HTTP != 200 {
			return false, false, false
		}
		change = a.Header.Get("Muster-Password-Change-Required") == "true"
		if history.HasTOTP {
			totp = true
			session, token := a.raw["sessionId"].(string), a.raw["sessionToken"].(string)
			b := s.rest(t, "PATCH", "/v2/sessions/"+session, fmt.Sprintf(`{"sessionToken":%q,"checks":{"totp":{"code":%q}}}`, token, history.TOTPCode(time.Now())))
			return b.HTTP == 200, change, true
		}
		return true, change, false
	}
	count := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	old := history.OldSystem != ""
	in, change, totp := plain != "" && true, false, false
	if in {
		in, change, totp = state(plain)
	}
	way.TOTP, way.ChangeRequired = count(totp), count(change)
	code := history.InitCode
	switch {
	case in && old:
		way.OldSystem = 1
	case in:
		way.Password = 1
	case history.State == domain.StateInactive || history.State == domain.StateLocked:
		way.Blocked = 1
	case code != nil && plain != "":
		if _, err := s.deps.SignIn.Initialize(ctx, id, code.Secret, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		in, change, totp = state(plain)
		way.Verify, way.ChangeRequired, way.TOTP = count(in), count(change), count(totp)
	case code != nil:
		if _, err := s.deps.SignIn.Initialize(ctx, id, code.Secret, "Correct-horse-7"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		in, _, _ = state("Correct-horse-7")
		way.Reset = count(in)
	case len(history.IDPLinks) > 0:
		way.IDP = 1 // the provider's affair; the link is there and the user active
	case link != "":
		way.Passkey = 1
	default:
		way.Cannot = 1
	}
	_ = events
	return way
}

// opened reads a user's state as who holds the keys does.
func (s *system) opened(id string) (*domain.User, int, error) {
	events, err := s.store.ReadStream(context.Background(), id, 0)
	if err == nil {
		err = s.store.Open(context.Background(), events)
	}
	if err != nil {
		return nil, 0, err
	}
	u := domain.NewUser(id, "org-1")
	for _, e := range events {
		fact, err := domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
		if err != nil {
			return nil, 0, err
		}
		u.Apply(fact)
	}
	return u, len(events), nil
}
