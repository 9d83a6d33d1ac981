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

// AddNonvoter adds a node that gets the log and has no vote, or changes its
// address. A voter stays one. Only the leader can; committed on return.
func (c *Consensus) AddNonvoter(ctx context.Context, nodeID, address string) error {
	return c.change(ctx, "add non-voter", nodeID, func() raft.IndexFuture {
		return c.raft.AddNonvoter(raft.ServerID(nodeID), raft.ServerAddress(address), 0, timeLeft(ctx))
	})
}

// AddVoter gives a node a vote, adding it if need be, or changes its address.
// Only the leader can; committed on return.
func (c *Consensus) AddVoter(ctx context.Context, nodeID, address string) error {
	return c.change(ctx, "add voter", nodeID, func() raft.IndexFuture {
		return c.raft.AddVoter(raft.ServerID(nodeID), raft.ServerAddress(address), 0, timeLeft(ctx))
	})
}

// Demote takes a node's vote. Only the leader can; committed on return.
func (c *Consensus) Demote(ctx context.Context, nodeID string) error {
	return c.change(ctx, "demote", nodeID, func() raft.IndexFuture {
		return c.raft.DemoteVoter(raft.ServerID(nodeID), 0, timeLeft(ctx))
	})
}

// Remove takes a node out. Only the leader can; committed on return. The node
// itself may never hear of it. A leader that removes itself stops leading.
func (c *Consensus) Remove(ctx context.Context, nodeID string) error {
	err := c.change(ctx, "remove", nodeID, func() raft.IndexFuture {
		return c.raft.RemoveServer(raft.ServerID(nodeID), 0, timeLeft(ctx))
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
