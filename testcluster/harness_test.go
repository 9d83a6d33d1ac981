package testcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

func TestMain(m *testing.M) {
	if os.Getenv(app.EnvName) != "" {
		os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(runTests(m))
}

// builds is where the program is built, once for all tests.
var builds string

func runTests(m *testing.M) int {
	var err error
	if builds, err = os.MkdirTemp("", "lsnode-build-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(builds)
	return m.Run()
}

var build = sync.OnceValues(func() (string, error) {
	return testcluster.Build(context.Background(), "..", builds)
})

// long tells whether the long selection is wanted.
func long() bool { return os.Getenv("LSNODE_LONG") == "1" }

// pick returns a number for the short or the long selection.
func pick(short, inLong int) int {
	if long() {
		return inLong
	}
	return short
}

// calm is for tests of voters that are not about elections: a busy machine then
// doesn't make one happen.
var calm = []string{"--timing", "wan"}

// world is a cluster under test, its applications, and what they recorded.
type world struct {
	*testcluster.Cluster
	t       *testing.T
	ctx     context.Context
	rng     *rand.Rand
	records []string
	workers int
}

// newWorld makes a cluster that is gone when the test ends. limit bounds all
// waiting in the test.
func newWorld(t *testing.T, limit time.Duration, o testcluster.Options) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes take their time")
	}
	if o.Namespace {
		if why := testcluster.NetworkMissing(); why != "" {
			t.Skip(why)
		}
	}
	var err error
	if o.Binary, err = build(); err != nil {
		t.Fatal(err)
	}
	if o.Apps, err = app.Self(); err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	c, err := testcluster.New(o)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Log(c.Logs(12 << 10))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{Cluster: c, t: t, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 1))}
}

// started is newWorld with all nodes running.
func started(t *testing.T, limit time.Duration, o testcluster.Options) *world {
	t.Helper()
	w := newWorld(t, limit, o)
	w.must(w.Start(w.ctx))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// app starts an application on a node's database.
func (w *world) app(n *testcluster.Node, name string, args ...string) *app.Child {
	w.t.Helper()
	c, err := w.Apps.Start(name, append([]string{"--db", n.DB(testcluster.DatabaseName)}, args...)...)
	w.must(err)
	w.t.Cleanup(c.Kill)
	return c
}

// writer starts an application that writes on a node, with a record of its own.
func (w *world) writer(n *testcluster.Node, name string, args ...string) *app.Child {
	w.t.Helper()
	w.workers++
	record := filepath.Join(w.Dir, fmt.Sprintf("commits-%d", w.workers))
	w.records = append(w.records, record)
	return w.app(n, name, append([]string{"--worker", fmt.Sprint(w.workers), "--seed", fmt.Sprint(w.rng.Uint64()),
		"--oracle", record, "--every", "10ms"}, args...)...)
}

// everywhere starts the bank on every node; only where it may write it does.
func (w *world) everywhere(rate int) map[*testcluster.Node]*app.Child {
	w.t.Helper()
	banks := map[*testcluster.Node]*app.Child{}
	for _, n := range w.Nodes {
		banks[n] = w.writer(n, "bank", "--reopen", "--rate", fmt.Sprint(rate))
	}
	return banks
}

// reported waits until an application's newest report is as wanted.
func (w *world) reported(c *app.Child, what string, ok func(app.Report) bool) app.Report {
	w.t.Helper()
	for {
		last := c.Last()
		if ok(last) {
			return last
		}
		select {
		case <-c.Exited():
			last, err := c.Wait()
			if err != nil || !ok(last) {
				w.t.Fatalf("wait for %s: %s has ended: %+v, %v", what, last.App, last, err)
			}
			return last
		case <-w.ctx.Done():
			w.t.Fatalf("wait for %s: %v; last: %+v", what, w.ctx.Err(), last)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// more waits until an application has done so much more.
func (w *world) more(c *app.Child, n int64) {
	w.t.Helper()
	from := c.Last().Count
	w.reported(c, fmt.Sprintf("%d more", n), func(r app.Report) bool { return r.Count >= from+n })
}

// finish ends applications and fails the test if what they check did not hold.
func (w *world) finish(apps ...*app.Child) {
	w.t.Helper()
	for _, c := range apps {
		if r, err := c.Finish(); err != nil {
			w.t.Fatalf("%v (last: %+v)", err, r)
		}
	}
}

// verify compares all copies with each other and with the record. Applications
// have ended.
func (w *world) verify() testcluster.Verdict {
	w.t.Helper()
	limit := time.Minute
	if long() {
		limit = 10 * time.Minute
	}
	v, err := w.Settle(w.ctx, limit, w.records...)
	w.must(err)
	return v
}

// primary waits for a primary.
func (w *world) primary(except ...*testcluster.Node) *testcluster.Node {
	w.t.Helper()
	n, err := w.WaitPrimary(w.ctx, except...)
	w.must(err)
	return n
}

// pause lets things happen for a random time, so that what comes next comes at
// a random instant.
func (w *world) pause(most time.Duration) {
	time.Sleep(time.Duration(w.rng.Int64N(int64(most))))
}

// apart fails the test if two nodes took writes in the same instant.
func (w *world) apart(notes map[*testcluster.Node]string) {
	w.t.Helper()
	windows := map[*testcluster.Node][]app.Window{}
	for n, path := range notes {
		found, err := app.Windows(path)
		w.must(err)
		windows[n] = found
		w.t.Logf("%s took writes in %d windows", n.Name, len(found))
	}
	for i, a := range w.Nodes {
		for _, b := range w.Nodes[i+1:] {
			if x, y, overlap := app.Overlap(windows[a], windows[b]); overlap {
				w.t.Errorf("%s took writes from %d to %d, %s from %d to %d: both for %v", a.Name, x.From, x.Until, b.Name, y.From, y.Until,
					time.Duration(min(x.Until, y.Until)-max(x.From, y.From)))
			}
		}
	}
}

// probers starts a prober on every node; notes says where each takes notes.
func (w *world) probers() (notes map[*testcluster.Node]string, probers map[*testcluster.Node]*app.Child) {
	w.t.Helper()
	notes, probers = map[*testcluster.Node]string{}, map[*testcluster.Node]*app.Child{}
	for _, n := range w.Nodes {
		notes[n] = filepath.Join(w.Dir, "windows-"+n.Name)
		probers[n] = w.app(n, "prober", "--intervals", notes[n])
	}
	return notes, probers
}
