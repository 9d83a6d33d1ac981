package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/identity"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/state"
)

// Bootstrap makes a new cluster of this node alone, and its token unless one was
// given. On return all of it is durable. After a crash in the middle it goes on
// where it was.
func (c *Cluster) Bootstrap(ctx context.Context) error {
	if !c.Fresh() {
		return fmt.Errorf("bootstrap cluster: %w: %s", ErrNotFresh, c.ID())
	}
	if err := c.start(ctx, true); err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	if err := c.bootstrap(ctx); err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	return nil
}

func (c *Cluster) bootstrap(ctx context.Context) error {
	if !c.raft.HasState() {
		if err := c.raft.Bootstrap(ctx); err != nil {
			return err
		}
	}
	if _, err := c.raft.Lead(ctx); err != nil {
		return fmt.Errorf("wait for leadership: %w", err)
	}
	// The barrier executes what an earlier attempt has left in the log.
	if err := c.raft.Barrier(ctx); err != nil {
		return err
	}
	id := c.State().ClusterID
	if id == "" {
		id = identity.NewID()
	}
	if _, err := c.apply(ctx, state.Command{Init: &state.Init{ClusterID: id}}); err != nil {
		return err
	}
	self := c.record()
	self.Joined = time.Now().UTC()
	if _, err := c.apply(ctx, state.Command{PutNode: &self}); err != nil {
		return err
	}
	return c.belong(ctx, id)
}

// belong makes this data dir the cluster's, durable on return, and joins the
// gossip.
func (c *Cluster) belong(ctx context.Context, id string) error {
	if err := c.identity.SetCluster(id); err != nil {
		return err
	}
	if err := endRejoin(c.config.DataDir); err != nil {
		return err
	}
	return c.openCrowd(ctx)
}

// Join makes this node a member of the cluster that the peers ("host:port")
// belong to, through whichever of them answers. It tries until ctx ends or it is
// refused. On return the membership is durable; the node is a non-voter until it
// has caught up. After a crash in the middle it can be repeated.
func (c *Cluster) Join(ctx context.Context, peers []string) error {
	if !c.Fresh() {
		return fmt.Errorf("join cluster: %w: %s", ErrNotFresh, c.ID())
	}
	if len(peers) == 0 {
		return fmt.Errorf("join cluster: %w: no peers given", ErrInvalid)
	}
	if err := c.start(ctx, false); err != nil {
		return fmt.Errorf("join cluster: %w", err)
	}
	if c.raft.HasState() && c.SoleVoter() {
		return fmt.Errorf("join cluster: %w: a new cluster was begun in it and not finished; finish it, or empty %s", ErrNotFresh, c.config.DataDir)
	}
	self := c.record()
	self.Joined = time.Now().UTC()
	var p pause
	for {
		id, err := c.askToJoin(ctx, peers, self)
		if err == nil {
			return c.belong(ctx, id)
		}
		if !retryable(err) || ctx.Err() != nil {
			return fmt.Errorf("join cluster: %w", err)
		}
		c.logger.Info("join cluster: try again", "error", err)
		if p.wait(ctx); ctx.Err() != nil {
			return fmt.Errorf("join cluster: %w (%w)", err, ctx.Err())
		}
	}
}

// askToJoin asks each peer once, and returns the cluster's ID.
func (c *Cluster) askToJoin(ctx context.Context, peers []string, self state.Node) (string, error) {
	var errs []error
	for _, peer := range peers {
		ctx, cancel := context.WithTimeout(ctx, c.patience())
		var response joinResponse
		err := c.CallAddress(ctx, peer, methodJoin, nodeRequest{Node: self}, &response)
		cancel()
		if err == nil {
			return response.ClusterID, nil
		}
		errs = append(errs, err)
		if !retryable(err) {
			break
		}
	}
	return "", errors.Join(errs...)
}

// record is this node as it wants to be known.
func (c *Cluster) record() state.Node {
	return state.Node{
		ID: c.Self(), Name: c.config.Name, Address: c.advertise, HTTP: c.config.HTTPAddr,
		Nonvoter: c.config.Nonvoter, Priority: c.config.Priority,
	}
}

// announceLoop tells the leader once what has changed about this node since it
// was last known, and again when no leader has been heard of for a while: a node
// that was removed behind its back finds out in this way. A node at a new address
// is not found by its leader, so it asks whoever it knows to pass that on.
func (c *Cluster) announceLoop(ctx context.Context) {
	var p pause
	for ctx.Err() == nil {
		changed := c.raft.Changed()
		err := c.announce(ctx)
		switch {
		case err == nil:
			p.reset()
			c.awaitForsaken(ctx)
			continue
		case errors.Is(err, ErrRemoved):
			c.setRemoved(ErrRemoved)
			return
		case errors.Is(err, ErrDropped):
			if err = c.setDropped(c.acquaintances()); err == nil {
				return
			}
			c.logger.Error("prepare to join anew", "error", err)
		case !retryable(err):
			c.logger.Warn("announce this node", "error", err)
		}
		p.wait(ctx, changed)
	}
}

// awaitForsaken returns when this node has not known a leader for so long that
// the others would have elected one.
func (c *Cluster) awaitForsaken(ctx context.Context) {
	limit := 5*c.config.Timing.Raft + time.Second
	for ctx.Err() == nil {
		changed := c.raft.Changed()
		var forsaken <-chan time.Time // never, as long as there is a leader
		timer := time.NewTimer(limit)
		if c.raft.Leader() == "" {
			forsaken = timer.C
		}
		select {
		case <-forsaken:
			return
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// announce is one try of announceLoop.
func (c *Cluster) announce(ctx context.Context) error {
	request := nodeRequest{Node: c.record()}
	response, err := attempt(ctx, c, methodAnnounce, request, c.readdress)
	if err == nil {
		c.confirm(response)
		return nil
	}
	if !retryable(err) {
		return err
	}
	errs := []error{err}
	for _, address := range c.acquaintances() {
		ctx, cancel := context.WithTimeout(ctx, c.patience())
		err := c.CallAddress(ctx, address, methodAnnounce, request, &response)
		cancel()
		if err == nil {
			c.confirm(response)
			return nil
		}
		if !retryable(err) {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// confirm says what the state held, at least, after this process had started.
func (c *Cluster) confirm(r announceResponse) {
	c.mu.Lock()
	c.confirmed = &r
	c.mu.Unlock()
	c.changed.notify()
}

// current returns the state if it is as new as what this process has been told
// since it started. Before that Raft may still be replaying the log: by a history
// that ends too early the newest transactions of this node would be off the line.
func (c *Cluster) current() (*state.State, bool) {
	c.mu.Lock()
	least := c.confirmed
	c.mu.Unlock()
	s := c.State()
	return s, least != nil && s.Epoch >= least.Epoch && s.Primary.Epoch >= least.Primary
}

// acquaintances are the addresses of everyone else that this node has heard of.
func (c *Cluster) acquaintances() []string {
	out := slices.Clone(c.config.Peers)
	for _, m := range c.raft.Configuration() {
		if address := c.hostport(m.ID); m.ID != c.Self() && address != "" {
			out = append(out, mux.At(m.ID, address))
		}
	}
	return out
}

// setRemoved ends Run with the reason why this node is no member any more.
func (c *Cluster) setRemoved(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whyRemoved == nil {
		c.whyRemoved = why
		close(c.removed)
	}
}

func (c *Cluster) removal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whyRemoved
}

// readdress takes a member's announcement, at the leader.
func (c *Cluster) readdress(ctx context.Context, r nodeRequest) (announceResponse, error) {
	if err := c.raft.Barrier(ctx); err != nil { // a new leader's state may lag behind
		return announceResponse{}, err
	}
	current := c.State()
	known, ok := current.Nodes[r.Node.ID]
	if _, dropped := current.Dropped[r.Node.ID]; dropped {
		return announceResponse{}, fmt.Errorf("announce node %s: %w", r.Node.Name, ErrDropped)
	}
	if !ok {
		return announceResponse{}, fmt.Errorf("announce node %s: %w", r.Node.Name, ErrRemoved)
	}
	wanted := r.Node
	wanted.Joined = known.Joined
	if wanted != known {
		if _, err := c.apply(ctx, state.Command{PutNode: &wanted}); err != nil {
			return announceResponse{}, err
		}
	}
	since, err := c.raft.Settled(ctx)
	if err != nil {
		return announceResponse{}, err
	}
	for _, m := range c.raft.Configuration() {
		if m.ID != r.Node.ID || m.Address == r.Node.Address {
			continue
		}
		// The same kind of member at another address: no majority changes.
		change := c.raft.AddNonvoter
		if m.Voter {
			change = c.raft.AddVoter
		}
		if err := change(ctx, m.ID, r.Node.Address, since); err != nil {
			return announceResponse{}, err
		}
		c.logger.Info("member has another address", "node", r.Node.Name, "address", r.Node.Address)
	}
	return announceResponse{Epoch: current.Epoch, Primary: current.Primary.Epoch}, nil
}

// admit makes a node a member, at the primary, non-voter first.
func (c *Cluster) admit(ctx context.Context, r nodeRequest) (joinResponse, error) {
	reign, err := c.currentReign()
	if err != nil {
		return joinResponse{}, fmt.Errorf("admit node %s: %w", r.Node.Name, err)
	}
	if old, ok := c.State().Named(r.Node.Name); ok && old.ID != r.Node.ID {
		if c.answers(ctx, old.ID) {
			return joinResponse{}, fmt.Errorf("admit node %s: %w by node %s, which is alive", r.Node.Name, ErrNameTaken, old.ID)
		}
		c.logger.Warn("a new node takes the name of one that is not alive, which is removed", "name", r.Node.Name, "removed", old.ID, "node", r.Node.ID)
		if err := reign.remove(ctx, old.ID); err != nil {
			return joinResponse{}, fmt.Errorf("admit node %s: remove its predecessor: %w", r.Node.Name, err)
		}
	}
	if _, err := c.apply(ctx, state.Command{PutNode: &r.Node}); err != nil {
		return joinResponse{}, fmt.Errorf("admit node %s: %w", r.Node.Name, err)
	}
	err = reign.change(ctx, func(ctx context.Context, since uint64) error {
		if slices.ContainsFunc(c.raft.Configuration(), func(m consensus.Member) bool { return m.ID == r.Node.ID && m.Voter }) {
			return nil // it was admitted before, and asks again
		}
		return c.raft.AddNonvoter(ctx, r.Node.ID, r.Node.Address, since)
	})
	if err != nil {
		return joinResponse{}, fmt.Errorf("admit node %s: %w", r.Node.Name, err)
	}
	c.logger.Info("node has joined", "node", r.Node.Name, "id", r.Node.ID, "address", r.Node.Address)
	return joinResponse{ClusterID: c.ID()}, nil
}

// Remove takes a member out, by name or ID, at the primary, committed on return.
// The primary itself can't be removed (ErrIsPrimary). ErrNotCaughtUp is wrapped
// if the remaining voters could lose what was acknowledged.
func (c *Cluster) Remove(ctx context.Context, node string) error {
	n, ok := c.State().Find(node)
	if !ok {
		return fmt.Errorf("remove node %s: %w", node, ErrUnknownNode)
	}
	if _, err := lead(ctx, c, methodRemove, idRequest{ID: n.ID}, c.expel); err != nil {
		return fmt.Errorf("remove node %s: %w", node, err)
	}
	return nil
}

// Leave takes this node out of the cluster, after a switchover if it is primary;
// Run then returns ErrRemoved. The cluster's only voter can't leave
// (ErrSoleVoter).
func (c *Cluster) Leave(ctx context.Context) error {
	if c.SoleVoter() {
		return fmt.Errorf("leave cluster: %w", ErrSoleVoter)
	}
	if c.State().Primary.Node == c.Self() {
		if err := c.Switchover(ctx, ""); err != nil && !errors.Is(err, ErrNoPrimary) {
			return fmt.Errorf("leave cluster: %w", err)
		}
	}
	if _, err := lead(ctx, c, methodRemove, idRequest{ID: c.Self()}, c.expel); err != nil && !errors.Is(err, ErrUnknownNode) {
		return fmt.Errorf("leave cluster: %w", err)
	}
	c.setRemoved(ErrRemoved)
	return nil
}

// expel removes a member, at the primary.
func (c *Cluster) expel(ctx context.Context, r idRequest) (empty, error) {
	n, ok := c.State().Nodes[r.ID]
	if !ok {
		return empty{}, fmt.Errorf("remove node %s: %w", r.ID, ErrUnknownNode)
	}
	if r.ID == c.Self() {
		return empty{}, fmt.Errorf("remove node %s: %w", n.Name, ErrIsPrimary)
	}
	reign, err := c.currentReign()
	if err != nil {
		return empty{}, err
	}
	if err := reign.remove(ctx, r.ID); err != nil {
		return empty{}, err
	}
	c.logger.Info("node was removed", "node", n.Name, "id", n.ID)
	// It may be gone; if not, it finds out when it starts again.
	tell, cancel := context.WithTimeout(ctx, c.config.Timing.Lease)
	defer cancel()
	if err := c.CallAddress(tell, atAddress(n), methodRemoved, idRequest{ID: r.ID}, nil); err != nil {
		c.logger.Debug("tell a node that it was removed", "node", n.Name, "error", err)
	}
	return empty{}, nil
}
