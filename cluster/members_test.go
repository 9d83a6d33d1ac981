package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/secure"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), generous)
	t.Cleanup(cancel)
	return ctx
}

// TestSoleVoterRestarts: it is primary again without waiting for anyone, with its
// epoch raised, and its name, ID and database as before.
func TestSoleVoterRestarts(t *testing.T) {
	w := newWorld(t)
	n := w.add("n1", nil)
	n.start()
	if err := n.c.AddDatabase(deadline(t), "app", 0); err != nil {
		t.Fatal(err)
	}
	w.primary()
	id, cluster1, epoch := n.c.Self(), n.c.ID(), n.c.State().Primary.Epoch
	for range 3 {
		n.kill()
		n.start()
		w.primary()
		if n.c.Self() != id || n.c.ID() != cluster1 || n.c.State().Primary.Epoch <= epoch {
			t.Errorf("restarted as %s of %s in epoch %d", n.c.Self(), n.c.ID(), n.c.State().Primary.Epoch)
		}
		epoch = n.c.State().Primary.Epoch
	}
	w.checkAcked(n)
}

// TestSecondVoterComesWithThird: two members are one voter, three are three; and
// when one of three is removed the cluster has one again.
func TestSecondVoterComesWithThird(t *testing.T) {
	w := newWorld(t)
	n1 := w.add("n1", nil)
	n1.start()
	if err := n1.c.AddDatabase(deadline(t), "app", 0); err != nil {
		t.Fatal(err)
	}
	n2 := w.add("n2", nil)
	n2.start(n1.c.Address())
	w.eventually("n2 has caught up", func() bool { return n1.data.CaughtUp(n2.c.Self()) })
	w.primary()
	if got := len(n1.c.Voters()); got != 1 {
		t.Errorf("%d voters with two members", got)
	}
	replica := w.add("replica", func(c *cluster.Config) { c.Nonvoter = true })
	replica.start(n2.c.Address()) // through a follower
	w.eventually("the replica has caught up", func() bool { return n1.data.CaughtUp(replica.c.Self()) })
	w.primary()
	if got := len(n1.c.Voters()); got != 1 {
		t.Errorf("%d voters with two members and a replica", got)
	}
	n3 := w.add("n3", nil)
	n3.start(replica.c.Address())
	w.voters(3)
	if n1.c.IsVoter(replica.c.Self()) {
		t.Error("the replica has become a voter")
	}
	if err := w.primary().c.Remove(deadline(t), "n3"); err != nil {
		t.Fatal(err)
	}
	n3.awaitRemoved()
	w.eventually("one voter is left", func() bool { return len(n1.c.Voters()) == 1 })
	w.checkAcked(w.primary())
}

func TestRemovedNodeFindsOut(t *testing.T) {
	w := three(t)
	gone := w.others(w.primary())[0]
	gone.kill()
	if err := w.primary().c.Remove(deadline(t), gone.name); err != nil {
		t.Fatal(err)
	}
	gone.start()
	gone.awaitRemoved()
}

// TestRemovedNodeIsNotTold: it finds out although the message is lost.
func TestRemovedNodeIsNotTold(t *testing.T) {
	w := three(t)
	gone := w.others(w.primary())[0]
	gone.c.RPC().Handle("cluster.removed", nil)
	if err := w.primary().c.Remove(deadline(t), gone.name); err != nil {
		t.Fatal(err)
	}
	gone.awaitRemoved()
}

func TestLeave(t *testing.T) {
	w := three(t)
	old := w.primary()
	if err := old.c.Leave(deadline(t)); err != nil {
		t.Fatal(err)
	}
	old.awaitRemoved()
	next := w.primary()
	w.checkAcked(next)
	w.eventually("it is forgotten", func() bool { _, ok := next.c.State().Named(old.name); return !ok })
	w.eventually("one voter is left", func() bool { return len(next.c.Voters()) == 1 })
	if err := next.c.Leave(deadline(t)); !errors.Is(err, cluster.ErrSoleVoter) {
		t.Errorf("the only voter leaves: %v", err)
	}
}

// TestLostDataDir: a node whose data dir was emptied is a new node, which may
// take its old name; the name of one that is alive is refused.
func TestLostDataDir(t *testing.T) {
	w := three(t)
	primary := w.primary()
	lost := w.others(primary)[0]
	old := lost.c.Self()
	thief := w.add(lost.name, nil)
	if err := thief.tryStart(primary.c.Address()); !errors.Is(err, cluster.ErrNameTaken) {
		t.Errorf("take the name of a live node: %v", err)
	}
	lost.kill()
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	lost.disk = newDisk()
	lost.start(primary.c.Address())
	if lost.c.Self() == old {
		t.Error("it has its old ID")
	}
	w.voters(3)
	if _, ok := primary.c.State().Nodes[old]; ok {
		t.Error("the old ID is still a member")
	}
	w.checkAcked(w.primary())
}

func TestJoinNeedsToken(t *testing.T) {
	w := newWorld(t)
	n1 := w.add("n1", nil)
	n1.start()
	for name, token := range map[string]secure.Token{"none": {}, "wrong": secure.NewToken()} {
		c, err := cluster.Open(deadline(t), cluster.Config{DataDir: t.TempDir(), Name: "stranger", Listen: "127.0.0.1:0", Token: token})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err = c.Join(ctx, []string{n1.c.Address()})
		cancel()
		if err == nil || name == "none" && !errors.Is(err, cluster.ErrNoToken) {
			t.Errorf("join with token %s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(n1.c.State().Nodes); n != 1 {
		t.Errorf("%d members", n)
	}
}

// TestUnfinishedBootstrap: a node that died before its cluster was recorded in the
// data dir finishes the same cluster, and does not join another one with it.
func TestUnfinishedBootstrap(t *testing.T) {
	w := newWorld(t)
	n1 := w.add("n1", nil)
	n1.start()
	id := n1.c.ID()
	n1.kill()
	path := filepath.Join(n1.dir, "identity.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"cluster": "`+id+`"`), []byte(`"cluster": ""`), 1)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := newWorld(t)
	elsewhere.token = w.token
	n2 := elsewhere.add("n2", nil)
	n2.start()
	if err := n1.tryStart(n2.c.Address()); !errors.Is(err, cluster.ErrNotFresh) {
		t.Errorf("it joins another cluster: %v", err)
	}
	n1.start()
	if n1.c.ID() != id {
		t.Errorf("the cluster is %s, was %s", n1.c.ID(), id)
	}
	w.eventually("it is primary", func() bool { return n1.c.Role() == cluster.RolePrimary })
}

func TestDataDirIsLocked(t *testing.T) {
	w := newWorld(t)
	n1 := w.add("n1", nil)
	n1.start()
	_, err := cluster.Open(deadline(t), cluster.Config{DataDir: n1.dir, Name: "n1", Listen: "127.0.0.1:0"})
	if err == nil {
		t.Fatal("a second process got the data dir")
	}
	t.Log(err)
}
