package consensus

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

// Member is one node in Raft's configuration.
type Member struct {
	ID      string
	Address string // "host:port" as it was when the node was added or announced a change
	Voter   bool
}

// Configuration returns the newest configuration in this node's log, committed
// or not.
func (c *Consensus) Configuration() []Member {
	r := c.ready.Load()
	if r == nil { // asked while it is being made
		return nil
	}
	future := r.GetConfiguration()
	if future.Error() != nil { // it never has one
		return nil
	}
	return membersOf(future.Configuration())
}

func membersOf(c raft.Configuration) []Member {
	members := make([]Member, 0, len(c.Servers))
	for _, s := range c.Servers {
		members = append(members, Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return members
}

// configured returns a node's address in the configuration, or "".
func (c *Consensus) configured(id raft.ServerID) string {
	for _, m := range c.Configuration() {
		if m.ID == string(id) {
			return m.Address
		}
	}
	return ""
}

// isMember tells whether a node is in the newest configuration.
func (c *Consensus) isMember(id raft.ServerID) bool {
	return slices.ContainsFunc(c.Configuration(), func(m Member) bool { return m.ID == string(id) })
}

// Settled returns the index of the newest configuration, to hand to a change of
// members that rests on what was looked at afterwards: if another change comes
// in between, also one that was asked for earlier by somebody who has left, the
// change is refused. Only the leader can say. It is 0, which binds a change to
// nothing, as long as no configuration was committed since this node's start.
func (c *Consensus) Settled(ctx context.Context) (uint64, error) {
	if err := c.Barrier(ctx); err != nil {
		return 0, err
	}
	return c.fsm.configured.Load(), nil
}

// AddNonvoter adds a node that gets the log and has no vote, or changes its
// address. A voter stays one. Only the leader can; committed on return. since is
// the configuration that it rests on, as [Consensus.Settled] gave it; 0: any.
func (c *Consensus) AddNonvoter(ctx context.Context, nodeID, address string, since uint64) error {
	return c.change(ctx, "add non-voter", nodeID, func() raft.IndexFuture {
		return c.raft.AddNonvoter(raft.ServerID(nodeID), raft.ServerAddress(address), since, timeLeft(ctx))
	})
}

// AddVoter gives a node a vote, adding it if need be, or changes its address.
// Only the leader can; committed on return. since is as in AddNonvoter.
func (c *Consensus) AddVoter(ctx context.Context, nodeID, address string, since uint64) error {
	return c.change(ctx, "add voter", nodeID, func() raft.IndexFuture {
		return c.raft.AddVoter(raft.ServerID(nodeID), raft.ServerAddress(address), since, timeLeft(ctx))
	})
}

// Demote takes a node's vote. Only the leader can; committed on return. since is
// as in AddNonvoter.
func (c *Consensus) Demote(ctx context.Context, nodeID string, since uint64) error {
	return c.change(ctx, "demote", nodeID, func() raft.IndexFuture {
		return c.raft.DemoteVoter(raft.ServerID(nodeID), since, timeLeft(ctx))
	})
}

// Remove takes a node out. Only the leader can; committed on return. The node
// itself may never hear of it. A leader that removes itself stops leading. since
// is as in AddNonvoter.
func (c *Consensus) Remove(ctx context.Context, nodeID string, since uint64) error {
	err := c.change(ctx, "remove", nodeID, func() raft.IndexFuture {
		return c.raft.RemoveServer(raft.ServerID(nodeID), since, timeLeft(ctx))
	})
	c.transport.wake(raft.ServerID(nodeID)) // no more waiting for it
	return err
}

func (c *Consensus) change(ctx context.Context, what, nodeID string, propose func() raft.IndexFuture) error {
	if err := c.await(ctx, func() error { return propose().Error() }); err != nil {
		return fmt.Errorf("%s %s: %w", what, nodeID, err)
	}
	return nil
}
