package signin_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
	"github.com/muster-id/muster/handlers/signin/softkey"
)

const goodPassword = "Correct-horse-7"

func wantError(t *testing.T, err error, chain ...error) {
	t.Helper()
	for _, e := range chain {
		if !errors.Is(err, e) {
			t.Errorf("%v (because of %v), want %v", err, errors.Unwrap(err), e)
		}
	}
}

func TestInitialize(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	id, _ := r.person(func(c *domain.ImportHuman) { c.Email.Verified = false })
	u := r.user(id)
	code := u.InitCode.Secret

	_, err := r.CheckInitialization(ctx, "nobody", code)
	wantError(t, err, domain.ErrCodeMissing)
	_, err = r.CheckInitialization(ctx, "$org-org-1", code)
	wantError(t, err, domain.ErrCodeMissing)
	_, err = r.Initialize(ctx, id, "WRONG1", goodPassword)
	wantError(t, err, domain.ErrCodeInvalid, domain.ErrCodeWrong)
	p, err := r.CheckInitialization(ctx, id, " "+strings.ToLower(code[:3])+" "+code[3:])
	if err != nil || p.UserName != "minnie" || p.HasPassword || p.Org != "org-1" {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = r.Initialize(ctx, id, code, "")
	wantError(t, err, signin.ErrPasswordMissing)
	_, err = r.Initialize(ctx, id, code, "short")
	wantError(t, err, domain.NewError(domain.KindInvalidArgument, "DOMAIN-HuJf6", ""))
	_, err = r.Initialize(ctx, id, code, goodPassword+"\x00")
	wantError(t, err, domain.ErrTextInvalid)
	p, err = r.Initialize(ctx, id, code, goodPassword)
	if err != nil || p.State != domain.StateActive || !p.HasPassword || !p.EmailVerified {
		t.Fatalf("%+v, %v", p, err)
	}
	want := []string{domain.TypeInitializationFailed, domain.TypeInitializationSucceeded, domain.TypeEmailVerified, domain.TypePasswordSet}
	if got := r.types(id, u.Sequence); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	_, err = r.Initialize(ctx, id, code, goodPassword)
	wantError(t, err, domain.ErrCodeMissing)
	wantError(t, r.ResendInitialization(ctx, id), domain.ErrAlreadyInitial)
	wantError(t, r.ResendInitialization(ctx, "nobody"), domain.ErrAlreadyInitial)
}

// The password that somebody came with stays when they only prove the address.
func TestInitializeKeepsThePassword(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	id, _ := r.person(func(c *domain.ImportHuman) { c.Email.Verified, c.Password = false, goodPassword })
	before := r.user(id)
	p, err := r.Initialize(context.Background(), id, before.InitCode.Secret, "")
	if err != nil || !p.EmailVerified || p.State != domain.StateActive {
		t.Fatalf("%+v, %v", p, err)
	}
	if after := r.user(id); after.PasswordHash != before.PasswordHash {
		t.Error("the password changed")
	}
}

// Guesses are counted over all instances, however many come in at once, and
// over all codes.
func TestGuessesAtCodesAreLimited(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	var mu sync.Mutex
	clock := func(c *signin.Config) { c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now } }
	r := newRig(t, clock)
	other, _ := r.instance(clock)
	id, _ := r.person(func(c *domain.ImportHuman) { c.Email.Verified = false })
	guess := func(n int) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range n {
			s := []*signin.Service{r.Service, other}[i%2]
			wg.Go(func() {
				if _, err := s.CheckInitialization(ctx, id, "WRONG1"); err == nil {
					t.Error("a guess got in")
				}
			})
		}
		wg.Wait()
	}
	guess(20)
	if u := r.user(id); u.InitCode.Failures != domain.MaxCodeAttempts {
		t.Fatalf("%d wrong guesses were counted", u.InitCode.Failures)
	}
	_, err := r.Initialize(ctx, id, r.user(id).InitCode.Secret, goodPassword)
	wantError(t, err, domain.ErrCodeInvalid, domain.ErrCodeUsedUp)
	wantError(t, r.ResendInitialization(ctx, id), signin.ErrResendSoon)
	for i := range 10 {
		mu.Lock()
		now = now.Add(time.Hour)
		mu.Unlock()
		if err := r.ResendInitialization(ctx, id); err != nil {
			wantError(t, err, signin.ErrResendRefused)
			if i != 3 {
				t.Errorf("mail %d was refused", i)
			}
			break
		}
		guess(10)
	}
	if n := r.user(id).InitFailures; n != 20 {
		t.Errorf("%d guesses were judged, want 20", n)
	}
}

func TestResend(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	late := time.Now().Add(73 * time.Hour)
	r := newRig(t, func(c *signin.Config) { c.Now = func() time.Time { return late } })
	id, _ := r.person(func(c *domain.ImportHuman) { c.Email.Verified = false })
	first := r.user(id).InitCode.Secret
	_, err := r.Initialize(ctx, id, first, goodPassword)
	wantError(t, err, domain.ErrCodeInvalid, domain.ErrCodeExpired)
	if err := r.ResendInitialization(ctx, id); err != nil {
		t.Fatal(err)
	}
	u := r.user(id)
	if u.InitCode.Secret == first || u.InitCode.Silent {
		t.Errorf("no fresh code that is mailed: silent %v", u.InitCode.Silent)
	}
	if _, err := r.Initialize(ctx, id, u.InitCode.Secret, goodPassword); err != nil {
		t.Error(err)
	}
}

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	id, _ := r.person(func(c *domain.ImportHuman) {
		c.Email.Verified = false
		c.IDPLinks = []domain.IDPLink{{ConfigID: "google", ExternalUserID: "1"}}
	})
	code := r.user(id).EmailCode
	if code == nil {
		t.Fatal("no code")
	}
	_, err := r.VerifyEmail(ctx, id, "WRONG1")
	wantError(t, err, domain.ErrCodeWrong)
	if p, err := r.VerifyEmail(ctx, id, code.Secret); err != nil || !p.EmailVerified {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestRegisterPasskey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := newRig(t, nil)
	other, _ := r.instance(nil)
	id, code := r.person(func(c *domain.ImportHuman) { c.RequestPasskey = true })
	u := r.user(id)

	_, err := r.CheckPasskeyLink(ctx, id, code.ID, "wrong")
	wantError(t, err, domain.ErrPasskeyCode, domain.ErrCodeWrong)
	_, err = r.CheckPasskeyLink(ctx, id, "other", code.Secret)
	wantError(t, err, domain.ErrPasskeyCode, domain.ErrCodeMissing)
	_, err = r.CheckPasskeyLink(ctx, "nobody", code.ID, code.Secret)
	wantError(t, err, domain.ErrUserNotActive)
	if p, err := r.CheckPasskeyLink(ctx, id, code.ID, code.Secret); err != nil || p.DisplayName != "Minnie Mouse" {
		t.Fatalf("%+v, %v", p, err)
	}

	c, err := r.BeginPasskey(ctx, origin, id, code.ID, code.Secret)
	if err != nil {
		t.Fatal(err)
	}
	o := softkey.Read(t, c.Options)
	if o.RP.ID != "id.example.org" || o.Attestation != "none" || o.AuthenticatorSelection.UserVerification != "required" {
		t.Errorf("options: %s", c.Options)
	}
	if strings.Contains(string(c.Options), id) || strings.Contains(c.State, code.Secret) {
		t.Errorf("the options tell the authenticator the user's id: %s", c.Options)
	}
	finish := func(k *softkey.Key, from string) error {
		_, err := other.FinishPasskey(ctx, origin, id, code.ID, code.Secret, c.State, "My phone", k.Register(t, c.Options, from))
		return err
	}
	k := softkey.New(t)
	wantError(t, finish(k, "https://evil.example.org"), signin.ErrPasskeyRefused)
	k.Verified = false
	wantError(t, finish(k, origin), signin.ErrPasskeyRefused)
	k.Verified = true
	_, err = other.FinishPasskey(ctx, origin, id, code.ID, code.Secret, c.State[:len(c.State)-2]+"AA", "", k.Register(t, c.Options, origin))
	wantError(t, err, signin.ErrCeremony)
	_, err = other.FinishPasskey(ctx, origin, id, "other", code.Secret, c.State, "", k.Register(t, c.Options, origin))
	wantError(t, err, signin.ErrCeremony)

	// Of many at once, one gets in: the code is good for one passkey.
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 6 {
		wg.Go(func() {
			if finish(softkey.New(t), origin) == nil {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Fatalf("%d passkeys came in by one code", in)
	}
	want := []string{domain.TypePasskeyRegistrationFailed, domain.TypePasskeyAdded}
	if got := r.types(id, u.Sequence); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if got := r.user(id).Passkeys; len(got) != 1 || got[0].Name != "My phone" {
		t.Errorf("passkeys %+v", got)
	}
	wantError(t, finish(k, origin), domain.ErrPasskeyCode, domain.ErrCodeMissing)
}

func TestPasskeyOriginsAndTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	now := time.Now()
	r := newRig(t, func(c *signin.Config) { c.Now = func() time.Time { return now } })
	fixed, _ := r.instance(func(c *signin.Config) { c.PublicURL = "https://login.example.org:8443/" })
	id, code := r.person(func(c *domain.ImportHuman) { c.RequestPasskey = true })
	for from, good := range map[string]bool{
		"http://localhost:8080": true, "https://id.example.org:8443": true,
		"http://id.example.org": false, "http://127.0.0.1:8080": false, "https://127.0.0.1": false, "https://[::1]": false, "": false, "%": false,
	} {
		if _, err := r.BeginPasskey(ctx, from, id, code.ID, code.Secret); (err == nil) != good {
			t.Errorf("%q: %v", from, err)
		} else if err != nil {
			wantError(t, err, signin.ErrPasskeyOrigin)
		}
	}
	c, err := fixed.BeginPasskey(ctx, "http://evil", id, code.ID, code.Secret)
	if err != nil || softkey.Read(t, c.Options).RP.ID != "login.example.org" {
		t.Errorf("%s, %v", c.Options, err)
	}
	now = now.Add(6 * time.Minute)
	_, err = r.FinishPasskey(ctx, origin, id, code.ID, code.Secret, c.State, "", nil)
	wantError(t, err, signin.ErrCeremony)
	now = now.Add(time.Hour)
	_, err = r.BeginPasskey(ctx, origin, id, code.ID, code.Secret)
	wantError(t, err, domain.ErrPasskeyCode, domain.ErrCodeExpired)
}
