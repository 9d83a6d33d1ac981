package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/cluster/secure"
)

// silence ends a node that fences, but can tell nobody: its network goes first.
func silence(t *testing.T, n *node) {
	t.Helper()
	if err := n.c.Close(); err != nil {
		t.Error(err)
	}
	n.cancel()
	<-n.done
	n.c = nil
}

// TestSpokesman: a primary that is gone and fenced has somebody else say so. Then
// neither its promises are waited for, which last far longer than this test, nor
// Raft's own timeout.
func TestSpokesman(t *testing.T) {
	slow := func(c *cluster.Config) {
		c.Timing = cluster.Timing{
			Timing: lease.Timing{Renewal: 100 * time.Millisecond, Lease: 10 * time.Minute, Margin: time.Second},
			Raft:   3 * time.Second,
		}
	}
	w := newWorld(t)
	old := w.add("n1", slow)
	old.start()
	if err := old.c.AddDatabase(t.Context(), "app", 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n2", "n3"} {
		w.add(name, slow).start(old.c.Address())
	}
	t.Cleanup(func() {
		for _, n := range w.others(nil) {
			silence(t, n) // killed, its application would go on for as long as its lease
		}
	})
	w.voters(3)
	id, peers, epoch := old.c.Self(), old.c.Peers(), old.c.State().Epoch
	if len(peers) != 2 {
		t.Fatalf("peers are %v", peers)
	}
	silence(t, old)

	began := time.Now()
	s, err := cluster.NewSpokesman(w.token, id)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	heard, err := s.TellFenced(ctx, epoch, peers)
	if heard != 2 || err != nil {
		t.Errorf("%d have heard it: %v", heard, err)
	}
	next := w.primary()
	t.Logf("%s is primary after %v", next.name, time.Since(began))
	w.checkAcked(next)

	// Once somebody leads, nobody is made to stand against it.
	if _, err := s.TellFenced(ctx, epoch, peers); err != nil {
		t.Error(err)
	}
	if now := w.primary(); now != next {
		t.Errorf("%s is primary after the second time", now.name)
	}
}

// Without the token nobody is told anything, and at a wrong address nobody else.
func TestSpokesmanIsNotBelieved(t *testing.T) {
	w := three(t)
	n := w.primary()
	peers := n.c.Peers()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stranger, err := cluster.NewSpokesman(secure.NewToken(), n.c.Self())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if heard, err := stranger.TellFenced(ctx, 99, peers); heard != 0 || err == nil {
		t.Errorf("with another token %d have heard it: %v", heard, err)
	}
	friend, err := cluster.NewSpokesman(w.token, n.c.Self())
	if err != nil {
		t.Fatal(err)
	}
	defer friend.Close()
	swapped := []cluster.Peer{{ID: peers[0].ID, Address: peers[1].Address}}
	if heard, err := friend.TellFenced(ctx, 99, swapped); heard != 0 || err == nil {
		t.Errorf("at another's address %d have heard it: %v", heard, err)
	}
	if w.primary() != n {
		t.Error("another node is primary")
	}
}
