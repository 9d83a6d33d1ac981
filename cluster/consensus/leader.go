package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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

// TransferTo hands leadership to a voter, or, with an empty ID, to any that
// answers, within about the election timeout. It returns nil once this node does
// not lead any more: as a rule because the other was elected, which
// [Consensus.Leader] tells a moment later. After an error it may still lead;
// [ErrTarget] says that nothing was tried. Until it returns, changes are refused
// with [ErrNotLeader].
func (c *Consensus) TransferTo(ctx context.Context, nodeID string) error {
	c.transferMu.Lock()
	defer c.transferMu.Unlock()
	leading, _ := c.leadership.get()
	target, err := c.target(ctx, nodeID)
	if leading == nil {
		err = ErrNotLeader
	}
	if err != nil {
		return fmt.Errorf("transfer leadership to %q: %w", nodeID, err)
	}
	err = c.await(ctx, func() error {
		return c.raft.LeadershipTransferToServer(raft.ServerID(target.ID), raft.ServerAddress(target.Address)).Error()
	})
	if err != nil {
		c.settle(ctx)
		return fmt.Errorf("transfer leadership to %q: %w", nodeID, err)
	}
	select {
	case <-leading.Done(): // Raft tells us a moment after the future
	case <-ctx.Done():
	}
	return nil
}

// target returns the voter that is meant. One that does not answer heartbeats
// could not be elected; the attempt would only hold up all changes for a while.
// A leader that was elected just now has sent none yet, so they are waited for.
func (c *Consensus) target(ctx context.Context, nodeID string) (Member, error) {
	if !c.IsLeader() {
		return Member{}, ErrNotLeader
	}
	timeout := time.After(c.config.Timing.Heartbeat)
	for {
		beat := c.transport.nextBeat()
		possible := c.others(nodeID)
		for _, m := range possible {
			if c.transport.answers(raft.ServerID(m.ID), c.config.Timing.Heartbeat) {
				return m, nil
			}
		}
		if len(possible) == 0 {
			return Member{}, fmt.Errorf("%w: it is not another voter", ErrTarget)
		}
		select {
		case <-beat:
		case <-timeout:
			return Member{}, fmt.Errorf("%w: it does not answer", ErrTarget)
		case <-ctx.Done():
			return Member{}, ctx.Err()
		}
	}
}

// others returns the voters but this one: that of the ID, or all of them if it
// is empty.
func (c *Consensus) others(nodeID string) []Member {
	return slices.DeleteFunc(c.Configuration(), func(m Member) bool {
		return !m.Voter || m.ID == c.config.Mux.NodeID() || nodeID != "" && m.ID != nodeID
	})
}

// settle waits until Raft has given up a transfer that went wrong: it goes on
// refusing changes for a while after it has said so.
func (c *Consensus) settle(ctx context.Context) {
	for c.IsLeader() && ctx.Err() == nil {
		err := c.await(ctx, func() error { return c.raft.Barrier(timeLeft(ctx)).Error() })
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond): // there is nothing to be notified by
		case <-ctx.Done():
		}
	}
}
