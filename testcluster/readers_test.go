package testcluster_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// Readers in other processes, of several SQLite versions, see every transaction
// whole and never go back, whatever is streamed; one that holds a transaction
// open disturbs nobody, and when it leaves the WAL is short again.
func TestReadersSeeWholeTransactions(t *testing.T) {
	w := started(t, time.Duration(pick(3, 30))*time.Minute, testcluster.Options{Nonvoters: true})
	first, follower, other := w.Nodes[0], w.Nodes[1], w.Nodes[2]
	w.settled(1)

	readers := []*app.Child{
		w.app(follower, "reader", "--client", "go"), w.app(follower, "reader", "--client", "shell"),
		w.app(other, "reader", "--client", "python"), w.app(other, "reader", "--client", "go", "--fresh", "1"),
	}
	hold := w.app(follower, "hold")
	w.more(hold, 1)

	count, grow := pick(1500, 5000), 0
	if long() {
		grow = 1<<30 + 200<<20
	}
	mixed := w.writer(first, "mixed", "--count", fmt.Sprint(count), "--blob", fmt.Sprint(50<<20), "--grow-to", fmt.Sprint(grow))
	done, err := mixed.Wait()
	w.must(err)
	for _, r := range readers {
		w.reported(r, "the last commit", func(r app.Report) bool { return r.Seq >= done.Seq })
		w.more(r, 10)
	}
	w.finish(readers...)
	long := walSize(t, follower)

	w.finish(hold)
	bank := w.writer(first, "bank", "--rate", "200")
	defer bank.Kill()
	for walSize(t, follower) > 16<<20 {
		select {
		case <-w.ctx.Done():
			t.Fatalf("the WAL has %d bytes, it had %d while the reader was there", walSize(t, follower), long)
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Logf("WAL: %d bytes with the long reader, %d after it; the primary's has %d", long, walSize(t, follower), walSize(t, first))
	w.finish(bank)
	t.Logf("%+v", w.verify())
}

// walSize looks at the file's size without opening it.
func walSize(t *testing.T, n *testcluster.Node) int64 {
	t.Helper()
	info, err := os.Stat(n.DB(testcluster.DatabaseName) + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// settled makes a few commits and waits until all nodes have them.
func (w *world) settled(commits int) {
	w.t.Helper()
	_, err := w.writer(w.Nodes[0], "bank", "--count", fmt.Sprint(commits)).Wait()
	w.must(err)
	_, err = w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)
}
