package consumers

import "sync/atomic"

// stats are a subscription's counters.
type stats struct {
	delivered, acked, nacked, parked, outages atomic.Int64
}
