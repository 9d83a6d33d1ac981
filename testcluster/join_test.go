package testcluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// Nodes join while several writers are at work, and both sides get every commit.
func TestJoinUnderLoad(t *testing.T) {
	w := newWorld(t, 3*time.Minute, testcluster.Options{Args: calm})
	first := w.Nodes[0]
	w.must(w.StartNode(first))
	_, err := first.WaitFor(w.ctx, "a primary", testcluster.IsPrimary)
	w.must(err)
	bank := w.writer(first, "bank", "--rate", "500")
	mixed := w.writer(first, "mixed", "--rate", "100", "--blob", fmt.Sprint(3<<20))
	w.more(bank, 100)
	for _, n := range w.Nodes[1:] {
		w.must(w.StartNode(n))
	}
	var readers []*app.Child
	for _, n := range w.Nodes[1:] {
		readers = append(readers, w.app(n, "reader", "--reopen"))
	}
	w.must(w.WaitSettled(w.ctx))
	for _, r := range readers {
		w.more(r, 50)
	}
	w.more(mixed, 50)
	w.finish(append(readers, bank, mixed)...)
	t.Logf("%+v", w.verify())
}

// A follower that was away comes back to what was written meanwhile, also if
// that is more than the others' logs still hold.
func TestAwayLongerThanTheLog(t *testing.T) {
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(binary, "run", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, help)
	}
	if !strings.Contains(string(help), "--log-bytes") {
		t.Skip("lsnode has no flag that bounds its log")
	}
	size := int64(pick(4, 64)) << 20
	w := started(t, time.Duration(pick(1, 10))*time.Minute, testcluster.Options{Nonvoters: true, Args: []string{"--log-bytes", fmt.Sprint(size)}})
	w.settled(10)
	away := w.Nodes[2]
	away.Kill()
	primary := w.primary()
	mixed := w.writer(primary, "mixed", "--grow-to", fmt.Sprint(8*size), "--count", "400")
	_, err = mixed.Wait()
	w.must(err)
	reader := w.app(away, "reader")
	w.more(reader, 10)
	w.must(w.StartNode(away))
	w.must(w.WaitSettled(w.ctx))
	w.finish(reader)
	t.Logf("%+v", w.verify())
}

// A node whose disk was emptied joins as a new one under its old name.
func TestEmptiedNodeJoinsAnew(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Args: calm})
	bank := w.writer(w.Nodes[0], "bank", "--rate", "200")
	for _, n := range []*testcluster.Node{w.Nodes[2], w.Nodes[1]} {
		before, err := n.Status(w.ctx)
		w.must(err)
		n.Kill()
		w.must(os.RemoveAll(n.DataDir))
		w.must(os.RemoveAll(filepath.Dir(n.DB(testcluster.DatabaseName))))
		w.more(bank, 50)
		w.must(w.StartNode(n))
		w.must(w.WaitSettled(w.ctx))
		after, err := n.Status(w.ctx)
		w.must(err)
		if after.ID == before.ID || after.ID == "" {
			t.Errorf("%s came back with ID %q, it had %q", n.Name, after.ID, before.ID)
		}
		if len(after.Nodes) != 3 {
			t.Errorf("the cluster has %d nodes: %+v", len(after.Nodes), after.Nodes)
		}
	}
	w.finish(bank)
	t.Logf("%+v", w.verify())
}

// A follower that lost its data dir and kept its copy must not begin a second
// cluster around it: run refuses the file and says what to do.
func TestFencedCopyStartsNoCluster(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{})
	w.settled(3)
	n := w.Nodes[1]
	peers, token := n.Peers, n.TokenFile
	n.Kill()
	w.must(os.RemoveAll(n.DataDir))
	n.Peers, n.TokenFile = nil, "" // run, not join
	w.must(n.Start())
	limit := time.Now().Add(20 * time.Second)
	for said := ""; !strings.Contains(said, "join") || !strings.Contains(said, "release"); time.Sleep(10 * time.Millisecond) {
		said = n.LogTail(4 << 10)
		if s, err := n.Status(w.ctx); err == nil {
			if testcluster.IsPrimary(s) {
				t.Fatalf("it is primary of a copy: %+v", s)
			}
			said += s.Database(testcluster.DatabaseName).Error
		}
		if time.Now().After(limit) {
			t.Fatalf("run on a fenced copy does not name join and release: %s", said)
		}
	}
	refuses(t, n)

	// It has made no cluster of its own on the way, so that it can join. The copy is
	// in the way of a new one until that is said to be right.
	n.Kill()
	n.Peers, n.TokenFile = peers, token
	n.Args = append(n.Args, "--replace")
	w.must(w.StartNode(n))
	w.must(w.WaitSettled(w.ctx))
	t.Logf("%+v", w.verify())
}

// A follower is killed at random instants while it applies. Its readers notice
// nothing, and it always gets back to where the others are.
func TestFollowerKilledWhileApplying(t *testing.T) {
	w := started(t, time.Duration(pick(3, 20))*time.Minute, testcluster.Options{Nonvoters: true})
	w.settled(3)
	first, follower := w.Nodes[0], w.Nodes[2]
	readers := []*app.Child{w.app(follower, "reader", "--fresh", "3"), w.app(follower, "reader", "--client", "python", "--fresh", "0")}
	bank := w.writer(first, "bank")
	mixed := w.writer(first, "mixed", "--blob", fmt.Sprint(5<<20), "--rate", "200")
	for range pick(8, 50) {
		w.more(bank, 50)
		w.pause(150 * time.Millisecond)
		follower.Kill()
		w.pause(100 * time.Millisecond)
		for _, r := range readers {
			w.more(r, 3)
		}
		w.must(w.StartNode(follower))
		if w.rng.IntN(3) > 0 { // else killed again while it starts
			_, err := follower.WaitFor(w.ctx, "following", testcluster.IsFollowing)
			w.must(err)
		}
	}
	w.finish(bank, mixed)
	w.must(w.WaitSettled(w.ctx))
	_, err := w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)
	for _, r := range readers {
		w.reported(r, "the last commit", func(r app.Report) bool {
			return r.Seq >= bank.Last().Seq+mixed.Last().Seq
		})
	}
	w.finish(readers...)
	t.Logf("%+v", w.verify())
}
