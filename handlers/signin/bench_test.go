package signin_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/handlers/signin"
)

// BenchmarkWrongPassword is what whoever guesses could measure: the time of an
// answer in the name of nobody, of somebody, and of somebody whose hash came
// along and is cheap. The median and the quartiles are reported, taken in turns,
// so that a busy machine is as busy for each. Within noise they are the same.
func BenchmarkWrongPassword(b *testing.B) {
	ctx := context.Background()
	r := newRig(b, func(c *signin.Config) { c.Lockout = 0 })
	r.person(func(c *domain.ImportHuman) { c.UserName, c.Password = "known", goodPassword })
	r.person(func(c *domain.ImportHuman) { c.UserName, c.HashedPassword = "cheap", cheap })
	names := []string{"nobody", "known", "cheap"}
	took := map[string][]time.Duration{}
	try := func(name string) time.Duration {
		began := time.Now()
		if _, err := r.CreateSession(ctx, page, withPassword(name, "wrong")); err == nil {
			b.Fatal("a wrong password is good")
		}
		return time.Since(began)
	}
	for _, name := range names { // what is made once is made
		try(name)
	}
	for b.Loop() {
		for _, name := range names {
			took[name] = append(took[name], try(name))
		}
	}
	for _, name := range names {
		slices.Sort(took[name])
		n := len(took[name])
		for _, q := range []int{25, 50, 75} {
			b.ReportMetric(float64(took[name][n*q/100])/1e6, fmt.Sprintf("ms-%s-p%d", name, q))
		}
	}
}
