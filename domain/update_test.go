package domain_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
)

func TestUpdate(t *testing.T) {
	type C = domain.ImportHuman
	unverified := func(c *C) { c.Email.Verified = false }
	both := func(fs ...func(*C)) func(*C) {
		return func(c *C) {
			for _, f := range fs {
				f(c)
			}
		}
	}
	nothing := func(*C) {}
	inactive := func(c *C) { c.State = domain.StateInactive }
	for _, c := range []struct {
		name          string
		was, is       func(*C)
		events        string
		state         domain.State
		take, release int
	}{
		{"nothing new", linked, linked, "", domain.StateActive, 0, 0},
		{"nothing is taken away", both(linked, func(c *C) {
			c.Phone = &domain.Phone{Number: "+41791234567", Verified: true}
			c.TOTPSecret, c.Metadata = "GEZDGNBVGY3TQOJQ", []domain.Metadata{{Key: "a"}}
		}), both(unverified, noPassword), "", domain.StateActive, 0, 0},
		{"user name", nothing, func(c *C) { c.UserName = "mini" }, "UsernameChanged", domain.StateActive, 1, 1},
		{"letter case", nothing, func(c *C) { c.UserName = "GIGI" }, "UsernameChanged", domain.StateActive, 0, 0},
		{"profile", nothing, func(c *C) { c.Profile.NickName = "g" }, "ProfileChanged", domain.StateActive, 0, 0},
		{"e-mail, verified", nothing, func(c *C) { c.Email.Address = "a@b" }, "EmailChanged EmailVerified", domain.StateActive, 0, 0},
		{"e-mail, not verified", nothing, both(unverified, func(c *C) { c.Email.Address = "a@b" }), "EmailChanged EmailCodeAdded", domain.StateActive, 0, 0},
		{"e-mail became verified", both(linked, unverified), linked, "EmailVerified", domain.StateActive, 0, 0},
		{"phone", nothing, func(c *C) { c.Phone = &domain.Phone{Number: "+41791234567"} }, "PhoneChanged PhoneCodeAdded", domain.StateActive, 0, 0},
		{"phone, verified", nothing, func(c *C) { c.Phone = &domain.Phone{Number: "+41791234567", Verified: true} }, "PhoneChanged PhoneVerified", domain.StateActive, 0, 0},
		{"hash", nothing, func(c *C) { c.HashedPassword = "5f4dcc3b5aa765d61d8327deb882cf99" }, "PasswordSet", domain.StateActive, 0, 0},
		{"change required", nothing, func(c *C) { c.ChangeRequired = true }, "PasswordSet", domain.StateActive, 0, 0},
		{"plain password", nothing, both(noPassword, func(c *C) { c.Password = "Password1!" }), "PasswordSet", domain.StateActive, 0, 0},
		{"TOTP", nothing, func(c *C) { c.TOTPSecret = "GEZDGNBVGY3TQOJQ" }, "TOTPAdded", domain.StateActive, 0, 0},
		{"link", nothing, linked, "IDPLinked", domain.StateActive, 1, 0},
		{"metadata", func(c *C) { c.Metadata = []domain.Metadata{{Key: "a", Value: []byte("1")}} }, func(c *C) {
			c.Metadata = []domain.Metadata{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}}
		}, "MetadataSet", domain.StateActive, 0, 0},
		{"passkey link", nothing, withPasskey, "PasskeyRegistrationRequested", domain.StateActive, 0, 0},
		{"state", nothing, inactive, "UserDeactivated", domain.StateInactive, 0, 0},
		{"same state", inactive, inactive, "", domain.StateInactive, 0, 0},
		{"state left alone", inactive, nothing, "", domain.StateInactive, 0, 0},
		{"a lock", inactive, func(c *C) { c.State = domain.StateLocked }, "UserLocked", domain.StateLocked, 0, 0},
		{"a password completes the account", noPassword, nothing, "PasswordSet InitializationSucceeded", domain.StateActive, 0, 0},
		{"a link completes the account", both(noPassword, unverified), both(noPassword, unverified, linked), "IDPLinked InitializationSucceeded", domain.StateActive, 1, 0},
		{"a password alone does not", both(noPassword, unverified), unverified, "PasswordSet", domain.StateInitial, 0, 0},
		{"another address for the initialization mail", both(noPassword, unverified), both(noPassword, unverified, func(c *C) { c.Email.Address = "a@b" }),
			"EmailChanged InitializationCodeAdded", domain.StateInitial, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := imported(t, c.was)
			h, _ := normalise(t, minimal(c.is))
			d, err := u.Update(h, facts())
			if err != nil {
				t.Fatal(err)
			}
			if got := types(d.Events); got != c.events || len(d.Take) != c.take || len(d.Release) != c.release || d.Expected != u.Sequence {
				t.Errorf("got %s, take %v, release %v\nwant %s", got, d.Take, d.Release, c.events)
			}
			for _, e := range d.Events {
				u.Apply(e)
			}
			if u.State != c.state {
				t.Errorf("state %d, want %d", u.State, c.state)
			}
			// Doing it again changes nothing, but for what cannot be compared.
			if c.name == "plain password" || c.name == "passkey link" {
				return
			}
			if again, err := u.Update(h, facts()); err != nil || len(again.Events) > 0 {
				t.Errorf("again: %s, %v", types(again.Events), err)
			}
		})
	}
	h, _ := normalise(t, minimal())
	_, err := (&domain.User{}).Update(h, facts())
	if e := (*domain.Error)(nil); !errors.As(err, &e) || e.Kind != domain.KindNotFound {
		t.Errorf("%v", err)
	}
}

func TestUpdateLeavesTheUserAlone(t *testing.T) {
	u, same := imported(t, noPassword), imported(t, noPassword)
	h, _ := normalise(t, minimal(linked, func(c *domain.ImportHuman) { c.Metadata = []domain.Metadata{{Key: "a"}} }))
	if _, err := u.Update(h, facts()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(same, u); diff != "" {
		t.Error(diff)
	}
}
