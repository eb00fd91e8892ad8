package projections

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/muster-id/muster/eventstore"
)

// benchUsers is the number of users in benchmarks: MUSTER_BENCH_USERS, or
// few enough for a look in passing.
func benchUsers(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("MUSTER_BENCH_USERS"))
	if err != nil {
		return 20_000
	}
	return n
}

// populate imports users 0 to n-1, four events each, and returns the seconds
// that it took.
func populate(b *testing.B, w *world, n int) float64 {
	b.Helper()
	began := time.Now()
	const size = 500
	for i := 0; i < n; i += size {
		as := make([]eventstore.Append, 0, size)
		for j := i; j < min(i+size, n); j++ {
			as = append(as, eventstore.Append{Stream: userID(j), Org: "org1", Actor: "tester", Expected: eventstore.NoStream,
				At: epochTime.Add(time.Duration(j) * time.Millisecond), Events: encode(person(j)...)})
		}
		for _, o := range w.store.AppendMany(context.Background(), as) {
			if o.Err != nil {
				b.Fatal(o.Err)
			}
		}
	}
	return time.Since(began).Seconds()
}

// BenchmarkFollow measures the live path alone: an imported log is applied from
// its beginning.
func BenchmarkFollow(b *testing.B) {
	w := newWorld(b, users)
	populate(b, w, benchUsers(b))
	head, err := w.store.Head(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		e := New(w.store, w.pool, []Model{users}, Config{Instance: b.Name(), Logger: testLog(b), WaitLimit: time.Hour})
		began := time.Now()
		stop := run(b, e)
		if err := e.WaitFor(b.Context(), "users", head.Position); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(head.Position)/time.Since(began).Seconds(), "events/s")
		stop()
	}
}

// BenchmarkRebuild measures a rebuild of users beside the live version, and
// how far behind the live projection is when an import ends.
func BenchmarkRebuild(b *testing.B) {
	w := newWorld(b, users)
	w.Engine = New(w.store, w.pool, []Model{users}, Config{Instance: b.Name(), Logger: testLog(b)})
	n := benchUsers(b)
	stop := run(b, w.Engine)
	defer stop()
	took := populate(b, w, n)
	ended := time.Now()
	head, err := w.store.Head(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for {
		v, err := w.liveVersion(b.Context(), users)
		if err == nil && v.position >= head.Position {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Logf("import of %d events: %.0f events/s; the projection caught up %.2f s after its end", head.Position, float64(head.Position)/took, time.Since(ended).Seconds())
	b.ResetTimer()
	for range b.N {
		began := time.Now()
		phase, phases := "", map[string]time.Duration{}
		last := began
		result, err := w.Rebuild(b.Context(), "users", func(s Step) {
			if s.Phase != phase {
				phases[phase] = time.Since(last)
				phase, last = s.Phase, time.Now()
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		s := time.Since(began).Seconds()
		b.ReportMetric(float64(result.Events)/s, "events/s")
		b.ReportMetric(float64(result.Held.Milliseconds()), "ms-held")
		b.Logf("%d events in %.2f s: %v; %+v", result.Events, s, phases, result.Comparison)
	}
}
