package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lsnode/lsnode/walstream"
)

// errPromised says that a higher epoch was promised than the one in whose name
// something is to be logged or applied.
var errPromised = errors.New("a higher epoch was promised")

// gate keeps the promise that goes with the answer to a position request: from
// then on nothing is logged or applied in the name of a lower epoch. What a
// primary of epoch 5 sends, also of transactions that earlier epochs have
// logged, comes in the name of epoch 5. It is safe for concurrent use.
type gate struct {
	order sync.RWMutex // held for reading while something is logged and applied

	mu     sync.Mutex
	epoch  walstream.Epoch // guarded by mu
	raised chan struct{}   // guarded by mu; closed and replaced when epoch grows
}

func newGate() *gate { return &gate{raised: make(chan struct{})} }

// promise refuses lower epochs from now on. On return nothing of a lower one is
// under way any more.
func (g *gate) promise(epoch walstream.Epoch) {
	g.mu.Lock()
	if epoch > g.epoch {
		g.epoch = epoch
		close(g.raised)
		g.raised = make(chan struct{})
	}
	g.mu.Unlock()
	g.order.Lock() // waits for what was let in before
	defer g.order.Unlock()
}

// enter lets something be logged and applied in the name of an epoch, until
// release is called.
func (g *gate) enter(epoch walstream.Epoch) (release func(), err error) {
	g.order.RLock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch < g.epoch {
		defer g.order.RUnlock()
		return nil, fmt.Errorf("accept transaction in the name of epoch %d: %w: %d", epoch, errPromised, g.epoch)
	}
	return g.order.RUnlock, nil
}

// under returns a context that ends as soon as a higher epoch is promised, so
// that a stalled sender can't hold up a promise. cancel must be called.
func (g *gate) under(ctx context.Context, epoch walstream.Epoch) (_ context.Context, cancel context.CancelFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() { // ends with cancel
		defer close(done)
		if g.await(ctx, epoch) {
			stop(errPromised)
		}
	}()
	return ctx, func() { stop(nil); <-done }
}

// await returns true once a higher epoch is promised, false when ctx ends first.
func (g *gate) await(ctx context.Context, epoch walstream.Epoch) bool {
	for {
		g.mu.Lock()
		raised, higher := g.raised, g.epoch > epoch
		g.mu.Unlock()
		if higher {
			return true
		}
		select {
		case <-raised:
		case <-ctx.Done():
			return false
		}
	}
}
