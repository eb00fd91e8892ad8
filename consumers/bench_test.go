package consumers_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/muster-id/muster/consumers"
)

// BenchmarkCatchUp measures how fast a consumer goes through a log of 60,000
// events, with a Watermill router and a handler that does nothing.
func BenchmarkCatchUp(b *testing.B) {
	store, url := openStoreURL(b)
	const events = 60_000
	newUsers(b, store, events/3, 2)
	// What autovacuum does a minute later anyway: without statistics the
	// planner reads the whole log for each batch.
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(b.Context())
	if _, err := conn.Exec(b.Context(), "ANALYZE"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var n atomic.Int64
		done := make(chan struct{})
		began := time.Now()
		name := "bench-" + time.Now().Format("150405.000000")
		_, stop := consume(b, store, name, consumers.Config{}, func(*message.Message) error {
			if n.Add(1) == events {
				close(done)
			}
			return nil
		})
		<-done
		b.ReportMetric(events/time.Since(began).Seconds(), "events/s")
		stop()
	}
}
