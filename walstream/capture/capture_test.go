package capture_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/capture"
)

// long tells whether the long selection of tests was asked for.
func long() bool { return os.Getenv("LSNODE_LONG") != "" }

func scale(short, full int) int {
	if long() {
		return full
	}
	return short
}

func newSeed(t testing.TB) int64 {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return seed
}

// What one application does, of all kinds, is captured to the byte.
func TestMixed(t *testing.T) {
	for _, c := range []struct {
		name   string
		pragma string
		spec   appSpec
	}{
		{"plain", "", appSpec{}},
		{"own checkpoints", "", appSpec{Checkpoints: 7}},
		{"autocheckpoint 1", "", appSpec{Auto: 1}},
		{"no autocheckpoint", "", appSpec{Auto: -1}},
		{"full", "", appSpec{Sync: "FULL", Checkpoints: 20}},
		{"page size 512", "pragma page_size=512", appSpec{}},
		{"page size 65536", "pragma page_size=65536", appSpec{Checkpoints: 5}},
		{"incremental vacuum", "pragma auto_vacuum=2", appSpec{Checkpoints: 30}},
		{"auto_vacuum", "pragma auto_vacuum=1", appSpec{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, newDatabase(t, c.pragma))
			w.begin(nil)
			c.spec.Path, c.spec.Workload, c.spec.Txns, c.spec.Seed = w.path, "mixed", scale(150, 2000), newSeed(t)
			r := startApp(t, c.spec)()
			w.finish(r.IDs)
			t.Logf("%.0f/s, slowest checkpoint %v, %v, %d transactions, %+v", r.Rate, r.Slowest, r.Checkpoint, w.oracle.txns, w.c.Stats())
		})
	}
}

// The application's own checkpoints succeed at once while capture runs.
func TestApplicationCheckpoints(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	r := startApp(t, appSpec{Path: w.path, Workload: "small", Txns: scale(4000, 40000), Auto: -1, Checkpoints: 50, Seed: newSeed(t)})()
	w.finish(r.IDs)
	if len(r.Checkpoint) > 0 {
		t.Errorf("%d checkpoints were busy: %v", len(r.Checkpoint), r.Checkpoint)
	}
	// A machine that others use has pauses of its own: what is excluded here is
	// waiting for capture until a busy timeout ends.
	if r.Slowest > 500*time.Millisecond {
		t.Errorf("the slowest checkpoint took %v", r.Slowest)
	}
	t.Logf("slowest checkpoint %v, %.0f/s, %+v", r.Slowest, r.Rate, w.c.Stats())
}

// Several writers at full speed: nothing is missed, and the WAL stays short.
func TestSaturated(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(func(c *capture.Config) { c.ForceFrames = 2000 })
	var waits []func() appResult
	for i := range 3 {
		waits = append(waits, startApp(t, appSpec{
			Path: w.path, Workload: "small", Txns: scale(3000, 30000), Seed: int64(i), Writer: i + 1, Checkpoints: 1000,
		}))
	}
	var ids []int64
	rate := 0.0
	for _, wait := range waits {
		r := wait()
		ids = append(ids, r.IDs...)
		rate += r.Rate
	}
	w.settle()
	longest, err := w.db.WALBytes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f/s, WAL of %d frames at most, %+v", rate, longest/4120, w.c.Stats())
	w.finish(ids)
}

// An idle database is captured at once, not at the next poll.
func TestIdleAtOnce(t *testing.T) {
	for _, sync := range []string{"NORMAL", "FULL"} {
		t.Run(sync, func(t *testing.T) {
			w := newWorld(t, newDatabase(t))
			w.begin(func(c *capture.Config) { c.Poll = time.Hour })
			var ids []int64
			for i := range 10 {
				ids = append(ids, int64(i+1))
				shell(t, w.path, "pragma synchronous="+sync, fmt.Sprintf("insert into log values(%d)", i+1))
				w.settle() // fails if nothing wakes the capture
			}
			w.finish(ids)
		})
	}
}
