package domain_test

import (
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
)

// Who comes without a password that can be verified here is asked for it at the
// old system, needs no mail for it, and keeps it once it is known.
func TestPasswordAtTheOldSystem(t *testing.T) {
	t.Parallel()
	link := []domain.IDPLink{{ConfigID: "google", ExternalUserID: "1"}}
	for name, c := range map[string]struct {
		change    func(*domain.ImportHuman)
		delegated bool
		state     domain.State
	}{
		"nothing":              {func(*domain.ImportHuman) {}, true, domain.StateActive},
		"not verified":         {func(c *domain.ImportHuman) { c.Email.Verified = false }, true, domain.StateInitial},
		"a hash of nobody's":   {func(c *domain.ImportHuman) { c.HashedPassword, c.IDPLinks = "$nobody$knows$this", link }, true, domain.StateActive},
		"a link":               {func(c *domain.ImportHuman) { c.IDPLinks = link }, false, domain.StateActive},
		"a hash":               {func(c *domain.ImportHuman) { c.HashedPassword = "$1$kJ4QkJaQ$3EbD/pJddrq5HW3mpZ4KZ1" }, false, domain.StateActive},
		"a password":           {func(c *domain.ImportHuman) { c.Password = "Correct-horse-7" }, false, domain.StateActive},
		"no old system to ask": {func(c *domain.ImportHuman) { c.OldSystem = false }, false, domain.StateInitial},
	} {
		cmd := domain.ImportHuman{
			UserName: "ada", Profile: domain.Profile{FirstName: "A", LastName: "L"}, Email: domain.Email{Address: "a@example.test", Verified: true},
			OldSystem: true, ChangeRequired: true,
		}
		c.change(&cmd)
		h, _, err := cmd.Normalise(domain.DefaultPolicy())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		facts := domain.Facts{UserID: "u", Org: "o", Job: "job", At: time.Unix(1, 0), PasswordHash: "$house$"}
		u := domain.NewUser("u", "o", h.Import(facts).Events...)
		if got := u.OldSystem == "job"; got != c.delegated || u.State != c.state || c.delegated && (u.HasPassword || !u.ChangeRequired) {
			t.Errorf("%s: old system %q, state %d, has a password: %v", name, u.OldSystem, u.State, u.HasPassword)
		}
		again, err := u.Update(h, facts)
		if err != nil || c.delegated && len(again.Events) != 0 {
			t.Errorf("%s: the same import again appends %v, %v", name, again.Events, err)
		}
		if !c.delegated || c.state != domain.StateActive {
			continue
		}
		d, err := u.TakePassword("$house$")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, e := range d.Events {
			u.Apply(e)
		}
		if !u.HasPassword || u.OldSystem != "" || !u.ChangeRequired || u.PasswordFormat != domain.HouseFormat {
			t.Errorf("%s: after the first login %+v", name, u)
		}
	}
}
