package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Switchover makes another voter primary without losing a commit: the one of a
// name or ID, or with "" whichever has caught up. It may be called on any node. It
// returns when the other is primary. The old one goes on if it could not hand
// over.
func (c *Cluster) Switchover(ctx context.Context, to string) error {
	target := ""
	if to != "" {
		n, ok := c.State().Find(to)
		if !ok {
			return fmt.Errorf("switch over to %s: %w", to, ErrUnknownNode)
		}
		target = n.ID
	}
	// It must not be repeated at another leader: that might be the target.
	before := c.State().Primary
	if before.Node == target && target != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := atLeader(ctx, c, "", methodSwitchover, idRequest{ID: target}, c.switchover); err != nil {
		return err
	}
	return c.awaitSuccessor(ctx, before.Epoch, target)
}

// awaitSuccessor returns when a newer primary is known here.
func (c *Cluster) awaitSuccessor(ctx context.Context, epoch uint64, target string) error {
	for {
		changed := c.changed.next()
		switch p := c.State().Primary; {
		case p.Epoch > epoch && (target == "" || p.Node == target):
			return nil
		case p.Epoch > epoch:
			return fmt.Errorf("switch over to %s: leadership was handed over, but %s became primary", c.nameOf(target), c.nameOf(p.Node))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("switch over to %s: leadership was handed over, but it is not primary yet: %w", c.nameOf(target), ctx.Err())
		}
	}
}

// switchover hands over, at the primary.
func (c *Cluster) switchover(ctx context.Context, r idRequest) (empty, error) {
	reign, err := c.currentReign()
	if err != nil {
		return empty{}, fmt.Errorf("switch over: %w", err)
	}
	target := ""
	err = reign.awaitCaughtUp(ctx, func() error {
		target, err = reign.successor(r.ID)
		return err
	})
	if err != nil {
		return empty{}, fmt.Errorf("switch over: %w", err)
	}
	s := &switchRequest{ctx: ctx, target: target, done: make(chan error, 1)}
	select {
	case reign.switches <- s:
	case <-reign.managing.Done():
		return empty{}, fmt.Errorf("switch over: %w", ErrNoPrimary)
	case <-ctx.Done():
		return empty{}, fmt.Errorf("switch over: another one is under way: %w", ctx.Err())
	}
	// The reign answers in any case, and sees ctx itself.
	return empty{}, <-s.done
}

// successor checks the node that is wanted, or picks one.
func (r *reign) successor(wanted string) (string, error) {
	voters := r.c.Voters()
	if wanted == r.c.Self() {
		return "", fmt.Errorf("node %s: %w already", r.c.nameOf(wanted), ErrIsPrimary)
	}
	if wanted != "" {
		return wanted, r.fit(wanted, voters)
	}
	nodes := r.c.State().Nodes
	slices.SortStableFunc(voters, func(a, b string) int { return nodes[b].Priority - nodes[a].Priority })
	errs := []error{}
	for _, v := range voters {
		if v == r.c.Self() {
			continue
		}
		err := r.fit(v, voters)
		if err == nil {
			return v, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return "", ErrSoleVoter
	}
	return "", errors.Join(errs...)
}

func (r *reign) fit(node string, voters []string) error {
	name := r.c.nameOf(node)
	switch {
	case !slices.Contains(voters, node):
		return fmt.Errorf("node %s: %w", name, ErrNotVoter)
	case !r.keeper.fresh(node):
		return fmt.Errorf("node %s: %w", name, ErrUnreachable)
	case !r.data.CaughtUp(node):
		return fmt.Errorf("node %s: %w", name, ErrNotCaughtUp)
	}
	return nil
}

// renew returns the function with which a keeper renews an epoch's lease: here
// without a detour, elsewhere over the network.
func (c *Cluster) renew(epoch uint64) func(context.Context, string) error {
	length := c.config.Timing.Lease
	return func(ctx context.Context, node string) error {
		if node != c.Self() {
			return c.Call(ctx, node, methodRenew, renewRequest{Epoch: epoch, Lease: length}, nil)
		}
		if !c.voter.renew(epoch, length) {
			return errPromised
		}
		return nil
	}
}

// refresh gives a keeper the members of the newest configuration.
func (c *Cluster) refresh(k *keeper) {
	var all []string
	for _, m := range c.raft.Configuration() {
		all = append(all, m.ID)
	}
	k.setMembers(c.Voters, all)
}

// tellFenced tells the voters that nothing can be written in an epoch or below
// any more, so that they need not wait. It waits a moment for them to hear it;
// one that does not waits until its promises end.
func (c *Cluster) tellFenced(ctx context.Context, epoch uint64) {
	c.voter.fenced(epoch)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.config.Timing.Renewal)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	voters := c.Voters()
	for _, v := range voters {
		if v == c.Self() {
			continue
		}
		wg.Go(func() {
			if err := c.Call(ctx, v, methodFenced, fencedRequest{Epoch: epoch}, nil); err != nil {
				c.logger.Debug("tell a voter that this node is fenced", "node", c.nameOf(v), "error", err)
			}
		})
	}
}
