package projections

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/muster-id/muster/domain"
)

// TestPagesAreStable pages through all users in every order while people come
// in and go between the pages: whoever is there all the time is met exactly
// once, and nobody twice.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	run(t, w.Engine)
	r := rand.New(rand.NewPCG(1, 2))
	next := 0
	come := func() string {
		next++
		id := fmt.Sprintf("%04d-%04d", r.IntN(10000), next) // anywhere in the order of ids
		name := fmt.Sprintf("n%d-%d", r.IntN(9), next)
		w.do(t, id, "org1", domain.HumanAdded{UserName: name, Email: name + "@example.test",
			Profile: domain.Profile{FirstName: fmt.Sprintf("F%d", r.IntN(3)), LastName: fmt.Sprintf("L%d", r.IntN(3)), DisplayName: name, PreferredLanguage: "und"}})
		return id
	}
	stay := map[string]bool{}
	var leave []string
	for i := range 60 {
		if id := come(); i%3 > 0 {
			stay[id] = true
		} else {
			leave = append(leave, id)
		}
	}
	w.settle(t, "users")
	for sort := FieldNone; sort <= FieldLoginName; sort++ {
		for _, descending := range []bool{false, true} {
			met := map[string]int{}
			q := Search{Sort: sort, Descending: descending, Limit: 7}
			for pages := 0; ; pages++ {
				found, err := w.SearchUsers(t.Context(), InOrg("org1"), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, u := range found.Users {
					met[u.ID]++
				}
				if q.Page = found.Next; q.Page == "" {
					break
				}
				if pages > 100 {
					t.Fatal("there is no end")
				}
				q.Sort, q.Descending = FieldEmail, false // the page knows better
				if pages < 4 {
					come()
					if len(leave) > 0 {
						w.do(t, leave[0], "org1", domain.UserRemoved{})
						leave = leave[1:]
					}
					w.settle(t, "users")
				}
			}
			for id := range stay {
				if met[id] != 1 {
					t.Errorf("sorted by %d, descending %t: %s was met %d times", sort, descending, id, met[id])
				}
			}
			for id, n := range met {
				if n > 1 {
					t.Errorf("sorted by %d, descending %t: %s was met %d times", sort, descending, id, n)
				}
			}
		}
	}
	for _, bad := range []string{"x", "e30", "!", encodePage(`{"s":1}`), encodePage(`{"s":7,"n":70000,"i":"a"}`), encodePage(`{"s":9,"n":9223372036854775807,"i":"a"}`),
		encodePage(`{"s":1,"t":"\u0000","i":"a"}`), encodePage(`{"s":99,"i":"a"}`)} {
		_, err := w.SearchUsers(t.Context(), InOrg("org1"), Search{Page: bad})
		if e := (*domain.Error)(nil); !errors.As(err, &e) || e.Kind != domain.KindInvalidArgument {
			t.Errorf("page %q: %v", bad, err)
		}
	}
	// A page of one organisation is none of another.
	found, err := w.SearchUsers(t.Context(), InOrg("org1"), Search{Limit: 1})
	if err != nil || found.Next == "" {
		t.Fatal(found, err)
	}
	if found, err = w.SearchUsers(t.Context(), InOrg("org2"), Search{Page: found.Next}); err != nil || len(found.Users) != 0 {
		t.Errorf("in another organisation: %v, %v", found.Users, err)
	}
}

func encodePage(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
