package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/state"
)

// atAddress is where a member was last known to be.
func atAddress(n state.Node) string { return mux.At(n.ID, n.Address) }

// change runs a change of the members within the reign, one at a time, while the
// lease is held; the lease then counts over the new configuration. The change
// gets a ctx that ends with the reign, and the configuration that what it checks
// is about: Raft refuses it if that is not the newest any more.
func (r *reign) change(ctx context.Context, do func(ctx context.Context, since uint64) error) error {
	r.memberMu.Lock()
	defer r.memberMu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.managing, cancel)()
	if r.managing.Err() != nil || r.keeper.until() <= now() {
		return ErrNoPrimary
	}
	since, err := r.c.raft.Settled(ctx)
	if err != nil {
		return err
	}
	err = do(ctx, since)
	r.c.refresh(r.keeper)
	r.c.changed.notify()
	return err
}

// remove takes a member out of Raft's configuration, then out of the state.
func (r *reign) remove(ctx context.Context, id string) error {
	err := r.change(ctx, func(ctx context.Context, since uint64) error {
		members := r.c.raft.Configuration()
		if !slices.ContainsFunc(members, func(m consensus.Member) bool { return m.ID == id }) {
			return nil
		}
		remaining := without(members, id)
		if err := r.awaitCaughtUp(ctx, func() error { return r.majorityOf(remaining) }); err != nil {
			return err
		}
		return r.c.raft.Remove(ctx, id, since)
	})
	if err != nil {
		return fmt.Errorf("remove node %s: %w", r.c.nameOf(id), err)
	}
	if _, err := r.c.apply(ctx, state.Command{RemoveNode: &state.RemoveNode{ID: id}}); err != nil {
		return fmt.Errorf("remove node %s: %w", r.c.nameOf(id), err)
	}
	return nil
}

// majorityOf tells whether a majority of these voters has everything that was
// acknowledged: only then may they be the voters.
func (r *reign) majorityOf(voters []string) error {
	have := 0
	for _, v := range voters {
		if r.data.CaughtUp(v) {
			have++
		}
	}
	if have <= len(voters)/2 {
		return fmt.Errorf("leave %d voters: %w: %d of them have everything", len(voters), ErrNotCaughtUp, have)
	}
	return nil
}

// awaitCaughtUp repeats a check for a few seconds while it fails because a node has
// not caught up: under load every node lacks something at most moments.
func (r *reign) awaitCaughtUp(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.config.Timing.Lease+3*time.Second)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if !errors.Is(err, ErrNotCaughtUp) {
			return err
		}
		select {
		case <-ticker.C:
		case <-r.managing.Done():
			return ErrNoPrimary
		case <-ctx.Done():
			return err
		}
	}
}

// without returns the voters but for one node.
func without(members []consensus.Member, id string) []string {
	var out []string
	for _, m := range members {
		if m.Voter && m.ID != id {
			out = append(out, m.ID)
		}
	}
	return out
}

// adjustLoop makes voters of members that have caught up, and the reverse.
func (r *reign) adjustLoop(ctx context.Context) {
	// What a node has durable changes all the time and is not notified here.
	ticker := time.NewTicker(max(2*r.c.config.Timing.Renewal, 100*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := r.adjust(ctx); err != nil && ctx.Err() == nil {
			r.c.logger.Warn("change voters", "error", err)
		}
	}
}

// adjust does the next step. Two voters fail more often than one, so the second
// voter comes only together with a third, and goes with it.
func (r *reign) adjust(ctx context.Context) error {
	members := r.c.raft.Configuration()
	voters, ready := without(members, ""), r.ready(members)
	for _, v := range voters {
		if n, ok := r.c.State().Nodes[v]; ok && n.Nonvoter && v != r.c.Self() {
			return r.demote(ctx, v, "it wishes to be a read replica")
		}
	}
	switch {
	case len(voters) == 1 && len(ready) < 2:
		return nil
	case len(voters) == 2 && len(ready) == 0:
		for _, v := range voters {
			if v != r.c.Self() {
				return r.demote(ctx, v, "two voters fail more often than one")
			}
		}
	}
	for _, m := range ready {
		if err := r.addVoter(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// ready returns the members that can become voters now.
func (r *reign) ready(members []consensus.Member) []consensus.Member {
	nodes := r.c.State().Nodes
	var out []consensus.Member
	for _, m := range members {
		n, ok := nodes[m.ID]
		if ok && !m.Voter && !n.Nonvoter && r.keeper.fresh(m.ID) && r.data.CaughtUp(m.ID) {
			out = append(out, m)
		}
	}
	return out
}

func (r *reign) addVoter(ctx context.Context, m consensus.Member) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.patience())
	defer cancel()
	err := r.change(ctx, func(ctx context.Context, since uint64) error {
		if !r.keeper.fresh(m.ID) || !r.data.CaughtUp(m.ID) {
			return fmt.Errorf("%w any more", ErrNotCaughtUp)
		}
		return r.c.raft.AddVoter(ctx, m.ID, m.Address, since)
	})
	if err != nil {
		return fmt.Errorf("make %s a voter: %w", r.c.nameOf(m.ID), err)
	}
	r.c.logger.Info("node is a voter now", "node", r.c.nameOf(m.ID), "voters", len(r.c.Voters()))
	return nil
}

func (r *reign) demote(ctx context.Context, id, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, r.c.patience())
	defer cancel()
	err := r.change(ctx, func(ctx context.Context, since uint64) error {
		if err := r.majorityOf(without(r.c.raft.Configuration(), id)); err != nil {
			return err
		}
		return r.c.raft.Demote(ctx, id, since)
	})
	if err != nil {
		return fmt.Errorf("make %s a non-voter: %w", r.c.nameOf(id), err)
	}
	r.c.logger.Info("node is no voter any more", "node", r.c.nameOf(id), "reason", reason)
	return nil
}
