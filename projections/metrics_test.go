package projections

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// metrics are what an engine's collector says of a projection, by name without
// the common beginning; and the names of all.
func (w *world) metrics(t testing.TB, e *Engine, projection string) (values map[string]float64, names []string) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(e); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values = map[string]float64{}
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "muster_projection_")
		names = append(names, name)
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "projection" && l.GetValue() == projection {
					values[name] = m.GetGauge().GetValue()
				}
			}
		}
	}
	return values, names
}

func TestStatusAndMetrics(t *testing.T) {
	t.Parallel()
	w := searchWorld(t)
	w.settle(t, "import_jobs")
	list, err := w.Status(t.Context())
	if err != nil || len(list) != len(Models()) {
		t.Fatalf("status: %+v, %v", list, err)
	}
	for _, s := range list {
		if s.State != "live" || s.Lag != 0 || s.Owner == "" || s.Held != s.Ranges || s.Problem != "" || s.Oldest != 0 {
			t.Errorf("status: %+v", s)
		}
	}
	_, names := w.metrics(t, w.Engine, "users")
	want := []string{"muster_old_system_users", "heartbeat_age_seconds", "lag_events", "oldest_unhandled_seconds", "owned", "position", "ranges_held", "stopped_streams", "stopped_streams_waiting", "version"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// The metrics tell of what is behind, since when, what has stopped, and who
// works on it.
func TestMetricsTellOfLagAndStoppedStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	expect := func(when string, want map[string]float64) {
		t.Helper()
		got, _ := w.metrics(t, w.Engine, "users")
		for name, v := range want {
			if got[name] != v {
				t.Errorf("%s: %s is %v, want %v", when, name, got[name], v)
			}
		}
	}
	stop := run(t, w.Engine)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	eventually(t, "it has all ranges", func() bool { return w.holds["users"].Load() == 8 })
	expect("caught up", map[string]float64{"lag_events": 0, "oldest_unhandled_seconds": 0, "stopped_streams": 0, "owned": 1, "ranges_held": 8, "position": 4, "version": 1})
	stop()
	w.do(t, userID(2), "org1", person(2)...)
	w.do(t, userID(3), "org1", person(3)...)
	expect("behind", map[string]float64{"lag_events": 8, "owned": 0, "position": 4})
	first, _ := w.metrics(t, w.Engine, "users")
	if first["oldest_unhandled_seconds"] <= 0 || first["oldest_unhandled_seconds"] > 60 {
		t.Errorf("the oldest has waited for %v s", first["oldest_unhandled_seconds"])
	}
	time.Sleep(2 * time.Millisecond) // so that there is something to tell by
	if later, _ := w.metrics(t, w.Engine, "users"); later["oldest_unhandled_seconds"] <= first["oldest_unhandled_seconds"] {
		t.Errorf("it waits, for %v s and then for %v s", first["oldest_unhandled_seconds"], later["oldest_unhandled_seconds"])
	}
	if _, err := w.store.Append(t.Context(), eventstore.Append{Stream: userID(1), Org: "org1", Actor: "a", Expected: eventstore.Any, At: epochTime,
		Events: []eventstore.NewEvent{{Type: "UserPromoted", Schema: 1}}}); err != nil {
		t.Fatal(err)
	}
	run(t, w.Engine)
	w.settle(t, "users")
	expect("with a stopped stream", map[string]float64{"lag_events": 0, "stopped_streams": 1, "stopped_streams_waiting": 0})
	// It has been tried often enough.
	if _, err := w.pool.Exec(t.Context(), `UPDATE projection_stopped SET attempts = 5, retry_at = NULL`); err != nil {
		t.Fatal(err)
	}
	expect("with a stream that waits for an operator", map[string]float64{"stopped_streams": 1, "stopped_streams_waiting": 1})
}

// A rebuild that is held in the middle of its bulk phase shows how far it is.
func TestMetricsTellOfARebuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	run(t, w.Engine)
	for i := range 100 {
		w.do(t, userID(i), "org1", person(i)...)
	}
	w.settle(t, "users")
	if _, names := w.metrics(t, w.Engine, "users"); strings.Contains(strings.Join(names, " "), "rebuild") {
		t.Errorf("without a rebuild: %v", names)
	}
	held, release := make(chan struct{}), make(chan struct{})
	hold := sync.OnceFunc(func() { close(held); <-release })
	done := make(chan error, 1)
	e := w.engine(t, users)
	// Each look of the clock is another time, so that each step is told.
	var clock atomic.Int64
	e.cfg.Clock = func() time.Time { return epochTime.Add(time.Duration(clock.Add(1)) * time.Second) }
	go func() {
		_, err := e.Rebuild(t.Context(), "users", func(s Step) {
			if s.Phase == PhaseBulk && s.Events > 200 {
				hold()
			}
		})
		done <- err
	}()
	<-held
	got, _ := w.metrics(t, w.Engine, "users")
	if got["rebuild_events"] <= 0 || got["rebuild_events"] >= 400 || got["rebuild_events_total"] != 400 {
		t.Errorf("held in the middle, it has %v of %v events", got["rebuild_events"], got["rebuild_events_total"])
	}
	if got["lag_events"] != 0 || got["version"] != 1 {
		t.Errorf("the live version, meanwhile: %v", got)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, names := w.metrics(t, w.Engine, "users")
	if got["version"] != 2 || strings.Contains(strings.Join(names, " "), "rebuild") {
		t.Errorf("after it: %v", got)
	}
}

// Ready tells a worker that is dead, or hangs, from one that has nothing to do
// or much.
func TestReadyTellsDeadFromIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, users)
	if err := w.Ready(); domain.AsError(err).Kind != domain.KindUnavailable {
		t.Errorf("before it runs: %v", err)
	}
	var now atomic.Int64
	w.cfg.Clock = func() time.Time { return epochTime.Add(time.Duration(now.Load())) }
	w.cfg.Lease = 400 * time.Millisecond
	stop := run(t, w.Engine)
	ready := func() bool { return w.Ready() == nil }
	eventually(t, "a worker that runs is ready", ready)
	w.do(t, userID(1), "org1", person(1)...)
	w.settle(t, "users")
	for range 3 { // an hour passes, and nothing has to be done
		now.Add(int64(time.Hour))
		eventually(t, "an idle worker is ready", ready)
	}
	// It hangs, in its transaction or about to renew its leases.
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), `SELECT FROM projection_ranges FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker waits for a lock", func() bool {
		var n int
		err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())`).Scan(&n)
		return err == nil && n > 0
	})
	now.Add(int64(time.Hour))
	err = w.Ready()
	if domain.AsError(err).Kind != domain.KindUnavailable || !strings.Contains(err.Error(), "users has not moved for 1h0m0s") {
		t.Errorf("with a worker that hangs: %v", err)
	}
	if got, _ := w.metrics(t, w.Engine, "users"); got["heartbeat_age_seconds"] != 3600 {
		t.Errorf("its last heartbeat was %v s ago", got["heartbeat_age_seconds"])
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready again", ready)
	stop()
	if err := w.Ready(); domain.AsError(err).Kind != domain.KindUnavailable {
		t.Errorf("after it has ended: %v", err)
	}
}
