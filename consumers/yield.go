package consumers

import (
	"context"
	"time"

	"github.com/muster-id/muster/eventstore"
)

// An import of many takes all that the processors have, and so does a consumer
// that has a log to catch up with. Consumers can wait; people who watch an import
// cannot.

// yieldRate is how many events a second a consumer gets while it lets an import
// go first: few enough to cost the import nothing, and not none, since imports
// may follow each other for days.
const yieldRate = 50

// yieldBatch bounds what it reads at a time meanwhile, and yieldPause is how long it
// waits before each read.
const (
	yieldBatch = 10
	yieldPause = 100 * time.Millisecond
)

// yieldDefault is the growth, in events a second, above which one that names none
// lets imports go first: well over a thousand imports a second.
func yieldDefault(above int) int {
	if above == 0 {
		return 5_000
	}
	return above
}

// yields reports whether a log grows so fast that a consumer lets it go first.
func yields(store *eventstore.Store, above int) bool {
	return above > 0 && store.Growth() > float64(above)
}

// look decides whether the group lets an import go first from now on.
func (g *group) look() {
	yielding := yields(g.store, g.cfg.YieldAbove)
	if g.yielding.Swap(yielding) != yielding {
		g.cfg.Log.Debug("a consumer lets an import go first, or has done so", "consumer", g.name, "yields", yielding)
	}
}

// pace keeps a worker back while the group lets an import go first.
func (g *group) pace(ctx context.Context) {
	if !g.yielding.Load() {
		return
	}
	now := g.cfg.Clock.Now()
	if d := g.turns.ReserveN(now, 1).DelayFrom(now); d > 0 {
		g.sleep(ctx, d)
	}
}
