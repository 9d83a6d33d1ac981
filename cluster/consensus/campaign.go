package consensus

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// LastIndex returns the index of the last entry in this node's log, committed or
// not.
func (c *Consensus) LastIndex() uint64 { return c.raft.LastIndex() }

// Campaign makes this node, a voter, stand for election at once, although the
// leader may have been heard of just now: for when that leader is known to be
// gone. It does what a leader does who hands over to this node, but in the
// leader's place. It returns when Raft has begun; whether it wins,
// [Consensus.Changed] tells. While this node leads it does nothing. One that
// stands already, in the ordinary way, can't begin anew: began is false then, and
// those that still know the leader won't vote for it, but they can campaign.
func (c *Consensus) Campaign(ctx context.Context) (began bool, err error) {
	if c.IsLeader() {
		return true, nil
	}
	if c.raft.State() == raft.Candidate {
		return false, nil
	}
	self := raft.ServerID(c.config.Mux.NodeID())
	address, err := (&addresses{config: c.config}).ServerAddr(self)
	if err != nil {
		return false, fmt.Errorf("campaign: %w", err)
	}
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self),
		Addr:            c.transport.EncodePeer(self, address),
	}}
	err = c.await(ctx, func() error { return c.transport.TimeoutNow(self, address, request, &raft.TimeoutNowResponse{}) })
	if err != nil {
		return false, fmt.Errorf("campaign: %w", err)
	}
	return true, nil
}
