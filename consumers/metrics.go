package consumers

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-id/muster/eventstore"
)

// stats are a subscription's counters.
type stats struct {
	delivered, acked, nacked, parked, outages atomic.Int64
}

var (
	descMessages = prometheus.NewDesc("muster_consumer_messages_total", "Messages that handlers answered, by answer.", []string{"consumer", "answer"}, nil)
	descParked   = prometheus.NewDesc("muster_consumer_parked_total", "Streams that this instance parked.", []string{"consumer"}, nil)
	descOutages  = prometheus.NewDesc("muster_consumer_outages_total", "Times that a destination failed.", []string{"consumer"}, nil)
	descAside    = prometheus.NewDesc("muster_consumer_aside_streams", "Streams parked or waiting for their next try, in the slices of this instance.", []string{"consumer"}, nil)
	descBuffered = prometheus.NewDesc("muster_consumer_buffered_events", "Events read and not yet handled.", []string{"consumer"}, nil)
	descRanges   = prometheus.NewDesc("muster_consumer_leases", "Ranges of slices that this instance holds.", []string{"consumer"}, nil)
	descYielding = prometheus.NewDesc("muster_consumer_yielding", "1 while the consumer lets an import go first.", []string{"consumer"}, nil)
	descPosition = prometheus.NewDesc("muster_consumer_position", "The lowest position up to which everything is handled, in the slices of this instance.", []string{"consumer"}, nil)
	descLag      = prometheus.NewDesc("muster_consumer_lag_events", "Positions of the log beyond that.", []string{"consumer"}, nil)

	descMails = prometheus.NewDesc("muster_mails_total", "Mails by what became of them.", []string{"outcome"}, nil)
)

var (
	_ prometheus.Collector = (*Subscriber)(nil)
	_ prometheus.Collector = (*Mail)(nil)
)

// Describe names no metric beforehand: consumers come and go.
func (s *Subscriber) Describe(chan<- *prometheus.Desc) {}

// Collect reports on the subscriptions that run. It asks the log for its end;
// without an answer within a second there is no lag to report.
func (s *Subscriber) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	groups := make(map[string][]*group)
	for g := range s.groups {
		groups[g.name] = append(groups[g.name], g)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	end, err := s.store.Head(ctx)
	for name, gs := range groups {
		var acked, nacked, parked, outages int64
		var aside, buffered, ranges, yielding int
		low, held := eventstore.Position(math.MaxInt64), false
		for _, g := range gs {
			acked, nacked = acked+g.stats.acked.Load(), nacked+g.stats.nacked.Load()
			parked, outages = parked+g.stats.parked.Load(), outages+g.stats.outages.Load()
			if g.yielding.Load() {
				yielding = 1
			}
			g.mu.Lock()
			aside, buffered, ranges = aside+len(g.aside), buffered+g.buffered, ranges+len(g.spans)
			for _, sp := range g.spans {
				low, held = min(low, sp.low()), true
			}
			g.mu.Unlock()
		}
		counter := func(d *prometheus.Desc, v int64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{name}, labels...)...)
		}
		gauge := func(d *prometheus.Desc, v int64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), name)
		}
		counter(descMessages, acked, "ack")
		counter(descMessages, nacked, "nack")
		counter(descParked, parked)
		counter(descOutages, outages)
		gauge(descAside, int64(aside))
		gauge(descBuffered, int64(buffered))
		gauge(descRanges, int64(ranges))
		gauge(descYielding, int64(yielding))
		if held {
			gauge(descPosition, int64(low))
			if err == nil {
				gauge(descLag, int64(max(0, end.Position-low)))
			}
		}
	}
}

// Describe names the metric.
func (m *Mail) Describe(ch chan<- *prometheus.Desc) { ch <- descMails }

// Collect reports what became of the mails of this process.
func (m *Mail) Collect(ch chan<- prometheus.Metric) {
	for outcome, n := range map[string]int64{"sent": m.sent.Load(), "not_due": m.skipped.Load(), "uncertain": m.uncertain.Load()} {
		ch <- prometheus.MustNewConstMetric(descMails, prometheus.CounterValue, float64(n), outcome)
	}
}
