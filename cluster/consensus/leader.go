package consensus

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// Lead waits until this node leads, and returns a context that ends when that
// leadership does, or this node's Raft is closed. A leadership that came and
// went since the last call is not seen; one that a caller holds the context of
// never ends unseen.
func (c *Consensus) Lead(ctx context.Context) (context.Context, error) {
	for {
		current, changed := c.leadership.get()
		if current != nil && current.Err() == nil {
			return current, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.closed:
			return nil, ErrClosed
		}
	}
}

// Leader returns the ID of the node that leads as far as this one knows, or "".
func (c *Consensus) Leader() string {
	_, id := c.raft.LeaderWithID()
	return string(id)
}

// IsLeader tells whether this node leads as far as it knows.
func (c *Consensus) IsLeader() bool {
	current, _ := c.leadership.get()
	return current != nil
}

// Changed returns a channel that is closed at the next change of [Consensus.Leader]
// or [Consensus.IsLeader]. Get it before looking at them.
func (c *Consensus) Changed() <-chan struct{} {
	_, changed := c.leadership.get()
	return changed
}

// VerifyLeader asks a majority whether this node still leads.
func (c *Consensus) VerifyLeader(ctx context.Context) error {
	if err := c.await(ctx, func() error { return c.raft.VerifyLeader().Error() }); err != nil {
		return fmt.Errorf("verify leadership: %w", err)
	}
	return nil
}

// TransferTo hands leadership to a voter, or, with an empty ID, to the one whose
// log is longest, within about the election timeout. It returns nil once this
// node does not lead any more: as a rule because the other was elected, which
// [Consensus.Leader] tells a moment later. After an error it may still lead.
// Until it returns, changes are refused with [ErrNotLeader].
func (c *Consensus) TransferTo(ctx context.Context, nodeID string) error {
	c.transferMu.Lock()
	defer c.transferMu.Unlock()
	c.transport.setHurry(true)
	defer c.transport.setHurry(false)
	err := c.await(ctx, func() error {
		if nodeID == "" {
			return c.raft.LeadershipTransfer().Error()
		}
		// The address is looked up by ID; this one is only the fallback.
		address := raft.ServerAddress(c.configured(raft.ServerID(nodeID)))
		return c.raft.LeadershipTransferToServer(raft.ServerID(nodeID), address).Error()
	})
	if err != nil {
		return fmt.Errorf("transfer leadership to %q: %w", nodeID, err)
	}
	return nil
}
