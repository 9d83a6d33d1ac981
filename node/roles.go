package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/stream"
)

// advanceAtOnce is how many databases are brought to their targets at a time.
const advanceAtOnce = 4

// Positions implements [cluster.Data]: from its beginning nothing is accepted
// in the name of a lower epoch.
func (n *Node) Positions(ctx context.Context, epoch uint64, line state.Line) (map[string]state.Position, error) {
	n.gate.promise(walstream.Epoch(epoch))
	if err := n.txlog.Sync(ctx); err != nil {
		return nil, fmt.Errorf("make the log durable: %w", err)
	}
	positions := map[string]state.Position{}
	for _, name := range n.txlog.Databases() {
		last := n.txlog.Durable(name)
		cut := line.Cut(name, toState(last), n.lookup(name))
		if !cut.IsZero() {
			positions[name] = cut
		}
	}
	return positions, nil
}

func (n *Node) lookup(name string) state.Lookup {
	return func(epoch, txid uint64) (state.Position, bool) {
		pos, ok := n.txlog.Floor(name, walstream.Position{Epoch: walstream.Epoch(epoch), TXID: walstream.TXID(txid)})
		return toState(pos), ok
	}
}

// Advance implements [cluster.Data]: logs and files stand at the targets on
// return, the files fenced still.
func (n *Node) Advance(ctx context.Context, epoch uint64, line state.Line, targets map[string]promote.Target) (map[string]state.Position, error) {
	var mu sync.Mutex
	starts := map[string]state.Position{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(advanceAtOnce)
	for name, target := range targets {
		if target.Position.IsZero() {
			continue
		}
		group.Go(func() error {
			d, err := n.database(name)
			if err == nil {
				err = n.advance(ctx, d, walstream.Epoch(epoch), line, target)
			}
			if err != nil {
				return fmt.Errorf("bring %s to %s: %w", name, target.Position, err)
			}
			mu.Lock()
			defer mu.Unlock()
			starts[name] = toState(n.txlog.Last(name))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return starts, n.txlog.Sync(ctx)
}

// advance brings one database to its target.
func (n *Node) advance(ctx context.Context, d *database, epoch walstream.Epoch, line state.Line, target promote.Target) error {
	goal := fromState(target.Position)
	own := n.txlog.Last(d.name) == goal
	alone := n.cluster.SoleVoter()
	if alone && own && line.Newest() >= n.cluster.State().Recovered {
		// Nobody else can have been primary: what the application wrote meanwhile
		// goes on top. The file stays open for writing. (Not after a recovery, by
		// which a node that had been one of several, and perhaps a follower, is alone.)
		// Without a file its database is refused until there is one.
		return ignore(d.open(ctx, true), errAbsent)
	}
	repair, err := d.settle(ctx, line, own)
	if errors.Is(err, errAbsent) && alone {
		return ignore(err, errAbsent) // refused until there is a file
	}
	if errors.Is(err, errAbsent) {
		repair, err = true, nil
	}
	if err != nil {
		return err
	}
	if err := n.fetchTarget(ctx, d, epoch, line, target, repair); err != nil {
		return err
	}
	if last := n.txlog.Last(d.name); last != goal {
		return fmt.Errorf("its log stands at %s", last)
	}
	return nil
}

// errBeyondRepair says that a candidate can't make its file fit its log.
var errBeyondRepair = errors.New("its file differs from its log, and no other node that has answered can repair it")

// fetchTarget gets what a database lacks from whoever reaches its target, the
// first that succeeds, and mends its file first if it needs that: from this
// node's own log where that is the one.
func (n *Node) fetchTarget(ctx context.Context, d *database, epoch walstream.Epoch, line state.Line, target promote.Target, repair bool) error {
	err := errBeyondRepair
	for _, from := range target.From {
		switch {
		case from != n.cluster.Self():
			err = n.fetchFrom(ctx, d, epoch, line, target, from, &repair)
		case repair:
			err = d.rollForward(ctx)
			repair = err != nil
		default:
			err = nil
		}
		if err == nil {
			return nil
		}
	}
	return err
}

func (n *Node) fetchFrom(ctx context.Context, d *database, epoch walstream.Epoch, line state.Line, target promote.Target, from string, repair *bool) error {
	dial := n.pullDialer(from)
	if *repair {
		if err := d.restoreCopy(ctx, epoch, dial, line); err != nil {
			return err
		}
		*repair = false
	}
	query := stream.Since{Database: d.name, After: n.txlog.Last(d.name), Until: fromState(target.Position)}
	return d.pullFrom(ctx, epoch, line, dial, query)
}

// CaughtUp implements [cluster.Data].
func (n *Node) CaughtUp(id string) bool {
	r := n.reign.Load()
	if r == nil || !r.barrier.holds(id) {
		return false
	}
	if id == n.cluster.Self() {
		// With two voters the question may be whether this one can do alone.
		return len(n.cluster.Voters()) > 2 || n.mayBeSole()
	}
	return n.tips.caughtUp(id)
}

// NoPromote implements [cluster.Data].
func (n *Node) NoPromote() bool { return false }

var _ cluster.Data = (*Node)(nil)
