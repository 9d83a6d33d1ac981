package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
)

// Sync implements [api.Backend]: it returns once everything that was committed
// to the database before the call is durable on a majority of the voters, this
// node among them. From then on no node can be promoted without it.
func (n *Node) Sync(ctx context.Context, name string) (api.Synced, error) {
	r := n.reign.Load()
	if r == nil || n.cluster.Role() != cluster.RolePrimary {
		primary := n.cluster.State().Nodes[n.primary()].Name
		if primary == "" {
			primary = "not known at the moment"
		}
		return api.Synced{}, fmt.Errorf("sync %s: %w: that is %s", name, api.ErrNotPrimary, primary)
	}
	d := n.known(name)
	if d == nil {
		return api.Synced{}, fmt.Errorf("sync %s: %w", name, api.ErrUnknownDatabase)
	}
	pos, err := d.flush(ctx)
	if err == nil && pos.Epoch != r.epoch {
		err = fmt.Errorf("%w: it stands at %s", errDeposed, pos)
	}
	if errors.Is(err, errDeposed) {
		err = fmt.Errorf("%w: %w", api.ErrNotServed, err)
	}
	if err != nil {
		return api.Synced{}, fmt.Errorf("sync %s: %w", name, err)
	}
	nodes, err := n.reachMajority(ctx, r, d, pos)
	if errors.Is(err, errDeposed) {
		// Not "ask the primary": another one may have gone on without this commit.
		err = fmt.Errorf("%w: %w", api.ErrUnconfirmed, err)
	}
	if err != nil {
		return api.Synced{}, &api.NotSynced{Database: name, Position: pos, Nodes: n.nodeNames(nodes), Err: err}
	}
	return api.Synced{Bookmark: pos.Bookmark(), TXID: pos.TXID.String(), Nodes: n.nodeNames(nodes)}, nil
}

// flush captures what is committed now and returns where that ends.
func (d *database) flush(ctx context.Context) (walstream.Position, error) {
	d.content.Lock()
	c := d.capture
	d.content.Unlock()
	if c == nil {
		return walstream.Position{}, api.ErrNotServed
	}
	pos, err := c.Flush(ctx)
	if errors.Is(err, capture.ErrNotResumed) { // it was closed at this moment
		err = api.ErrNotServed
	}
	return pos, err
}

// reachMajority makes a position durable here and waits for the others, both at
// the same time.
func (n *Node) reachMajority(ctx context.Context, r *reign, d *database, pos walstream.Position) ([]string, error) {
	own := make(chan error, 1)
	var syncing sync.WaitGroup
	defer syncing.Wait()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	syncing.Go(func() {
		err := n.syncOwn(ctx, r, d, pos)
		own <- err
		if err != nil {
			cancel()
		}
	})
	nodes, err := r.barrier.wait(waiting, r.ctx, d.name, pos)
	if err != nil && ctx.Err() != nil {
		return nodes, err
	}
	if failed := <-own; failed != nil {
		return nodes, failed
	}
	if err != nil {
		return nodes, err
	}
	if !r.valid() || n.reign.Load() != r {
		return nodes, errDeposed
	}
	n.showSynced(r)
	return nodes, nil
}

// syncOwn counts this node in once its log is on disk. Where it is the only
// voter, its database's file decides at the next start, so that has to be on
// disk as well; where there are two, it may be the only one soon.
func (n *Node) syncOwn(ctx context.Context, r *reign, d *database, pos walstream.Position) error {
	if err := n.txlog.Sync(ctx); err != nil {
		return err
	}
	if len(n.cluster.Voters()) <= 2 {
		if err := d.syncFiles(ctx); err != nil {
			return err
		}
	}
	r.barrier.has(n.cluster.Self(), map[string]walstream.Position{d.name: pos})
	return nil
}

// syncFiles makes the database's own files durable. Callers at the same time
// share it.
func (d *database) syncFiles(ctx context.Context) error {
	return d.fsyncs.do(ctx, func() error {
		d.content.Lock()
		defer d.content.Unlock()
		if d.opened == nil {
			return fmt.Errorf("sync %s: %w", d.path, errAbsent)
		}
		// The WAL first: what a checkpoint has copied out of it since is in the file.
		for _, f := range []int{int(d.file.Wal().Fd()), int(d.file.Main().Fd())} {
			if err := unix.Fdatasync(f); err != nil {
				return fmt.Errorf("sync %s: %w", d.path, err)
			}
		}
		return nil
	})
}

// mayBeSole makes everything that was acknowledged durable in the databases'
// files too, as it has to be on a node that becomes the only voter.
func (n *Node) mayBeSole() bool {
	for _, d := range n.all() {
		if err := d.syncFiles(context.Background()); err != nil && !errors.Is(err, errAbsent) {
			n.log.Warn("a database's file can't be made durable: this node may not be the only voter", "error", err)
			return false
		}
	}
	return true
}

// nodeNames returns the names of nodes, sorted.
func (n *Node) nodeNames(ids []string) []string {
	names := []string{}
	for _, id := range ids {
		if m, ok := n.cluster.State().Nodes[id]; ok {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// rounds lets callers at the same time share work that takes long: a caller is
// served by a run that began after it came.
type rounds struct {
	mu   sync.Mutex
	next *round // has not begun; guarded by mu
	busy *round // under way; guarded by mu
}

type round struct {
	done chan struct{}
	err  error // valid once done is closed
}

// do returns when a run of work that began after the call has ended.
func (s *rounds) do(ctx context.Context, work func() error) error {
	s.mu.Lock()
	mine := s.next
	leader := mine == nil
	if leader {
		mine = &round{done: make(chan struct{})}
		s.next = mine
	}
	before := s.busy
	s.mu.Unlock()
	if leader {
		if before != nil {
			<-before.done
		}
		s.mu.Lock()
		s.next, s.busy = nil, mine
		s.mu.Unlock()
		mine.err = work()
		close(mine.done)
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
