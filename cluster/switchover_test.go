package cluster_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/state"
)

// TestSwitchover: asked of any node, to a name or to anyone; nothing is lost,
// also of what was not acknowledged.
func TestSwitchover(t *testing.T) {
	w := three(t)
	for round := range 4 {
		old := w.primary()
		target := w.others(old)[round%2]
		asked := w.nodes[round%3]
		to := target.name
		if round == 3 {
			to = ""
		}
		began, before := time.Now(), len(asked.c.State().History)
		if err := asked.c.Switchover(deadline(t), to); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		t.Logf("round %d: %s to %s within %v", round, old.name, to, time.Since(began))
		// On a busy machine another failover may have followed at once.
		history := asked.c.State().History
		if !slices.ContainsFunc(history[before:], func(r state.Reign) bool { return r.Node != old.id && (to == "" || r.Node == target.id) }) {
			t.Errorf("round %d: reigns are %v, want %q after %s", round, history, to, old.name)
		}
		next := w.primary()
		old.disk.mu.Lock()
		log := slices.Clone(old.disk.logs["app"])
		old.disk.mu.Unlock()
		next.disk.mu.Lock()
		for _, p := range log {
			if !slices.Contains(next.disk.logs["app"], p) {
				t.Errorf("round %d: %s has lost %s", round, next.name, p)
			}
		}
		next.disk.mu.Unlock()
	}
}

func TestSwitchoverIsRefused(t *testing.T) {
	w := three(t)
	primary := w.primary()
	replica := w.add("replica", func(c *cluster.Config) { c.Nonvoter = true })
	replica.start(primary.c.Address())
	w.eventually("the replica is known", func() bool { _, ok := primary.c.State().Named("replica"); return ok })
	dead := w.others(primary)[0]
	dead.kill()
	time.Sleep(time.Second) // its promise runs out
	for to, want := range map[string]error{"nobody": cluster.ErrUnknownNode, "replica": cluster.ErrNotVoter, dead.name: cluster.ErrUnreachable} {
		if err := primary.c.Switchover(deadline(t), to); !errors.Is(err, want) {
			t.Errorf("switch over to %s: %v, want %v", to, err, want)
		}
	}
	if err := replica.c.Switchover(deadline(t), dead.name); !errors.Is(err, cluster.ErrUnreachable) {
		t.Errorf("asked elsewhere: %v", err)
	}
	if w.primary() != primary {
		t.Error("the primary has changed")
	}
}

func TestSoleVoterCantSwitchOver(t *testing.T) {
	w := newWorld(t)
	n := w.add("n1", nil)
	n.start()
	if err := n.c.AddDatabase(deadline(t), "app", 0); err != nil {
		t.Fatal(err)
	}
	w.primary()
	if err := n.c.Switchover(deadline(t), ""); !errors.Is(err, cluster.ErrSoleVoter) {
		t.Errorf("switch over: %v", err)
	}
}
