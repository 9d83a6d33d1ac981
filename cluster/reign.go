package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/state"
)

var (
	errLeadershipLost = errors.New("leadership of Raft was lost")
	errSwitchedOver   = errors.New("switched over")
	errResigned       = errors.New("the databases resigned")
)

// reign is this node's time as primary: the frame around Data.Reign. What others
// ask of the primary reaches it through Cluster.current.
type reign struct {
	c        *Cluster
	data     Data
	epoch    uint64
	keeper   *keeper
	switches chan *switchRequest

	managing context.Context // ends before the reign does; members change only within it
	memberMu sync.Mutex      // held while members change
}

// switchRequest asks the reign to hand over.
type switchRequest struct {
	ctx    context.Context // of who asks
	target string          // the ID
	done   chan error      // buffered; nil once the target has everything and leadership was handed over
}

// run lets the databases reign until lease or leadership is lost, this node is
// stopped, or it has switched over. It returns the switch that ended it, if one
// did, and what did. An error means that not all is fenced.
func (r *reign) run(ctx context.Context, start map[string]state.Position) (_ *switchRequest, cause, _ error) {
	ctx, finish := context.WithCancelCause(ctx)
	r.managing = ctx
	// The databases' time ends a step later than everything else: see below.
	reigning, end := context.WithCancelCause(context.WithoutCancel(ctx))
	var switched *switchRequest
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		if r.c.SoleVoter() {
			// A sole voter leaves its databases open. So it must not become one
			// of several in the same moment: wait for a change that is under
			// way; none begins any more.
			r.memberMu.Lock()
			defer r.memberMu.Unlock()
		}
		end(context.Cause(ctx))
	})
	wg.Go(func() {
		if err := r.keeper.awaitLost(ctx); errors.Is(err, errLeaseLost) {
			finish(err)
		}
	})
	wg.Go(func() { r.adjustLoop(ctx) })
	wg.Go(func() { r.tellDropped(ctx) })
	wg.Go(func() {
		if switched = r.switchLoop(ctx); switched != nil {
			finish(errSwitchedOver)
		}
	})

	r.c.setReign(r)
	err := r.data.Reign(reigning, Reign{Epoch: r.epoch, Line: r.c.State().Line(), Start: start, Lease: Lease{r.keeper}})
	r.c.setReign(nil)
	finish(errResigned)
	wg.Wait()
	r.keeper.resign()
	if err != nil {
		err = fmt.Errorf("end reign %d: %w", r.epoch, err)
	}
	return switched, context.Cause(ctx), err
}

// switchLoop serves requests to switch over until one has succeeded.
func (r *reign) switchLoop(ctx context.Context) *switchRequest {
	for {
		select {
		case s := <-r.switches:
			err := r.handover(ctx, s)
			if err == nil {
				return s
			}
			s.done <- err
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *reign) handover(ctx context.Context, s *switchRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	began := time.Now()
	if err := r.data.Handover(ctx, s.target); err != nil {
		return fmt.Errorf("switch over to %s: %w", r.c.nameOf(s.target), err)
	}
	r.c.logger.Info("databases handed over", "epoch", r.epoch, "to", r.c.nameOf(s.target), "took", time.Since(began))
	return nil
}
