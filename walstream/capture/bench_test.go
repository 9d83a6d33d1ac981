package capture_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
)

// discard is a Sink that reads what it gets and keeps nothing.
type discard struct{}

func (discard) Ship(_ context.Context, t *walstream.Txn) error {
	for _, err := range t.Pages {
		if err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkRatio measures applications at full speed with capture attached, over
// the same without, in turns: commits a second, and the ratio of the medians.
//
//	go test ./walstream/capture -run xxx -bench Ratio -benchtime 5x
func BenchmarkRatio(b *testing.B) {
	for _, c := range []struct {
		writers int
		sync    string
	}{{1, "NORMAL"}, {1, "FULL"}, {3, "NORMAL"}} {
		b.Run(fmt.Sprintf("%d-%s", c.writers, c.sync), func(b *testing.B) {
			var alone, with []float64
			for range b.N {
				alone = append(alone, rate(b, c.writers, c.sync, false))
				with = append(with, rate(b, c.writers, c.sync, true))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(alone), "alone/s")
			b.ReportMetric(median(with), "captured/s")
			b.ReportMetric(median(with)/median(alone), "ratio")
		})
	}
}

// BenchmarkLag measures from a commit on an otherwise idle database to its
// arrival at the Sink.
func BenchmarkLag(b *testing.B) {
	for _, sync := range []string{"NORMAL", "FULL"} {
		b.Run(sync, func(b *testing.B) {
			w := newWorld(b, newDatabase(b))
			w.begin(nil)
			c, err := w.db.Conn(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Exec("pragma synchronous=" + sync); err != nil {
				b.Fatal(err)
			}
			var lags []float64
			for b.Loop() {
				w.oracle.mu.Lock()
				changed := w.oracle.changed
				w.oracle.mu.Unlock()
				time.Sleep(5 * time.Millisecond) // idle is what is measured
				if err := c.Exec("insert into t(v) values(1)"); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				<-changed
				lags = append(lags, float64(time.Since(start).Microseconds()))
			}
			b.ReportMetric(median(lags), "p50-us")
			b.ReportMetric(lags[len(lags)*99/100], "p99-us")
		})
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func rate(b *testing.B, writers int, sync string, captured bool) float64 {
	path := newDatabase(b)
	var w *world
	if captured {
		w = newWorld(b, path)
		w.begin(func(c *capture.Config) { c.Sink = discard{} })
	}
	txns := 20000
	if sync == "FULL" {
		txns = 3000
	}
	var waits []func() appResult
	for i := range writers {
		waits = append(waits, startApp(b, appSpec{Path: path, Workload: "small", Sync: sync, Txns: txns / writers, Writer: i}))
	}
	sum := 0.0
	for _, wait := range waits {
		sum += wait().Rate
	}
	if captured {
		if err := w.stop(); err != nil {
			b.Fatal(err)
		}
		b.Logf("%.0f/s %+v", sum, w.c.Stats())
	}
	return sum
}
