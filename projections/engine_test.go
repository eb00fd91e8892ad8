package projections

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-id/muster/domain"
)

func TestFollowsTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	run(t, w.Engine)
	for i := range 50 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users") // so that what follows changes rows that are there
	w.do(t, userID(3), "org1", domain.IDPLinked{ConfigID: "google", ExternalUserID: "g3", DisplayName: "Ada"})
	w.do(t, userID(4), "org1", domain.UserDeactivated{})
	w.do(t, userID(5), "org1", domain.UserRemoved{})
	w.do(t, domain.OrganisationStream("org1"), "org1", domain.OrganisationAdded{Name: "One"})
	w.settle(t, "users", "idp_links", "organisations")
	for _, m := range Models() {
		w.sound(t, m.Name())
	}
	got, err := w.UserByID(t.Context(), InOrg("org1"), userID(4))
	if err != nil {
		t.Fatal(err)
	}
	want := User{ID: userID(4), Org: "org1", State: domain.StateInactive, UserName: "user4", LoginNames: []string{"user4"},
		Profile: domain.Profile{FirstName: "Adauser4", LastName: "Lind", DisplayName: "Adauser4 Lind", PreferredLanguage: "sv", Gender: domain.GenderFemale},
		Email:   "user4@Example.test", EmailVerified: true, Phone: "+41710000004", HasPassword: true,
		PasswordChanged: got.Created, Sequence: 5, Position: got.Position, Created: got.Created, Changed: got.Changed}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("user 4 (-want +got):\n%s", diff)
	}
	if _, err := w.UserByID(t.Context(), InOrg("org1"), userID(5)); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("a removed user: %v", err)
	}
	if _, err := w.UserByID(t.Context(), InOrg("org2"), userID(4)); !errors.Is(err, ErrUserNotFound) {
		t.Errorf("another organisation's user: %v", err)
	}
	links, total, _, err := w.Links(t.Context(), InOrg("org1"), userID(3), 0, 10)
	if err != nil || total != 1 || len(links) != 1 || links[0].ExternalUserID != "g3" {
		t.Errorf("links: %+v of %d, %v", links, total, err)
	}
	counts, _, err := w.Counts(t.Context(), InOrg("org1"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Count{{"org1", domain.StateActive, 48}, {"org1", domain.StateInactive, 1}}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	result, err := w.Rebuild(t.Context(), "users", func(s Step) { t.Logf("%+v", s) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", result)
	w.settle(t, "users")
	w.sound(t, "users")
}
