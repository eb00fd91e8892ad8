package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// onDatabase returns the URL of another database on the same server.
func onDatabase(raw, name string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

// sample is one measurement: how many units were done in what time, and the
// latency of each call.
type sample struct {
	units     int64
	elapsed   time.Duration
	latencies []time.Duration
}

func (s sample) rate() float64 { return float64(s.units) / s.elapsed.Seconds() }

func (s sample) percentile(p float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	slices.Sort(s.latencies)
	return s.latencies[min(len(s.latencies)-1, int(p*float64(len(s.latencies))))]
}

// drive lets n callers call do over and over for d, after a tenth of it as a
// warm-up. do returns how many units it did; its argument is unique.
func drive(ctx context.Context, n int, d time.Duration, do func(ctx context.Context, caller int) (int, error)) (sample, error) {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		failed   error
		out      sample
		counting atomic.Bool
		stop     atomic.Bool
	)
	for c := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var latencies []time.Duration
			var units int64
			for !stop.Load() && ctx.Err() == nil {
				begin := time.Now()
				k, err := do(ctx, c)
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					stop.Store(true)
					return
				}
				if counting.Load() {
					units += int64(k)
					latencies = append(latencies, time.Since(begin))
				}
			}
			mu.Lock()
			out.units += units
			out.latencies = append(out.latencies, latencies...)
			mu.Unlock()
		}()
	}
	time.Sleep(d / 10)
	counting.Store(true)
	begin := time.Now()
	for time.Since(begin) < d && !stop.Load() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	out.elapsed = time.Since(begin)
	stop.Store(true)
	wg.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	return out, failed
}

// figure is one row of a table: something that is measured once in each round.
type figure struct {
	name    string
	measure func(context.Context) (sample, error)
	samples []sample
}

// rounds measures all figures in turn, so that what else the machine does
// falls on all of them alike.
func (b *bench) measure(ctx context.Context, figures ...*figure) error {
	for range b.rounds {
		for _, f := range figures {
			s, err := f.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			f.samples = append(f.samples, s)
		}
	}
	return nil
}

func median[T float64 | time.Duration](values []T) T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

func (f *figure) rate() float64 {
	var v []float64
	for _, s := range f.samples {
		v = append(v, s.rate())
	}
	return median(v)
}

func (f *figure) percentile(p float64) time.Duration {
	var v []time.Duration
	for _, s := range f.samples {
		v = append(v, s.percentile(p))
	}
	return median(v)
}

// table prints rows under a title, columns aligned, in Markdown.
func table(title string, header []string, rows [][]string) {
	fmt.Printf("\n**%s**\n\n", title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	line := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, "\t| ")) }
	line(header)
	dashes := make([]string, len(header))
	for i := range dashes {
		dashes[i] = "---"
	}
	line(dashes)
	for _, r := range rows {
		line(r)
	}
	w.Flush()
}

func perSecond(v float64) string { return fmt.Sprintf("%.0f/s", v) }
func ratio(a, b float64) string  { return fmt.Sprintf("%.2f", a/b) }
func ms(d time.Duration) string  { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }
