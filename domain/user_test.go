package domain_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-id/muster/domain"
)

// imported is a user as an import leaves it.
func imported(t testing.TB, change ...func(*domain.ImportHuman)) *domain.User {
	t.Helper()
	h, _ := normalise(t, minimal(change...))
	d := h.Import(facts())
	return domain.NewUser(d.Stream, d.Org, d.Events...)
}

func noPassword(c *domain.ImportHuman) { c.HashedPassword = "" }
func linked(c *domain.ImportHuman) {
	c.IDPLinks = []domain.IDPLink{{ConfigID: "google", ExternalUserID: "Id1"}}
}
func withPasskey(c *domain.ImportHuman) { c.RequestPasskey = true }

// do appends a decision to the user it was made for.
func do(t testing.TB, u *domain.User, d domain.Decision, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	follow(t, u, d)
}

func follow(t testing.TB, u *domain.User, d domain.Decision) {
	t.Helper()
	if d.Stream != u.ID || d.Org != u.Org || d.Expected != u.Sequence || len(d.Events) == 0 {
		t.Fatalf("decision %+v does not fit user %s at %d", d, u.ID, u.Sequence)
	}
	for _, e := range d.Events {
		u.Apply(e)
	}
}

// expect wants an error, by id, and nothing to append.
func expect(t testing.TB, want *domain.Error, d domain.Decision, err error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if len(d.Events) > 0 {
		t.Errorf("events with the error: %s", types(d.Events))
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		events []domain.Event
		state  domain.State
	}{
		{nil, domain.StateUnspecified},
		{[]domain.Event{added}, domain.StateActive},
		{[]domain.Event{added, domain.InitializationCodeAdded{}}, domain.StateInitial},
		{[]domain.Event{added, domain.InitializationCodeAdded{}, domain.InitializationSucceeded{}}, domain.StateActive},
		{[]domain.Event{added, domain.UserDeactivated{}}, domain.StateInactive},
		{[]domain.Event{added, domain.UserDeactivated{}, domain.UserReactivated{}}, domain.StateActive},
		{[]domain.Event{added, domain.UserLocked{}}, domain.StateLocked},
		{[]domain.Event{added, domain.UserLocked{}, domain.UserUnlocked{}}, domain.StateActive},
		{[]domain.Event{added, domain.UserRemoved{}}, domain.StateDeleted},
		{[]domain.Event{added, domain.UserRemoved{}, domain.UserErased{}}, domain.StateDeleted},
	} {
		u := domain.NewUser("1", "2", c.events...)
		if u.State != c.state || u.Sequence != int64(len(c.events)) {
			t.Errorf("%s: state %d, sequence %d", types(c.events), u.State, u.Sequence)
		}
	}
}

// TestTransitions tries every life-cycle command in every state.
func TestTransitions(t *testing.T) {
	states := map[string]func() *domain.User{
		"absent":  func() *domain.User { return &domain.User{ID: "1"} },
		"active":  func() *domain.User { return imported(t) },
		"initial": func() *domain.User { return imported(t, noPassword) },
		"inactive": func() *domain.User {
			return imported(t, func(c *domain.ImportHuman) { c.State = domain.StateInactive })
		},
		"locked":  func() *domain.User { return imported(t, func(c *domain.ImportHuman) { c.State = domain.StateLocked }) },
		"removed": func() *domain.User { u := imported(t); u.Apply(domain.UserRemoved{}); return u },
		"erased": func() *domain.User {
			u := imported(t)
			u.Apply(domain.UserRemoved{})
			u.Apply(domain.UserErased{})
			return u
		},
	}
	commands := map[string]struct {
		do   func(*domain.User) (domain.Decision, error)
		want map[string]string // events, or an error's id
	}{
		"deactivate": {(*domain.User).Deactivate, map[string]string{
			"absent": "COMMAND-3M9ds", "active": "UserDeactivated", "initial": "COMMAND-ke0fw", "inactive": "COMMAND-5M0sf",
			"locked": "UserDeactivated", "removed": "COMMAND-3M9ds", "erased": "COMMAND-3M9ds",
		}},
		"reactivate": {(*domain.User).Reactivate, map[string]string{
			"absent": "COMMAND-4M0sd", "active": "COMMAND-6M0sf", "initial": "COMMAND-6M0sf", "inactive": "UserReactivated",
			"locked": "COMMAND-6M0sf", "removed": "COMMAND-4M0sd", "erased": "COMMAND-4M0sd",
		}},
		"lock": {(*domain.User).Lock, map[string]string{
			"absent": "COMMAND-5M9fs", "active": "UserLocked", "initial": "UserLocked", "inactive": "COMMAND-3NN8v",
			"locked": "COMMAND-3NN8v", "removed": "COMMAND-5M9fs", "erased": "COMMAND-5M9fs",
		}},
		"unlock": {(*domain.User).Unlock, map[string]string{
			"absent": "COMMAND-M0dse", "active": "COMMAND-4M0ds", "initial": "COMMAND-4M0ds", "inactive": "COMMAND-4M0ds",
			"locked": "UserUnlocked", "removed": "COMMAND-M0dse", "erased": "COMMAND-M0dse",
		}},
		"remove": {(*domain.User).Remove, map[string]string{
			"absent": "COMMAND-m9od", "active": "UserRemoved", "initial": "UserRemoved", "inactive": "UserRemoved",
			"locked": "UserRemoved", "removed": "COMMAND-m9od", "erased": "COMMAND-m9od",
		}},
		"erase": {(*domain.User).Erase, map[string]string{
			"absent": "MUSTER-erase", "active": "UserRemoved UserErased", "initial": "UserRemoved UserErased", "inactive": "UserRemoved UserErased",
			"locked": "UserRemoved UserErased", "removed": "UserErased", "erased": "MUSTER-erased",
		}},
	}
	for name, c := range commands {
		for state, build := range states {
			u := build()
			d, err := c.do(u)
			got := types(d.Events)
			if e := (*domain.Error)(nil); errors.As(err, &e) {
				if len(d.Events) > 0 {
					t.Errorf("%s when %s: events with an error", name, state)
				}
				got = e.ID
			}
			if got != c.want[state] {
				t.Errorf("%s when %s: %s, want %s", name, state, got, c.want[state])
			}
			if err == nil {
				follow(t, u, d)
			}
		}
	}
}

// TestClaimsAreNeverOrphaned lets a user live at random: after each command
// the claims taken and not released are those that the state has.
func TestClaimsAreNeverOrphaned(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h, _ := normalise(t, minimal(linked))
		d := h.Import(facts())
		u := &domain.User{ID: d.Stream, Org: d.Org}
		owned := map[domain.Claim]bool{}
		step := func(d domain.Decision) {
			for _, c := range d.Release {
				if !owned[c] {
					rt.Fatalf("released %v without owning it", c)
				}
				delete(owned, c)
			}
			for _, c := range d.Take {
				if owned[c] {
					rt.Fatalf("took %v twice", c)
				}
				owned[c] = true
			}
			for _, e := range d.Events {
				u.Apply(e)
			}
			want := map[domain.Claim]bool{}
			for _, c := range u.Claims() {
				want[c] = true
			}
			if diff := cmp.Diff(want, owned); diff != "" {
				rt.Fatal(diff)
			}
		}
		step(d)
		name := rapid.SampledFrom([]string{"gigi", "GIGI", "mini", " Mini ", "jörg", ""})
		id := rapid.SampledFrom([]string{"Id1", "ID1", "id2", ""})
		for range rapid.IntRange(1, 20).Draw(rt, "commands") {
			var d domain.Decision
			var err error
			switch rapid.IntRange(0, 7).Draw(rt, "command") {
			case 0, 1:
				d, err = u.ChangeUsername(name.Draw(rt, "name"), domain.Policy{})
			case 2, 3:
				d, err = u.LinkIDP(domain.IDPLink{ConfigID: "google", ExternalUserID: id.Draw(rt, "id")})
			case 4:
				d, err = u.UnlinkIDP("google", id.Draw(rt, "id"))
			case 5:
				d, err = u.Lock()
			case 6:
				d, err = u.Remove()
			case 7:
				d, err = u.Erase()
			}
			if err == nil {
				step(d)
			}
		}
	})
}

func TestRemoveReleasesAllNames(t *testing.T) {
	u := imported(t, linked)
	d, err := u.Remove()
	do(t, u, d, err)
	want := []domain.Claim{{Kind: "login_name", Value: "gigi"}, {Kind: "idp_link", Scope: "google", Value: "id1"}}
	if diff := cmp.Diff(want, d.Release); diff != "" {
		t.Error(diff)
	}
	if len(u.Claims()) > 0 {
		t.Error("a removed user must own nothing")
	}
}

func TestErasedUserHasNothingPersonal(t *testing.T) {
	u := imported(t, linked, withPasskey)
	d, err := u.Erase()
	do(t, u, d, err)
	if diff := cmp.Diff(&domain.User{ID: "01JQ", Org: "org1", Sequence: u.Sequence, State: domain.StateDeleted, Erased: true}, u); diff != "" {
		t.Error(diff)
	}
}

func TestChangeUsername(t *testing.T) {
	u := imported(t)
	d, err := u.ChangeUsername("gigi", domain.Policy{})
	expect(t, domain.ErrUserNameSame, d, err)
	d, err = u.ChangeUsername(" \t", domain.Policy{})
	expect(t, domain.ErrUserNameEmpty, d, err)
	d, err = u.ChangeUsername("a\x00", domain.Policy{})
	expect(t, domain.ErrTextInvalid, d, err)
	d, err = u.ChangeUsername(strings.Repeat("a", 201), domain.Policy{})
	expect(t, domain.ErrTooLong, d, err)
	d, err = (&domain.User{}).ChangeUsername("a", domain.Policy{})
	if e := (*domain.Error)(nil); !errors.As(err, &e) || e.ID != "COMMAND-5N9ds" || e.Kind != domain.KindNotFound || len(d.Events) > 0 {
		t.Errorf("%v", err)
	}

	d, err = u.ChangeUsername(" Gigi ", domain.Policy{})
	do(t, u, d, err)
	if len(d.Take)+len(d.Release) > 0 || u.UserName != "Gigi" {
		t.Errorf("a change of case only: %+v, now %q", d, u.UserName)
	}
	d, err = u.ChangeUsername("mini", domain.Policy{})
	do(t, u, d, err)
	if diff := cmp.Diff([][]domain.Claim{{{Kind: "login_name", Value: "mini"}}, {{Kind: "login_name", Value: "gigi"}}}, [][]domain.Claim{d.Take, d.Release}); diff != "" {
		t.Error(diff)
	}
}

func TestChangeProfile(t *testing.T) {
	u := imported(t)
	d, err := u.ChangeProfile(domain.Profile{FirstName: " Gigi ", LastName: "Giraffe"})
	expect(t, domain.ErrProfileSame, d, err)
	d, err = u.ChangeProfile(domain.Profile{FirstName: " ", LastName: "Giraffe"})
	expect(t, domain.ErrFirstNameEmpty, d, err)
	d, err = u.ChangeProfile(domain.Profile{FirstName: "Mini", LastName: "Mouse", PreferredLanguage: "DE_ch", Gender: 9})
	do(t, u, d, err)
	if want := (domain.Profile{FirstName: "Mini", LastName: "Mouse", DisplayName: "Mini Mouse", PreferredLanguage: "de-CH"}); u.Profile != want {
		t.Errorf("%+v", u.Profile)
	}
}

func TestChangeAddresses(t *testing.T) {
	u := imported(t)
	d, err := u.ChangeEmail("gigi@example.com", true, domain.Code{}, now)
	expect(t, domain.ErrEmailSame, d, err)
	d, err = u.ChangeEmail("gigi", true, domain.Code{}, now)
	expect(t, domain.ErrEmailInvalid, d, err)
	d, err = u.ChangeEmail("mini@example.com", false, facts().Email, now)
	do(t, u, d, err)
	if got := types(d.Events); got != "EmailChanged EmailCodeAdded" || u.Email != "mini@example.com" || u.EmailVerified || u.EmailCode == nil {
		t.Errorf("%s: %+v", got, u)
	}
	d, err = u.ChangeEmail("mini@example.com", true, domain.Code{}, now)
	do(t, u, d, err)
	if got := types(d.Events); got != "EmailVerified" || !u.EmailVerified || u.EmailCode != nil {
		t.Errorf("%s: %+v", got, u)
	}

	d, err = u.ChangePhone("", false)
	expect(t, domain.ErrPhoneSame, d, err)
	d, err = u.ChangePhone("+", false)
	expect(t, domain.ErrPhoneInvalid, d, err)
	d, err = u.ChangePhone("+41 79 123 45 67", true)
	do(t, u, d, err)
	if u.Phone != "+41791234567" || !u.PhoneVerified {
		t.Errorf("%+v", u)
	}
	d, err = u.ChangePhone("+41791234567", true)
	expect(t, domain.ErrPhoneSame, d, err)
	d, err = u.ChangePhone("", false)
	do(t, u, d, err)
	if u.Phone != "" || u.PhoneVerified {
		t.Errorf("%+v", u)
	}
}

func TestInitialization(t *testing.T) {
	u := imported(t, noPassword, func(c *domain.ImportHuman) { c.Email.Verified = false })
	soon, late := now.Add(time.Hour), now.Truncate(time.Microsecond).Add(72*time.Hour)
	// Expired, to the microsecond; an expired code counts no guesses.
	d, err := u.Initialize("INIT01", "", late)
	expect(t, domain.ErrCodeInvalid, d, err)
	expect(t, domain.ErrCodeExpired, d, err)
	if d, err := u.CheckInitialization("INIT01", now.Truncate(time.Microsecond).Add(72*time.Hour-1)); err != nil || len(d.Events) > 0 {
		t.Errorf("a moment before it expires: %v", err)
	}
	// A wrong guess is to be appended.
	for range 2 {
		d, err = u.Initialize("INIT02", "$h", soon)
		if !errors.Is(err, domain.ErrCodeInvalid) || !errors.Is(err, domain.ErrCodeWrong) || types(d.Events) != "InitializationFailed" {
			t.Fatalf("%v, %s", err, types(d.Events))
		}
		follow(t, u, d)
	}
	for _, guess := range []string{"", "INIT0", "INIT011", "init01"} {
		if _, err := u.CheckInitialization(guess, soon); !errors.Is(err, domain.ErrCodeWrong) {
			t.Errorf("%q: %v", guess, err)
		}
	}
	d, err = u.Initialize("INIT01", "$argon2id$new", soon)
	do(t, u, d, err)
	if got := types(d.Events); got != "InitializationSucceeded EmailVerified PasswordSet" {
		t.Error(got)
	}
	if u.State != domain.StateActive || !u.EmailVerified || u.PasswordHash != "$argon2id$new" || u.PasswordFormat != domain.HouseFormat || u.ChangeRequired {
		t.Errorf("%+v", u)
	}
	d, err = u.Initialize("INIT01", "", soon)
	expect(t, domain.ErrCodeMissing, d, err)
	d, err = u.ResendInitialization("", facts().Init, soon)
	expect(t, domain.ErrAlreadyInitial, d, err)

	// Who is verified and sets no password gets just in.
	u = imported(t, noPassword)
	d, err = u.Initialize("INIT01", "", soon)
	do(t, u, d, err)
	if got := types(d.Events); got != "InitializationSucceeded" {
		t.Error(got)
	}
}

func TestGuessesAreLimited(t *testing.T) {
	u := imported(t, noPassword)
	for i := range domain.MaxCodeAttempts {
		d, err := u.CheckInitialization("WRONG0", now)
		if !errors.Is(err, domain.ErrCodeWrong) {
			t.Fatalf("guess %d: %v", i, err)
		}
		follow(t, u, d)
	}
	d, err := u.Initialize("INIT01", "", now)
	expect(t, domain.ErrCodeInvalid, d, err)
	expect(t, domain.ErrCodeUsedUp, d, err)
	// A new mail starts anew, at another address if need be.
	code := domain.Code{Secret: "INIT02", Lifetime: time.Hour}
	d, err = u.ResendInitialization("mini@example.com", code, now)
	do(t, u, d, err)
	if got := types(d.Events); got != "EmailChanged InitializationCodeAdded" || u.Email != "mini@example.com" || u.EmailVerified {
		t.Errorf("%s, %+v", got, u)
	}
	d, err = u.Initialize("INIT01", "", now)
	if !errors.Is(err, domain.ErrCodeWrong) {
		t.Error("the old code still works:", err)
	}
	follow(t, u, d)
	d, err = u.Initialize("INIT02", "", now)
	do(t, u, d, err)
}

func TestResendInitialization(t *testing.T) {
	u := imported(t, noPassword)
	code := facts().Init
	d, err := u.ResendInitialization("gigi", code, now)
	expect(t, domain.ErrEmailInvalid, d, err)
	d, err = u.ResendInitialization("gigi@example.com", code, now)
	do(t, u, d, err)
	if got := types(d.Events); got != "InitializationCodeAdded" || !u.EmailVerified {
		t.Errorf("the same address: %s", got)
	}
	_, err = (&domain.User{}).ResendInitialization("", code, now)
	if e := (*domain.Error)(nil); !errors.As(err, &e) || e.ID != "COMMAND-2M9df" {
		t.Errorf("%v", err)
	}
	// A lock is stronger than a mail, and outlives nobody's code.
	d, err = u.Lock()
	do(t, u, d, err)
	d, err = u.ResendInitialization("", code, now)
	expect(t, domain.ErrUserNotActive, d, err)
	d, err = u.Initialize("INIT01", "", now)
	expect(t, domain.ErrUserNotActive, d, err)
	d, err = u.Unlock()
	do(t, u, d, err)
	d, err = u.Initialize("INIT01", "", now)
	do(t, u, d, err)
}

// TestASealedCodeOpensNothing folds events whose personal part is not there.
func TestASealedCodeOpensNothing(t *testing.T) {
	h, _ := normalise(t, minimal(noPassword, withPasskey, func(c *domain.ImportHuman) { c.Email.Verified = false }))
	u := &domain.User{}
	for _, e := range h.Import(facts()).Events {
		data, _ := domain.Encode(e)
		sealed, err := domain.Decode(e.Type(), e.Schema(), data, nil)
		if err != nil {
			t.Fatal(err)
		}
		u.Apply(sealed)
	}
	if _, err := u.CheckInitialization("", now); !errors.Is(err, domain.ErrCodeWrong) {
		t.Errorf("an empty guess at a sealed code: %v", err)
	}
	if u.State != domain.StateInitial || len(u.PasskeyCodes) != 1 || u.UserName != "" {
		t.Errorf("%+v", u)
	}
}

func TestVerifyAddresses(t *testing.T) {
	u := imported(t, linked, func(c *domain.ImportHuman) {
		c.Email.Verified, c.Phone = false, &domain.Phone{Number: "+41791234567"}
	})
	d, err := u.VerifyEmail("MAIL02", now)
	if !errors.Is(err, domain.ErrCodeInvalid) || types(d.Events) != "EmailCodeFailed" {
		t.Errorf("%v, %s", err, types(d.Events))
	}
	follow(t, u, d)
	d, err = u.VerifyEmail("MAIL01", now.Add(time.Hour))
	expect(t, domain.ErrCodeExpired, d, err)
	d, err = u.VerifyEmail("MAIL01", now)
	do(t, u, d, err)
	d, err = u.VerifyEmail("MAIL01", now)
	expect(t, domain.ErrCodeMissing, d, err)
	d, err = u.VerifyPhone("MAIL01", now)
	if !errors.Is(err, domain.ErrCodeInvalid) || types(d.Events) != "PhoneCodeFailed" {
		t.Errorf("%v, %s", err, types(d.Events))
	}
	follow(t, u, d)
	d, err = u.VerifyPhone("PHON01", now)
	do(t, u, d, err)
	if !u.EmailVerified || !u.PhoneVerified || u.EmailCode != nil || u.PhoneCode != nil {
		t.Errorf("%+v", u)
	}
	u.Apply(domain.EmailCodeAdded{SentCode: domain.SentCode{Secret: "MAIL01", Lifetime: time.Hour, Issued: now}})
	u.Apply(domain.UserRemoved{})
	d, err = u.VerifyEmail("MAIL01", now)
	expect(t, domain.ErrCodeMissing, d, err)
	d, err = u.VerifyPhone("PHON01", now)
	expect(t, domain.ErrCodeMissing, d, err)
}

func TestPasskeys(t *testing.T) {
	u := imported(t, withPasskey)
	key := domain.Passkey{CredentialID: []byte{1}, Credential: []byte{2}, Name: " laptop "}
	d, err := u.AddPasskey("C2", "passkey0code", key, now)
	expect(t, domain.ErrPasskeyCode, d, err)
	expect(t, domain.ErrCodeMissing, d, err)
	d, err = u.AddPasskey("C1", "passkey0code", key, now.Add(time.Hour))
	expect(t, domain.ErrPasskeyCode, d, err)
	expect(t, domain.ErrCodeExpired, d, err)
	d, err = u.AddPasskey("C1", "Passkey0code", key, now)
	if !errors.Is(err, domain.ErrPasskeyCode) || types(d.Events) != "PasskeyRegistrationFailed" {
		t.Errorf("%v, %s", err, types(d.Events))
	}
	follow(t, u, d)
	if u.PasskeyCodes[0].Failures != 1 {
		t.Error("the wrong guess was not counted")
	}
	d, err = u.RequestPasskey(domain.Code{ID: "C2", Secret: "second", Lifetime: time.Hour}, now)
	do(t, u, d, err)
	d, err = u.AddPasskey("C1", "passkey0code", key, now)
	do(t, u, d, err)
	if diff := cmp.Diff([]domain.Passkey{{CredentialID: []byte{1}, Credential: []byte{2}, Name: "laptop"}}, u.Passkeys); diff != "" {
		t.Error(diff)
	}
	d, err = u.AddPasskey("C1", "passkey0code", key, now)
	expect(t, domain.ErrPasskeyCode, d, err)
	if len(u.PasskeyCodes) != 1 || u.PasskeyCodes[0].ID != "C2" {
		t.Errorf("the other code must stay: %+v", u.PasskeyCodes)
	}
	d, err = u.CheckedPasskey(true, []byte{1}, 7, 0)
	do(t, u, d, err)
	if u.Passkeys[0].SignCount != 7 {
		t.Error("the counter was not kept")
	}
	u.Apply(domain.PasskeyRemoved{CredentialID: []byte{1}})
	if len(u.Passkeys) > 0 {
		t.Error("the passkey was not removed")
	}
	// An account that is not complete registers no passkey.
	d, err = imported(t, noPassword, withPasskey, func(c *domain.ImportHuman) { c.Email.Verified = false }).AddPasskey("C1", "passkey0code", key, now)
	expect(t, domain.ErrUserNotActive, d, err)
}

func TestChecks(t *testing.T) {
	const limit = 3
	totp := func(c *domain.ImportHuman) { c.TOTPSecret = "GEZDGNBVGY3TQOJQ" }
	u := imported(t, totp)
	for range 2 {
		d, err := u.CheckedPassword(false, limit)
		if !errors.Is(err, domain.ErrPasswordWrong) || types(d.Events) != "PasswordCheckFailed" {
			t.Fatalf("%v, %s", err, types(d.Events))
		}
		follow(t, u, d)
	}
	d, err := u.CheckedPassword(true, limit)
	do(t, u, d, err)
	if u.PasswordFailures != 0 {
		t.Error("a good check must forget the bad ones")
	}
	for i := range limit {
		d, err = u.CheckedPassword(false, limit)
		want := "PasswordCheckFailed"
		if i == limit-1 {
			want += " UserLocked"
		}
		if !errors.Is(err, domain.ErrPasswordWrong) || types(d.Events) != want {
			t.Fatalf("check %d: %v, %s", i, err, types(d.Events))
		}
		follow(t, u, d)
	}
	d, err = u.CheckedPassword(true, limit)
	expect(t, domain.ErrUserNotActive, d, err)
	d, err = u.Unlock()
	do(t, u, d, err)
	if u.PasswordFailures != 0 {
		t.Error("unlocking must forget failures")
	}
	for range 20 {
		d, err = u.CheckedPassword(false, 0)
		if types(d.Events) != "PasswordCheckFailed" || err == nil {
			t.Fatal("no limit, but", types(d.Events))
		}
		follow(t, u, d)
	}

	d, err = u.CheckedTOTP(true, 100, limit)
	do(t, u, d, err)
	for _, step := range []int64{100, 99} {
		d, err = u.CheckedTOTP(true, step, limit)
		if !errors.Is(err, domain.ErrTOTPWrong) || types(d.Events) != "TOTPCheckFailed" {
			t.Errorf("step %d again: %v", step, err)
		}
	}
	follow(t, u, d)
	if u.TOTPFailures != 1 {
		t.Error("the failure was not counted")
	}
	d, err = u.CheckedTOTP(true, 101, limit)
	do(t, u, d, err)
	d, err = u.CheckedPasskey(false, nil, 0, 1)
	if !errors.Is(err, domain.ErrPasskeyWrong) || types(d.Events) != "PasskeyCheckFailed UserLocked" {
		t.Errorf("%v, %s", err, types(d.Events))
	}
	u.Apply(domain.TOTPRemoved{})
	if u.HasTOTP || u.TOTPSecret != "" {
		t.Error("the second factor was not removed")
	}
}

func TestPasswordChanges(t *testing.T) {
	u := imported(t, func(c *domain.ImportHuman) { c.ChangeRequired = true })
	d, err := u.RehashPassword("$argon2id$same")
	do(t, u, d, err)
	if !u.ChangeRequired || u.PasswordHash != "$argon2id$same" || u.PasswordFormat != domain.HouseFormat || !u.HasPassword {
		t.Errorf("a rehash changes the hash only: %+v", u)
	}
	d, err = u.SetPassword("$argon2id$new", false)
	do(t, u, d, err)
	if u.ChangeRequired || u.PasswordHash != "$argon2id$new" {
		t.Errorf("%+v", u)
	}
	d, err = (&domain.User{}).SetPassword("x", false)
	expect(t, domain.ErrUserNotActive, d, err)
	d, err = (&domain.User{}).RehashPassword("x")
	expect(t, domain.ErrUserNotActive, d, err)
}

func TestLinks(t *testing.T) {
	u := imported(t, linked)
	d, err := u.LinkIDP(domain.IDPLink{ConfigID: "google"})
	expect(t, domain.ErrIDPLinkInvalid, d, err)
	d, err = u.LinkIDP(domain.IDPLink{ConfigID: "Google", ExternalUserID: "ID1"})
	expect(t, domain.ErrIDPLinkTaken, d, err)
	d, err = u.LinkIDP(domain.IDPLink{ConfigID: "azure", ExternalUserID: "ID1"})
	do(t, u, d, err)
	d, err = u.UnlinkIDP("google", "other")
	expect(t, domain.ErrIDPLinkMissing, d, err)
	d, err = u.UnlinkIDP("google", "Id1")
	do(t, u, d, err)
	if diff := cmp.Diff([]domain.IDPLink{{ConfigID: "azure", ExternalUserID: "ID1"}}, u.IDPLinks); diff != "" {
		t.Error(diff)
	}
}

func TestMetadataFolds(t *testing.T) {
	u := domain.NewUser("1", "2", added,
		domain.MetadataSet{Entries: []domain.Metadata{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}},
		domain.MetadataSet{Entries: []domain.Metadata{{Key: "b", Value: []byte("3")}}},
		domain.MetadataRemoved{Keys: []string{"a", "c"}},
	)
	if diff := cmp.Diff(map[string][]byte{"b": []byte("3")}, u.Metadata); diff != "" {
		t.Error(diff)
	}
}

// TestApplyKnowsEveryEvent folds each event of the log into a user, full and
// empty, first and last.
func TestApplyKnowsEveryEvent(t *testing.T) {
	for _, typ := range domain.EventTypes() {
		for _, e := range []domain.Event{zeroOf(t, typ), fullOf(t, typ)} {
			u := domain.NewUser("1", "2", e, added, e)
			if u.Sequence != 3 {
				t.Errorf("%s: sequence %d", typ, u.Sequence)
			}
		}
	}
}

func TestOrganisations(t *testing.T) {
	o := &domain.Organisation{ID: "1"}
	step := func(d domain.Decision, err error) {
		t.Helper()
		if err != nil || d.Stream != "$org-1" || d.Org != "1" || d.Expected != o.Sequence || len(d.Take) > 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		for _, e := range d.Events {
			o.Apply(e)
		}
	}
	refuse := func(want *domain.Error) func(domain.Decision, error) {
		return func(d domain.Decision, err error) { t.Helper(); expect(t, want, d, err) }
	}
	refuse(domain.ErrOrganisationMissing)(o.Rename("a"))
	refuse(domain.ErrOrganisationMissing)(o.Deactivate())
	refuse(domain.ErrOrganisationName)(o.Add(" "))
	refuse(domain.ErrTooLong)(o.Add(strings.Repeat("a", 201)))
	step(o.Add(" Acme "))
	refuse(domain.ErrOrganisationExists)(o.Add("Acme"))
	refuse(domain.ErrOrganisationSame)(o.Rename("Acme"))
	refuse(domain.ErrOrganisationSame)(o.Reactivate())
	step(o.Rename("ACME"))
	step(o.Deactivate())
	refuse(domain.ErrOrganisationSame)(o.Deactivate())
	if o.State != domain.StateInactive {
		t.Errorf("%+v", o)
	}
	step(o.Reactivate())
	if diff := cmp.Diff(&domain.Organisation{ID: "1", Sequence: 4, Name: "ACME", State: domain.StateActive}, o); diff != "" {
		t.Error(diff)
	}
	if err := domain.CheckUserID(domain.OrganisationStream("1")); err == nil {
		t.Error("a user could have an organisation's stream")
	}
}
