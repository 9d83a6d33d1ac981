package node

import (
	"context"
	"fmt"

	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/walstream"
)

// methodReach asks a follower to answer once its log has positions on disk.
const methodReach = "node.reach"

type reachRequest struct {
	Positions map[string]string `json:"positions"`
}

// reach is the follower's side.
func (n *Node) reach(ctx context.Context, _ string, body []byte) (any, error) {
	var request reachRequest
	if err := rpc.Decode(body, &request); err != nil {
		return nil, err
	}
	for name, text := range request.Positions {
		goal, err := walstream.ParsePosition(text)
		if err != nil {
			return nil, rpc.Errorf(rpc.CodeBadRequest, "%s: %v", name, err)
		}
		if err := n.await(ctx, name, goal); err != nil {
			return nil, err
		}
	}
	return nil, n.txlog.Sync(ctx)
}

// await returns once the log of a database stands at goal or beyond it.
func (n *Node) await(ctx context.Context, name string, goal walstream.Position) error {
	for {
		changed := n.txlog.Notify(name)
		last := n.txlog.Last(name)
		if last.Compare(goal) >= 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("reach %s of %s: it stands at %s: %w", goal, name, last, ctx.Err())
		}
	}
}
