package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Status is how a version of a read model is doing.
type Status struct {
	Projection          string
	Version, Definition int
	// State is "building", "live" or "retired"; Phase a rebuild's.
	State, Phase string
	eventstore.Checkpoint
	// BulkTo is the position that a rebuild's first phase goes up to; Chunks
	// of TotalChunks are done, with so many Events.
	BulkTo              eventstore.Position
	Chunks, TotalChunks int
	Events              int64
	// Owner is the instance that works on it, or those that do, with commas;
	// empty when none does. Held of its Ranges of slices are somebody's.
	Owner        string
	Ranges, Held int
	// Problem is why nobody can.
	Problem string
	// Checkpoint is what all ranges have come to. Head is the log's last
	// position, Lag how many events are beyond the
	// checkpoint, Oldest how long the first of them has waited.
	Head   eventstore.Position
	Lag    int64
	Oldest time.Duration
	// Stopped streams' rows stand still; Waiting of them wait for an operator.
	Stopped, Waiting int64
	Updated          time.Time
	// Switched is when the version became live, or ceased to be.
	Switched time.Time
}

// Status tells how all versions of all read models are doing, by name and
// version.
func (e *Engine) Status(ctx context.Context) ([]Status, error) {
	rows, err := e.pool.Query(ctx, sqlStatus)
	if err != nil {
		return nil, fmt.Errorf("projections: reading the registry: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Status, err error) {
		var (
			switched *time.Time
			oldest   *float64
		)
		err = row.Scan(&s.Projection, &s.Version, &s.Definition, &s.State, &s.Phase, &s.Epoch, &s.Position, &s.BulkTo, &s.Owner,
			&s.Ranges, &s.Held, &s.Problem, &s.Updated, &switched, &s.Head, &oldest, &s.Stopped, &s.Waiting, &s.Chunks, &s.Events)
		if switched != nil {
			s.Switched = *switched
		}
		if oldest != nil {
			s.Oldest = time.Duration(*oldest * float64(time.Second))
		}
		s.TotalChunks = chunks
		s.Lag = max(0, int64(s.Head-s.Position))
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("projections: reading the registry: %w", err)
	}
	return list, nil
}

func (e *Engine) versionStatus(ctx context.Context, name string, version int) (Status, error) {
	list, err := e.Status(ctx)
	for _, s := range list {
		if s.Projection == name && s.Version == version {
			return s, nil
		}
	}
	if err == nil {
		err = errFenced
	}
	return Status{}, err
}

// Ready returns an error that names a worker of this process which has not
// moved for so long that it must be dead or stuck. An idle worker moves: it
// renews its lease, or asks for one. Lag is no reason.
func (e *Engine) Ready() error {
	limit := max(4*e.cfg.Lease, 10*time.Second)
	now := e.cfg.Clock()
	for _, m := range e.models {
		ns := e.beats[m.Name()].Load()
		switch {
		case ns == 0 && !e.store.Standby():
			return domain.NewError(domain.KindUnavailable, "MUSTER-worker", "The worker of projection "+m.Name()+" does not run")
		case ns != 0 && now.Sub(time.Unix(0, ns)) > limit:
			return domain.NewError(domain.KindUnavailable, "MUSTER-worker", "The worker of projection "+m.Name()+" has not moved for "+now.Sub(time.Unix(0, ns)).Round(time.Second).String())
		}
	}
	return nil
}

var (
	labels        = []string{"projection"}
	descPosition  = prometheus.NewDesc("muster_projection_position", "Position of the log that the live version has come to.", labels, nil)
	descVersion   = prometheus.NewDesc("muster_projection_version", "Number of the live version.", labels, nil)
	descLag       = prometheus.NewDesc("muster_projection_lag_events", "Events beyond the live version's checkpoint.", labels, nil)
	descOldest    = prometheus.NewDesc("muster_projection_oldest_unhandled_seconds", "How long the oldest event beyond the checkpoint has waited.", labels, nil)
	descOwned     = prometheus.NewDesc("muster_projection_owned", "1 when all ranges of the live version have an instance that works on them.", labels, nil)
	descRanges    = prometheus.NewDesc("muster_projection_ranges_held", "Ranges of slices of the live version that this process works on.", labels, nil)
	descStopped   = prometheus.NewDesc("muster_projection_stopped_streams", "Streams whose rows stand still because an event failed.", labels, nil)
	descWaiting   = prometheus.NewDesc("muster_projection_stopped_streams_waiting", "Stopped streams that wait for an operator.", labels, nil)
	descRebuilt   = prometheus.NewDesc("muster_projection_rebuild_events", "Events handled by the rebuild under way.", labels, nil)
	descRebuildTo = prometheus.NewDesc("muster_projection_rebuild_events_total", "Events that the rebuild under way has to handle.", labels, nil)
	descOldSystem = prometheus.NewDesc("muster_old_system_users", "Users whose password only the system knows that they come from: they have not logged in yet.", nil, nil)
	descHeartbeat = prometheus.NewDesc("muster_projection_heartbeat_age_seconds", "How long this process' worker has not moved.", labels, nil)
)

// Describe implements prometheus.Collector.
func (e *Engine) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPosition, descVersion, descLag, descOldest, descOwned, descRanges, descStopped, descWaiting, descRebuilt, descRebuildTo, descHeartbeat, descOldSystem} {
		ch <- d
	}
}

// Collect implements prometheus.Collector with one query of the registry, and
// one of the users who wait for an old system.
func (e *Engine) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, name string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
	}
	now := e.cfg.Clock()
	for name, b := range e.beats {
		if ns := b.Load(); ns != 0 {
			gauge(descHeartbeat, now.Sub(time.Unix(0, ns)).Seconds(), name)
			gauge(descRanges, float64(e.holds[name].Load()), name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := e.Status(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descPosition, err)
		return
	}
	if jobs, err := e.Waiting(ctx); err == nil { // none before the read model is built
		waiting := int64(0)
		for _, n := range jobs {
			waiting += n
		}
		ch <- prometheus.MustNewConstMetric(descOldSystem, prometheus.GaugeValue, float64(waiting))
	}
	for _, s := range list {
		switch s.State {
		case "live":
			gauge(descPosition, float64(s.Position), s.Projection)
			gauge(descVersion, float64(s.Version), s.Projection)
			gauge(descLag, float64(s.Lag), s.Projection)
			gauge(descOldest, s.Oldest.Seconds(), s.Projection)
			owned := 0.0
			if s.Held == s.Ranges {
				owned = 1
			}
			gauge(descOwned, owned, s.Projection)
			gauge(descStopped, float64(s.Stopped), s.Projection)
			gauge(descWaiting, float64(s.Waiting), s.Projection)
		case "building":
			gauge(descRebuilt, float64(s.Events+max(0, int64(s.Position-s.BulkTo))), s.Projection)
			gauge(descRebuildTo, float64(max(s.Head, s.BulkTo)), s.Projection)
		}
	}
}
