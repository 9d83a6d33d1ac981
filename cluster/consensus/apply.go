package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Apply proposes a command and waits until it is committed and executed here. It
// returns what the machine returned. Only the leader can; the error says with
// [ErrNotLeader] that the command will never be executed, and with [ErrUnknown]
// that it may.
func (c *Consensus) Apply(ctx context.Context, command []byte) (any, error) {
	var future raft.ApplyFuture
	err := c.await(ctx, func() error {
		future = c.raft.Apply(command, timeLeft(ctx))
		return future.Error()
	})
	if err != nil {
		return nil, fmt.Errorf("apply command: %w", err)
	}
	return future.Response(), nil
}

// Barrier waits until everything that was committed before is executed here.
// Only the leader can.
func (c *Consensus) Barrier(ctx context.Context) error {
	if err := c.await(ctx, func() error { return c.raft.Barrier(timeLeft(ctx)).Error() }); err != nil {
		return fmt.Errorf("wait for barrier: %w", err)
	}
	return nil
}

// Status is Raft's own figures, for people and metrics.
type Status struct {
	Term      uint64 // of the election
	LastIndex uint64 // of the newest entry in the log
	Committed uint64 // index
	Applied   uint64 // index
}

// Status returns the figures of this moment.
func (c *Consensus) Status() Status {
	return Status{
		Term:      c.raft.CurrentTerm(),
		LastIndex: c.raft.LastIndex(),
		Committed: c.raft.CommitIndex(),
		Applied:   c.raft.AppliedIndex(),
	}
}

// timeLeft is the time until ctx's deadline; 0, if it has none, is no bound.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline), time.Millisecond)
}
