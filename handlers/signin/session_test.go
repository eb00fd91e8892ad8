package signin_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/handlers/signin/softkey"
)

var (
	page = signin.Caller{ID: signin.Actor}
	api  = signin.Caller{ID: "a-token", Org: "org-1", Trusted: true}
)

func ptr[T any](v T) *T { return &v }

func withPassword(name, plain string) signin.Request {
	return signin.Request{Checks: signin.Checks{LoginName: &name, Password: &plain}}
}

// clock is a settable one.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestLogInAndOut(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := &clock{at: time.Now()}
	r := newRig(t, func(cfg *signin.Config) { cfg.Now = c.now })
	other, _ := r.instance(func(cfg *signin.Config) { cfg.Now = c.now })
	id, _ := r.person(func(c *domain.ImportHuman) { c.Password = goodPassword })

	for _, guess := range []string{"", "wrong", goodPassword + "\x00", strings.Repeat("x", 5000)} {
		_, err := r.CreateSession(ctx, page, withPassword("minnie", guess))
		wantError(t, err, domain.ErrPasswordWrong)
	}
	_, err := r.CreateSession(ctx, page, withPassword("nobody", goodPassword))
	wantError(t, err, domain.ErrPasswordWrong)
	// The id that is looked for in nobody's name may be somebody's.
	r.person(func(c *domain.ImportHuman) { c.UserID, c.UserName, c.Password = "-", "dash", goodPassword })
	_, err = r.CreateSession(ctx, page, withPassword("nobody", goodPassword))
	wantError(t, err, domain.ErrPasswordWrong)
	if x, err := r.CreateSession(ctx, page, signin.Request{}); err != nil || x.Session.Person.ID != "" || x.Session.Next() != signin.StepUser {
		t.Errorf("a session of nobody is %q's: %v", x.Session.Person.ID, err)
	}
	_, err = r.CreateSession(ctx, page, signin.Request{Checks: signin.Checks{LoginName: ptr("nobody")}})
	wantError(t, err, signin.ErrUserMissing)
	_, err = r.CreateSession(ctx, page, signin.Request{Checks: signin.Checks{Password: ptr(goodPassword)}})
	wantError(t, err, signin.ErrUserCheck)
	_, err = r.CreateSession(ctx, signin.Caller{Org: "org-2"}, withPassword("minnie", goodPassword))
	wantError(t, err, domain.ErrPasswordWrong)
	if n := r.user(id).PasswordFailures; n != 4 {
		t.Errorf("%d failures were counted, want 4", n)
	}

	a, err := r.CreateSession(ctx, page, withPassword(" MINNIE ", goodPassword))
	if err != nil {
		t.Fatal(err)
	}
	if x := a.Session; x.Next() != signin.StepDone || x.Person.ID != id || x.Org != "org-1" || x.PasswordAt.IsZero() || x.Expires.Sub(x.Created) < time.Hour {
		t.Errorf("session %+v", x)
	}
	if r.user(id).PasswordFailures != 0 {
		t.Error("a good check forgets no failures")
	}
	x, err := other.GetSession(ctx, page, a.Session.ID, a.Token)
	if err != nil || x.Person.UserName != "minnie" || x.Next() != signin.StepDone {
		t.Errorf("%+v, %v", x, err)
	}
	var stored []byte
	if err := r.store.Pool().QueryRow(ctx, `SELECT token_hash FROM sessions WHERE id = $1`, x.ID).Scan(&stored); err != nil || strings.Contains(string(stored), a.Token) {
		t.Errorf("the token is in the table: %v", err)
	}
	for _, bad := range []struct {
		by        signin.Caller
		id, token string
		want      error
	}{
		{page, x.ID, "", signin.ErrSessionToken},
		{page, x.ID, a.Token + "x", signin.ErrSessionToken},
		{api, x.ID, a.Token + "x", signin.ErrSessionToken},
		{signin.Caller{Org: "org-2", Trusted: true}, x.ID, a.Token, signin.ErrSessionMissing},
		{page, "other", a.Token, signin.ErrSessionMissing},
	} {
		_, err := other.GetSession(ctx, bad.by, bad.id, bad.token)
		wantError(t, err, bad.want)
	}
	if _, err := other.GetSession(ctx, api, x.ID, ""); err != nil {
		t.Errorf("a trusted caller: %v", err)
	}

	// A change gives another token, and ends the one before.
	b, err := other.SetSession(ctx, page, x.ID, a.Token, signin.Request{Lifetime: time.Hour})
	if err != nil || b.Token == a.Token || b.Session.PasswordAt.IsZero() {
		t.Fatalf("%+v, %v", b, err)
	}
	_, err = r.GetSession(ctx, page, x.ID, a.Token)
	wantError(t, err, signin.ErrSessionToken)
	_, err = r.SetSession(ctx, page, x.ID, b.Token, signin.Request{Lifetime: 91 * 24 * time.Hour})
	wantError(t, err, signin.ErrLifetime)
	mickey, _ := r.person(func(c *domain.ImportHuman) { c.UserName, c.Password = "mickey", goodPassword })
	_, err = r.SetSession(ctx, page, x.ID, b.Token, signin.Request{Checks: signin.Checks{UserID: &mickey}})
	wantError(t, err, signin.ErrUserOther)
	c.add(61 * time.Minute)
	_, err = r.GetSession(ctx, page, x.ID, b.Token)
	wantError(t, err, signin.ErrSessionMissing)

	a, err = r.CreateSession(ctx, page, withPassword("minnie", goodPassword))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.DeleteSession(ctx, page, a.Session.ID, "guessed"); err == nil {
		t.Error("somebody else ended the session")
	}
	if _, err := other.DeleteSession(ctx, page, a.Session.ID, a.Token); err != nil {
		t.Error(err)
	}
	_, err = r.GetSession(ctx, page, a.Session.ID, a.Token)
	wantError(t, err, signin.ErrSessionMissing)

	c.add(26 * time.Hour)
	if a, err = r.CreateSession(ctx, page, withPassword("minnie", goodPassword)); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := r.store.Pool().QueryRow(ctx, `SELECT count(*) FROM sessions`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d sessions are left, %v", rows, err)
	}
	if _, _, err := change(r, id, (*domain.User).Deactivate); err != nil {
		t.Fatal(err)
	}
	_, err = r.GetSession(ctx, page, a.Session.ID, a.Token)
	wantError(t, err, domain.ErrUserNotActive)
}

// change takes an operator's decision.
func change(r *rig, id string, decide func(*domain.User) (domain.Decision, error)) (*domain.User, domain.Decision, error) {
	u := r.user(id)
	d, err := decide(u)
	if err == nil {
		_, err = r.store.Append(context.Background(), appendOf(d))
	}
	return u, d, err
}

// Guesses are counted over both instances: all that come in at once, and the
// right one behind the limit does not get in.
func TestLockout(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, func(c *signin.Config) { c.Lockout = 3; c.Passwords = password.NewPool(4, rand.Reader) })
	other, _ := r.instance(func(c *signin.Config) { c.Lockout = 3 })
	id, _ := r.person(func(c *domain.ImportHuman) { c.HashedPassword = cheap })
	before := r.user(id).Sequence
	var wg sync.WaitGroup
	for i := range 12 {
		s := []*signin.Service{r.Service, other}[i%2]
		wg.Go(func() {
			if _, err := s.CreateSession(ctx, page, withPassword("minnie", "wrong")); err == nil {
				t.Error("a wrong password is good")
			}
		})
	}
	wg.Wait()
	want := []string{domain.TypePasswordCheckFailed, domain.TypePasswordCheckFailed, domain.TypePasswordCheckFailed, domain.TypeUserLocked}
	if got := r.types(id, before); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	_, err := other.CreateSession(ctx, page, withPassword("minnie", "password"))
	wantError(t, err, domain.ErrUserNotActive)
	_, err = other.CreateSession(ctx, page, signin.Request{Checks: signin.Checks{UserID: &id}})
	wantError(t, err, domain.ErrUserNotActive)
	if _, _, err := change(r, id, (*domain.User).Unlock); err != nil {
		t.Fatal(err)
	}
	if _, err := other.CreateSession(ctx, page, withPassword("minnie", "password")); err != nil {
		t.Errorf("after the operator unlocked: %v", err)
	}
}

func TestNoLockout(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, func(c *signin.Config) { c.Lockout = 0 })
	id, _ := r.person(func(c *domain.ImportHuman) { c.HashedPassword = cheap })
	for range 6 {
		_, err := r.CreateSession(ctx, page, withPassword("minnie", "wrong"))
		wantError(t, err, domain.ErrPasswordWrong)
	}
	if u := r.user(id); u.State != domain.StateActive || u.PasswordFailures != 6 {
		t.Errorf("state %v after %d failures", u.State, u.PasswordFailures)
	}
}

// cheap is an md5-crypt hash of "password".
const cheap = "$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1"

// A foreign hash becomes one of the house behind the answer of the first login,
// and is not touched again.
func TestRehash(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	id, _ := r.person(func(c *domain.ImportHuman) { c.HashedPassword, c.ChangeRequired = cheap, true })
	before := r.user(id).Sequence
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			a, err := r.CreateSession(ctx, page, withPassword("minnie", "password"))
			if err != nil || a.Session.Next() != signin.StepChange {
				t.Errorf("%s, %v", a.Session.Next(), err)
			}
		})
	}
	wg.Wait()
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := r.Close(waiting); err != nil {
		t.Fatal(err)
	}
	u := r.user(id)
	if u.PasswordFormat != domain.HouseFormat || password.NeedsRehash(u.PasswordHash) || !u.ChangeRequired {
		t.Errorf("format %s, change required %v", u.PasswordFormat, u.ChangeRequired)
	}
	rehashed := 0
	for _, e := range r.types(id, before) {
		if e == domain.TypePasswordRehashed {
			rehashed++
		} else if e != domain.TypePasswordChecked {
			t.Errorf("event %s", e)
		}
	}
	if rehashed != 1 {
		t.Errorf("hashed anew %d times", rehashed)
	}
	if _, err := r.CreateSession(ctx, page, withPassword("minnie", "password")); err != nil {
		t.Errorf("after the rehash: %v", err)
	}
}

// A password that is replaced while it is being checked is good no longer.
func TestPasswordThatIsReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pepper := password.Secret{Pepper: &password.Pepper{Key: password.Key("d"), How: password.PepperSuffix}}
	encoded, err := password.Bind(cheap, "main", pepper) // of "passwor", then
	if err != nil {
		t.Fatal(err)
	}
	meanwhile := func() {}
	r := newRig(t, func(c *signin.Config) {
		c.Secrets = func(context.Context, string) (password.Secrets, error) {
			meanwhile()
			return password.Secrets{"main": pepper}, nil
		}
	})
	id, _ := r.person(func(c *domain.ImportHuman) { c.HashedPassword = cheap })
	// A single import has no secrets.
	if _, _, err := change(r, id, func(u *domain.User) (domain.Decision, error) { return u.SetPassword(encoded, false) }); err != nil {
		t.Fatal(err)
	}
	hash, err := password.Hash(rand.Reader, goodPassword)
	if err != nil {
		t.Fatal(err)
	}
	meanwhile = sync.OnceFunc(func() {
		if _, _, err := change(r, id, func(u *domain.User) (domain.Decision, error) { return u.SetPassword(hash, false) }); err != nil {
			t.Error(err)
		}
	})
	_, err = r.CreateSession(ctx, page, withPassword("minnie", "passwor"))
	wantError(t, err, domain.ErrPasswordWrong)
	if _, err := r.CreateSession(ctx, page, withPassword("minnie", goodPassword)); err != nil {
		t.Error(err)
	}
}

func TestTOTP(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := &clock{at: time.Unix(1111111109, 0)} // RFC 6238's, so the code is 081804
	r := newRig(t, func(cfg *signin.Config) { cfg.Now = c.now; cfg.Lockout = 3 })
	id, _ := r.person(func(c *domain.ImportHuman) {
		c.HashedPassword, c.TOTPSecret = cheap, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	})
	a, err := r.CreateSession(ctx, page, withPassword("minnie", "password"))
	if err != nil || a.Session.Next() != signin.StepTOTP {
		t.Fatalf("%s, %v", a.Session.Next(), err)
	}
	_, err = r.ChangePassword(ctx, page, a.Session.ID, a.Token, "Another-horse-8")
	wantError(t, err, signin.ErrFirst)
	_, err = r.SetSession(ctx, page, a.Session.ID, a.Token, signin.Request{Checks: signin.Checks{TOTP: ptr("123456")}})
	wantError(t, err, domain.ErrTOTPWrong)
	b, err := r.SetSession(ctx, page, a.Session.ID, a.Token, signin.Request{Checks: signin.Checks{TOTP: ptr("081804")}})
	if err != nil || b.Session.Next() != signin.StepDone {
		t.Fatalf("%s, %v", b.Session.Next(), err)
	}
	// A code is good once, however many come in at once.
	for range 2 {
		_, err = r.SetSession(ctx, page, a.Session.ID, b.Token, signin.Request{Checks: signin.Checks{TOTP: ptr("081804")}})
		wantError(t, err, domain.ErrTOTPWrong)
	}
	c.add(2 * time.Second) // the next step's is 050471
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 4 {
		wg.Go(func() {
			_, err := r.CreateSession(ctx, api, signin.Request{Checks: signin.Checks{UserID: &id, TOTP: ptr("050471")}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in++
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Errorf("one code got %d in", in)
	}
	if u := r.user(id); u.State != domain.StateLocked {
		t.Errorf("state %v after three wrong codes in a row", u.State)
	}
	none, _ := r.person(func(c *domain.ImportHuman) { c.UserName, c.HashedPassword = "none", cheap })
	_, err = r.CreateSession(ctx, api, signin.Request{Checks: signin.Checks{UserID: &none, TOTP: ptr("050471")}})
	wantError(t, err, domain.ErrTOTPMissing)
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	id, _ := r.person(func(c *domain.ImportHuman) { c.HashedPassword, c.ChangeRequired = cheap, true })
	log := func(plain string) signin.Answer {
		t.Helper()
		a, err := r.CreateSession(ctx, page, withPassword("minnie", plain))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, elsewhere := log("password"), log("password")
	if a.Session.Next() != signin.StepChange || !a.Session.Person.ChangeRequired {
		t.Fatalf("next is %s", a.Session.Next())
	}
	_, err := r.ChangePassword(ctx, page, a.Session.ID, "guessed", goodPassword)
	wantError(t, err, signin.ErrSessionToken)
	_, err = r.ChangePassword(ctx, page, a.Session.ID, a.Token, "short")
	wantError(t, err, domain.NewError(domain.KindInvalidArgument, "DOMAIN-HuJf6", ""))
	named, err := r.CreateSession(ctx, page, signin.Request{Checks: signin.Checks{UserID: &id}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.ChangePassword(ctx, page, named.Session.ID, named.Token, goodPassword)
	wantError(t, err, signin.ErrFirst)
	x, err := r.ChangePassword(ctx, page, a.Session.ID, a.Token, goodPassword)
	if err != nil || x.Next() != signin.StepDone {
		t.Fatalf("%s, %v", x.Next(), err)
	}
	_, err = r.ChangePassword(ctx, page, a.Session.ID, a.Token, goodPassword)
	wantError(t, err, domain.ErrPasswordSame)
	if x, err := r.GetSession(ctx, page, a.Session.ID, a.Token); err != nil || x.Next() != signin.StepDone {
		t.Errorf("%s, %v", x.Next(), err)
	}
	_, err = r.GetSession(ctx, page, elsewhere.Session.ID, elsewhere.Token)
	wantError(t, err, signin.ErrSessionMissing)
	_, err = r.CreateSession(ctx, page, withPassword("minnie", "password"))
	wantError(t, err, domain.ErrPasswordWrong)
	if log(goodPassword).Session.Next() != signin.StepDone {
		t.Error("another change is required")
	}
}

// enrol gives a new person a passkey.
func (r *rig) enrol(name string) (id string, k *softkey.Key) {
	r.t.Helper()
	ctx := context.Background()
	id, code := r.person(func(c *domain.ImportHuman) { c.UserName, c.RequestPasskey = name, true })
	c, err := r.BeginPasskey(ctx, origin, id, code.ID, code.Secret)
	if err != nil {
		r.t.Fatal(err)
	}
	k = softkey.New(r.t)
	if _, err := r.FinishPasskey(ctx, origin, id, code.ID, code.Secret, c.State, "key", k.Register(r.t, c.Options, origin)); err != nil {
		r.t.Fatal(err)
	}
	return id, k
}

func TestPasskeySession(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	other, _ := r.instance(nil)
	id, k := r.enrol("minnie")
	a, err := r.CreateSession(ctx, page, signin.Request{
		Checks: signin.Checks{UserID: &id}, Challenge: &signin.Challenge{Origin: origin, Domain: "id.example.org"},
	})
	if err != nil || a.Session.Next() != signin.StepPassword {
		t.Fatalf("%v, %v", a.Session.Next(), err)
	}
	var outer struct {
		PublicKey json.RawMessage `json:"publicKey"`
	}
	if err := json.Unmarshal(a.Options, &outer); err != nil {
		t.Fatal(err)
	}
	if o := softkey.Read(t, outer.PublicKey); o.UserVerification != "required" || len(o.AllowCredentials) != 1 || o.AllowCredentials[0].ID != softkey.Text(k.ID) {
		t.Errorf("options %s", a.Options)
	}
	set := func(s *signin.Service, response []byte) (signin.Answer, error) {
		return s.SetSession(ctx, page, a.Session.ID, a.Token, signin.Request{Checks: signin.Checks{Passkey: response}})
	}
	k.Count = 5
	good := k.Assert(t, outer.PublicKey, origin)
	b, err := set(other, good)
	if err != nil || b.Session.Next() != signin.StepDone || !b.Session.PasskeyVerified {
		t.Fatalf("%v, %v", b.Session.Next(), err)
	}
	a.Token = b.Token
	_, err = set(r.Service, good) // the same answer again
	wantError(t, err, signin.ErrNoChallenge)
	if u := r.user(id); u.Passkeys[0].SignCount != 5 || u.PasskeyFailures != 0 {
		t.Errorf("passkey %+v", u.Passkeys[0])
	}

	again := func(spoil func(k *softkey.Key) []byte) error {
		t.Helper()
		b, err := r.SetSession(ctx, page, a.Session.ID, a.Token, signin.Request{Challenge: &signin.Challenge{Origin: origin}})
		if err != nil {
			t.Fatal(err)
		}
		a.Token = b.Token
		if err := json.Unmarshal(b.Options, &outer); err != nil {
			t.Fatal(err)
		}
		_, err = set(other, spoil(k))
		return err
	}
	stranger := softkey.New(t)
	stranger.ID, stranger.Handle, stranger.Count = k.ID, k.Handle, 100
	for name, spoil := range map[string]func(k *softkey.Key) []byte{
		"a copied key's counter": func(k *softkey.Key) []byte { k.Count = 5; return k.Assert(t, outer.PublicKey, origin) },
		"another origin": func(k *softkey.Key) []byte {
			k.Count = 50
			return k.Assert(t, outer.PublicKey, "https://evil.example.org")
		},
		"an unlocked key": func(k *softkey.Key) []byte {
			k.Verified = false
			defer func() { k.Verified = true }()
			return k.Assert(t, outer.PublicKey, origin)
		},
		"another key": func(*softkey.Key) []byte { return stranger.Assert(t, outer.PublicKey, origin) },
		"old answer":  func(*softkey.Key) []byte { return good },
		"no answer":   func(*softkey.Key) []byte { return []byte("{}") },
	} {
		before := r.user(id).PasskeyFailures
		err := again(spoil)
		wantError(t, err, domain.ErrPasskeyWrong)
		if n := r.user(id).PasskeyFailures - before; err == nil || n != 1 {
			t.Errorf("%s: %v, counted %d times", name, err, n)
		}
		// A ceremony that was answered wrongly has been answered.
		k.Count = 60
		_, err = set(r.Service, k.Assert(t, outer.PublicKey, origin))
		wantError(t, err, signin.ErrNoChallenge)
	}
	k.Count = 200
	if err := again(func(k *softkey.Key) []byte { return k.Assert(t, outer.PublicKey, origin) }); err != nil {
		t.Error(err)
	}
	_, err = r.SetSession(ctx, page, a.Session.ID, a.Token, signin.Request{Challenge: &signin.Challenge{Origin: origin, Domain: "other.org"}})
	if err == nil {
		t.Error("another domain's challenge")
	}
}

// Who asks for passkeys by a login name learns nothing about who is there.
func TestPasskeyLogin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	other, _ := r.instance(nil)
	id, k := r.enrol("minnie")
	r.person(func(c *domain.ImportHuman) { c.UserName, c.HashedPassword = "plain", cheap })
	ask := func(name string) (signin.Ceremony, softkey.Options) {
		t.Helper()
		c, err := r.BeginLogin(ctx, origin, name)
		if err != nil {
			t.Fatal(err)
		}
		return c, softkey.Read(t, c.Options)
	}
	c, o := ask("minnie")
	for _, name := range []string{"plain", "nobody"} {
		fake, f := ask(name)
		_, same := ask(strings.ToUpper(name))
		if len(f.AllowCredentials) != 1 || len(f.AllowCredentials[0].ID) != len(o.AllowCredentials[0].ID) || f.AllowCredentials[0] != same.AllowCredentials[0] {
			t.Errorf("%s: %+v beside %+v", name, f.AllowCredentials, o.AllowCredentials)
		}
		if len(c.Options) != len(fake.Options) {
			t.Errorf("%s can be told from somebody with a passkey: %s beside %s", name, fake.Options, c.Options)
		}
		_, err := other.FinishLogin(ctx, page, fake.State, k.Assert(t, fake.Options, origin))
		wantError(t, err, domain.ErrPasskeyWrong)
	}
	k.Count = 1
	answer := k.Assert(t, c.Options, origin)
	a, err := other.FinishLogin(ctx, page, c.State, answer)
	if err != nil || a.Session.Next() != signin.StepDone || a.Session.Person.ID != id {
		t.Fatalf("%+v, %v", a.Session, err)
	}
	if x, err := r.GetSession(ctx, page, a.Session.ID, a.Token); err != nil || x.Next() != signin.StepDone {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := r.DeleteSession(ctx, page, a.Session.ID, a.Token); err != nil {
		t.Error(err)
	}
	if _, err := r.FinishLogin(ctx, page, c.State, answer); err == nil {
		t.Error("one ceremony began two sessions")
	}
	// An authenticator that counts nothing is no less bound to one session.
	k.Count = 0
	id, k = r.enrol("mickey")
	c, _ = ask("mickey")
	answer = k.Assert(t, c.Options, origin)
	if a, err = r.FinishLogin(ctx, page, c.State, answer); err != nil || a.Session.Person.ID != id {
		t.Fatal(err)
	}
	_, err = other.FinishLogin(ctx, page, c.State, answer)
	wantError(t, err, signin.ErrCeremony)
}
