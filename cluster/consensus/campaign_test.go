package consensus_test

import "testing"

// A follower that campaigns leads although the leader is well; one that leads
// does nothing.
func TestCampaign(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	leading, err := nodes[0].Lead(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("b follows", func() bool { return nodes[1].Leader() == "a" })
	if began, err := nodes[0].Campaign(w.ctx()); !began || err != nil || leading.Err() != nil {
		t.Errorf("the leader's: %v, %v", err, leading.Err())
	}
	if began, err := nodes[1].Campaign(w.ctx()); !began || err != nil {
		t.Fatal(began, err)
	}
	w.eventually("the old leadership ends", func() bool { return leading.Err() != nil })
	if got := w.leader(nodes...); got.id != "b" {
		t.Errorf("%s leads", got.id)
	}
	if nodes[0].LastIndex() == 0 {
		t.Error("its log has no last index")
	}
	w.apply("on we go", nodes...)
}
