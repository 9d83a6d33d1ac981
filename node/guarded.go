package node

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/guard"
)

// errGuardFenced ends a reign: the guard took this node for dead or hung.
var errGuardFenced = errors.New("the guard has closed the databases to writers: this node did not in time")

// guardLook is how often a primary looks whether its guard has fenced.
const guardLook = 50 * time.Millisecond

// openGuard prepares what this node shares with its guard. A node that can't
// have one goes on without.
func (n *Node) openGuard() {
	if len(n.cfg.Guard) == 0 {
		return
	}
	c, err := guard.Open(guard.Config{
		Command: n.cfg.Guard, Node: n.cluster.Self(), Timing: n.cluster.Timing(), Output: os.Stderr, Logger: n.log,
	})
	if err != nil {
		n.log.Error("this node has no guard: should it die or hang, the others wait until its lease ends, and applications here may write on meanwhile",
			"error", err)
		n.guardErr = err
		return
	}
	n.guard = c
}

// guarded runs the guard until the returned function is called, which is after
// the databases were closed to writers.
func (n *Node) guarded() (end func()) {
	if n.guard == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.guard.Run(ctx) })
	wg.Go(func() { n.tellGuard(ctx) })
	return func() {
		stop()
		wg.Wait()
	}
}

// tellGuard keeps the guard informed of whom it would have to tell.
func (n *Node) tellGuard(ctx context.Context) {
	for {
		changed := n.cluster.Changed()
		if err := n.guard.Voters(n.cluster.Peers()); err != nil {
			n.log.Warn("tell the guard who the voters are", "error", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// heedGuard returns errGuardFenced once the guard has fenced in this epoch, and
// nil when ctx ends.
func (n *Node) heedGuard(ctx context.Context, epoch uint64) error {
	tick := time.NewTicker(guardLook)
	defer tick.Stop()
	for !n.guard.Fenced(epoch) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return errGuardFenced
}

// guardStatus says how the guard does.
func (n *Node) guardStatus() api.Guard {
	switch s := n.guard.Status(); {
	case n.guardErr != nil:
		return api.Guard{State: api.GuardAbsent, Error: n.guardErr.Error()}
	case n.guard == nil:
		return api.Guard{State: api.GuardOff}
	case s.Alive:
		return api.Guard{State: api.GuardAlive, PID: s.PID, Restarts: s.Restarts}
	default:
		return api.Guard{State: api.GuardAbsent, PID: s.PID, Restarts: s.Restarts, Error: s.Err}
	}
}
