package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

// Role is what a node is at a moment.
type Role string

// The roles, as status shows them.
const (
	RoleFenced    Role = "fenced"    // no primary to follow, or not running yet
	RoleFollower  Role = "follower"  // follows a primary
	RoleCandidate Role = "candidate" // Raft's leader, not promoted yet
	RolePrimary   Role = "primary"   // may write while its lease is valid
)

// Run lives this node's roles, one at a time, until ctx ends or the node is
// removed ([ErrRemoved], [ErrDropped]). On return no role is left, the lease is given up, and
// unless an error says otherwise nothing is open for writing (but for a sole
// voter). It is called once.
func (c *Cluster) Run(ctx context.Context, data Data) error {
	if c.Fresh() {
		return errors.New("run cluster: the data dir belongs to no cluster yet: bootstrap or join first")
	}
	ctx, stop := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	wg.Go(func() { c.announceLoop(ctx) })
	wg.Go(func() {
		select {
		case <-c.removed:
			stop(c.removal())
		case <-ctx.Done():
		}
	})
	c.setData(data)
	defer c.setData(nil)

	var p pause
	for ctx.Err() == nil {
		err := c.oneRole(ctx, data)
		if err == nil || ctx.Err() != nil {
			p.reset()
			continue
		}
		c.logger.Warn("role ended", "role", c.Role(), "error", err)
		p.wait(ctx)
	}
	c.setRole(RoleFenced, 0, "stopped")
	if why := c.removal(); why != nil && errors.Is(context.Cause(ctx), why) {
		return why
	}
	return nil
}

// oneRole lives one role to its end. An error asks for a pause before the next.
func (c *Cluster) oneRole(ctx context.Context, data Data) error {
	changed := c.raft.Changed()
	switch {
	case c.raft.IsLeader():
		return c.lead(ctx, data)
	case c.SoleVoter():
		// Nobody else can be primary: its databases stay as they are until Raft
		// has elected it.
		c.setRole(RoleCandidate, 0, "the only voter waits for Raft")
		select {
		case <-changed:
		case <-ctx.Done():
		}
		return nil
	}
	return c.follow(ctx, data)
}

// follow lives as follower in one term.
func (c *Cluster) follow(ctx context.Context, data Data) error {
	term := c.term()
	if term.Primary == "" {
		c.setRole(RoleFenced, term.Epoch, "no primary to follow")
	} else {
		c.setRole(RoleFollower, term.Epoch, "primary is "+c.nameOf(term.Primary))
	}
	following, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer cancel()
		c.awaitTermEnd(following, term)
	})
	err := data.Follow(following, term)
	if following.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("ended too early")
	}
	return fmt.Errorf("follow in epoch %d: %w", term.Epoch, err)
}

// term returns the term as the state has it, or none while the state may be old.
func (c *Cluster) term() Term {
	s, ok := c.current()
	if !ok {
		return Term{}
	}
	t := Term{Epoch: s.Primary.Epoch, Primary: s.Primary.Node, Line: s.Line()}
	if t.Primary == c.Self() {
		t.Primary = "" // that reign is over
	}
	return t
}

// awaitTermEnd returns when there is another primary, or this node leads.
func (c *Cluster) awaitTermEnd(ctx context.Context, term Term) {
	for {
		changed, leader := c.changed.next(), c.raft.Changed()
		now := c.term()
		if c.raft.IsLeader() || now.Epoch != term.Epoch || now.Primary != term.Primary {
			return
		}
		select {
		case <-changed:
		case <-leader:
		case <-ctx.Done():
			return
		}
	}
}

// lead lives as candidate and, if it is promoted, as primary.
func (c *Cluster) lead(ctx context.Context, data Data) error {
	leading, err := c.raft.Lead(ctx)
	if err != nil {
		return fmt.Errorf("lead: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(leading, func() { cancel(errLeadershipLost) })()

	began := time.Now()
	d, err := c.stand(ctx, data)
	if err != nil {
		return c.unlessLost(ctx, err)
	}
	c.setRole(RoleCandidate, d.epoch, "elected by Raft")
	targets, answered, err := d.plan(ctx)
	if err != nil {
		if answered {
			c.tellFenced(ctx, d.epoch)
		}
		if errors.Is(err, errHandedOver) {
			return c.awaitOther(ctx)
		}
		return c.giveUp(ctx, err)
	}
	r := &reign{c: c, data: data, epoch: d.epoch, switches: make(chan *switchRequest)}
	r.keeper = newKeeper(d.epoch, c.Self(), c.config.Timing.Timing, c.logger, c.renew(d.epoch))
	r.keeper.publish = c.config.Lease
	return c.reignFrom(ctx, d, r, targets, began)
}

// reignFrom takes a candidate with its targets through promotion and reign, with
// the lease renewed from the beginning.
func (c *Cluster) reignFrom(ctx context.Context, d *candidate, r *reign, targets map[string]promote.Target, began time.Time) error {
	var wg sync.WaitGroup
	renewing, stopRenewing := context.WithCancel(context.WithoutCancel(ctx))
	c.refresh(r.keeper)
	wg.Go(func() { r.keeper.run(renewing) })

	start, err := c.promote(ctx, d, r.keeper, targets)
	if err != nil {
		stopRenewing()
		wg.Wait()
		c.tellFenced(ctx, d.epoch)
		return c.giveUp(ctx, err)
	}
	c.voter.reign(d.epoch)
	c.setRole(RolePrimary, d.epoch, fmt.Sprintf("promoted within %v", time.Since(began).Round(time.Millisecond)))
	switched, cause, err := r.run(ctx, start)
	stopRenewing()
	wg.Wait()
	c.setRole(RoleFenced, d.epoch, "reign ended: "+cause.Error())
	if err = c.afterReign(ctx, d.epoch, switched, err); err == nil && errors.Is(cause, errResigned) {
		return cause // asks for a pause
	}
	return err
}

// promote makes the databases stand at their targets and commits the reign, whose
// starts it returns; on return the lease is held.
func (c *Cluster) promote(ctx context.Context, d *candidate, k *keeper, targets map[string]promote.Target) (map[string]state.Position, error) {
	start, err := d.data.Advance(ctx, d.epoch, d.line, targets)
	if err != nil {
		return nil, fmt.Errorf("advance databases in epoch %d: %w", d.epoch, err)
	}
	for db, t := range targets {
		if got := start[db]; got.Compare(t.Position) < 0 {
			return nil, fmt.Errorf("advance databases in epoch %d: %s stands at %s, behind %s", d.epoch, db, got, t.Position)
		}
	}
	command := state.Promote{Epoch: d.epoch, Node: c.Self(), Start: start, At: time.Now().UTC()}
	if _, err := c.apply(ctx, state.Command{Promote: &command}); err != nil {
		return nil, fmt.Errorf("commit reign %d: %w", d.epoch, err)
	}
	patient, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	if err := k.awaitValid(patient); err != nil {
		return nil, err
	}
	line := c.State().Line()
	for _, reign := range line.Reigns {
		if reign.Epoch == d.epoch {
			return reign.Start, nil
		}
	}
	return nil, fmt.Errorf("commit reign %d: %w", d.epoch, ErrStaleEpoch)
}

// afterReign tells the voters that this node is fenced, if it is, and lets
// another one lead.
func (c *Cluster) afterReign(ctx context.Context, epoch uint64, switched *switchRequest, err error) error {
	target := ""
	if switched != nil {
		target = switched.target
	}
	if err != nil {
		// The voters wait until their promises end.
		c.voter.deposed()
	} else {
		c.tellFenced(ctx, epoch)
	}
	if switched != nil {
		transferErr := c.transfer(switched.ctx, target)
		switched.done <- transferErr
		if transferErr == nil && err == nil {
			return c.awaitOther(ctx)
		}
		return errors.Join(err, transferErr)
	}
	if c.raft.IsLeader() && len(c.Voters()) > 1 {
		if transferErr := c.transfer(context.WithoutCancel(ctx), ""); transferErr != nil {
			c.logger.Info("keep leading", "reason", transferErr)
		}
	}
	return err
}

// giveUp lets another node lead after this one could not be promoted.
func (c *Cluster) giveUp(ctx context.Context, err error) error {
	if lost := c.unlessLost(ctx, nil); lost != nil || ctx.Err() != nil {
		return lost
	}
	if len(c.Voters()) > 1 && !errors.Is(err, promote.ErrNoMajority) && !errors.Is(err, errPromised) {
		if transferErr := c.transfer(ctx, ""); transferErr != nil {
			c.logger.Info("keep leading", "reason", transferErr)
		}
	}
	return err
}

// transfer hands Raft leadership to a voter, or to whichever is best.
func (c *Cluster) transfer(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.Timing.Raft+time.Second)
	defer cancel()
	if err := c.raft.TransferTo(ctx, target); err != nil {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}

// awaitOther waits a moment after a hand-over until this node doesn't lead any
// more, so that it does not stand against the node it has chosen.
func (c *Cluster) awaitOther(ctx context.Context) error {
	timer := time.NewTimer(c.config.Timing.Raft)
	defer timer.Stop()
	select {
	case <-ctx.Done(): // leadership is gone
	case <-timer.C:
	}
	return nil
}

// unlessLost drops an error that came from losing leadership or stopping, which
// is no reason to pause.
func (c *Cluster) unlessLost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		c.logger.Info("candidacy ended", "reason", context.Cause(ctx).Error())
		return nil
	}
	return err
}
