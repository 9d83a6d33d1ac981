package testcluster_test

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/oracle"
)

// Two of three nodes are gone, one with its disk. The third goes on alone, with
// all that it had; the former primary comes back from its disk, joins by itself,
// and what only it had is in its quarantine.
func TestRecoverLostMajority(t *testing.T) {
	w := started(t, 4*time.Minute, testcluster.Options{})
	primary := w.primary()
	var others []*testcluster.Node
	for _, n := range w.Nodes {
		if n != primary {
			others = append(others, n)
		}
	}
	survivor, gone := others[0], others[1]
	var next atomic.Int64
	synced, ends := w.syncing(primary, 2, 10, &next).wait()
	for _, err := range ends {
		w.must(err)
	}
	_, err := w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)

	// While the node runs it is refused; while the others do as well.
	if _, err := survivor.Run(w.ctx, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "must not be running") {
		t.Errorf("recover beside a running node: %v", err)
	}
	survivor.Kill()
	if _, err := survivor.Run(w.ctx, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "start this node instead") {
		t.Errorf("recover beside a majority: %v", err)
	}

	// What follows only the primary has, and the node that is lost with its disk.
	bank := w.writer(primary, "bank", "--rate", "200")
	w.more(bank, 50)
	primary.Kill()
	bank.Kill()
	gone.Kill()
	w.must(os.RemoveAll(gone.DataDir))

	if out, err := survivor.Run(w.ctx, "recover"); err == nil || !strings.Contains(err.Error(), "nothing was done") {
		t.Errorf("recover without an answer: %v, %s", err, out)
	}
	out, err := survivor.Run(w.ctx, "recover", "--yes")
	w.must(err)
	for _, want := range []string{survivor.Name, primary.Name, testcluster.DatabaseName, "does not answer"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in what is shown:\n%s", want, out)
		}
	}
	w.must(w.StartNode(survivor))
	status, err := survivor.WaitFor(w.ctx, "being primary", testcluster.IsPrimary)
	w.must(err)
	if len(status.Nodes) != 1 || status.Epoch < 1_000_000 {
		t.Errorf("after the recovery: epoch %d, %+v", status.Epoch, status.Nodes)
	}
	w.holds(survivor, synced)
	rows := w.rowsFrom(survivor)
	w.must(add(rows, 1_000_000))
	synced = append(synced, 1_000_000)
	w.mustSync(survivor, 20*time.Second, http.StatusOK)

	w.must(w.StartNode(primary))
	_, err = primary.WaitFor(w.ctx, "following", testcluster.IsFollowing)
	w.must(err)
	_, err = w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)
	w.holds(primary, synced)
	if told := w.status(primary).Database(testcluster.DatabaseName).Quarantined; told < 50 {
		t.Errorf("%d commits are in quarantine, want at least 50", told)
	}
	refuses(t, primary)
	if s := w.status(survivor); len(s.Nodes) != 2 || !testcluster.IsPrimary(s) {
		t.Errorf("members are %+v", s.Nodes)
	}
	record, err := oracle.Read(w.records...)
	w.must(err)
	v, err := w.Verify(w.ctx, record)
	w.must(err)
	t.Logf("%+v", v)
}

// The primary is left over and goes on alone, with all that its application had
// committed. The other two, a majority before, come back at the same time: they
// become followers.
func TestRecoverPrimaryWhileOthersComeBack(t *testing.T) {
	w := started(t, 4*time.Minute, testcluster.Options{})
	survivor := w.primary()
	bank := w.writer(survivor, "bank", "--rate", "200")
	w.more(bank, 50)
	for _, n := range w.Nodes {
		n.Kill()
	}
	bank.Kill()
	_, err := survivor.Run(w.ctx, "recover", "--yes")
	w.must(err)
	for _, n := range w.Nodes {
		w.must(w.StartNode(n))
	}
	for _, n := range w.Nodes {
		want := testcluster.IsFollowing
		if n == survivor {
			want = testcluster.IsPrimary
		}
		_, err := n.WaitFor(w.ctx, "its role in the recovered cluster", func(s testcluster.Status) bool {
			return want(s) && s.Epoch > 1_000_000 && len(s.Nodes) == len(w.Nodes)
		})
		w.must(err)
	}
	w.must(add(w.rowsFrom(survivor), 1))
	if v := w.verify(); v.Quarantined != 0 {
		t.Errorf("%+v: the primary had all of it", v)
	}
}
