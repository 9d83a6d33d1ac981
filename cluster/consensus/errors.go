package consensus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var (
	// ErrNotLeader is wrapped when a change was asked of a node that does not
	// lead, or is handing over. Nothing was changed, nor will be.
	ErrNotLeader = errors.New("node is not the cluster's leader")
	// ErrUnknown is wrapped when a change was proposed and the node can't tell
	// what became of it: leadership or the caller's time ended first. It may still
	// be committed later.
	ErrUnknown = errors.New("outcome is unknown")
	// ErrTarget is wrapped when leadership can't be handed to a node: it is no
	// voter, or does not answer.
	ErrTarget = errors.New("node can't take over")
	// ErrClosed is wrapped by calls after Close.
	ErrClosed = errors.New("raft is closed")

	errNoAddress = errors.New("address is not known")
)

// classify gives Raft's errors our names.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrClosed, ErrUnknown)
	}
	return err
}

// await runs an operation of Raft's, which knows no context, and waits for it as
// long as ctx allows. Raft may never answer one that a shutdown has overtaken,
// so Close is not waited out either; the goroutine then stays until the process
// ends.
func (c *Consensus) await(ctx context.Context, operation func() error) error {
	done := make(chan error, 1)
	go func() { done <- operation() }()
	select {
	case err := <-done:
		return classify(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	case <-c.closed:
		return fmt.Errorf("%w: %w", ErrClosed, ErrUnknown)
	}
}
