package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/stream"
)

const (
	// fenceWait bounds how long the end of a reign waits for write transactions
	// that are open; the fence is tried again after it.
	fenceWait = 10 * time.Second
	// handoverWait bounds how long writers are kept out for a switchover.
	handoverWait = 5 * time.Second
	// flushInterval is how often a primary makes its tables of page checksums
	// durable, so that a start has little of the log to replay.
	flushInterval = 30 * time.Second
)

// Reign implements [cluster.Data].
func (n *Node) Reign(ctx context.Context, r cluster.Reign) (err error) {
	publisher, done, err := n.openStream()
	if err != nil {
		return errors.Join(err, n.endReign())
	}
	defer func() { err = errors.Join(err, done()) }()
	n.took(cluster.RolePrimary)
	n.lease.Store(&r.Lease)
	defer n.lease.Store(nil)
	current := &reign{
		epoch: walstream.Epoch(r.Epoch), publisher: publisher,
		valid:    func() bool { return r.Lease.Valid() && !n.guard.Fenced(r.Epoch) },
		register: func(ctx context.Context, db string) error { return n.cluster.AddDatabase(ctx, db, r.Epoch) },
	}
	current.barrier = newBarrier(current.epoch, n.cluster.Self(), n.cluster.Voters, n.askDurable(current.epoch))
	group, ctx := errgroup.WithContext(ctx)
	current.ctx = ctx
	n.reign.Store(current)
	defer current.barrier.close()
	defer n.reign.Store(nil)
	group.Go(func() error { n.tellTips(ctx, current); return nil })
	group.Go(func() error { n.flushTables(ctx); return nil })
	group.Go(func() error { return n.heedGuard(ctx, r.Epoch) })
	group.Go(func() error { n.reignApp(ctx); return nil })
	group.Go(func() error { return n.reignAll(ctx, group, current) })
	if err := group.Wait(); err != nil {
		n.log.Error("reign ends by itself", "epoch", r.Epoch, "error", err)
	}
	return n.endReign()
}

// reignAll has a worker for each database, also for those that appear later.
func (n *Node) reignAll(ctx context.Context, group *errgroup.Group, current *reign) error {
	begun := map[string]bool{}
	for {
		changed, found := n.cluster.Changed(), n.registry.changed()
		for _, name := range n.names() {
			if begun[name] {
				continue
			}
			d, err := n.database(name)
			if err != nil {
				return err
			}
			begun[name] = true
			group.Go(func() error { return (&reigning{d: d, reign: current}).run(ctx) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-found:
		}
	}
}

// endReign closes all databases to writers, unless nobody else can be primary.
func (n *Node) endReign() error {
	if n.cluster.SoleVoter() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), fenceWait)
	defer cancel()
	return n.fenceAll(ctx)
}

// openStream opens what live messages are published on: a broker of this
// process, or the NATS that was configured.
func (n *Node) openStream() (_ *stream.Publisher, done func() error, err error) {
	id := n.cluster.ID()
	if n.cfg.NATS != "" {
		p, err := stream.ConnectPublisher(stream.ExternalConfig{URL: n.cfg.NATS, Cluster: id, Sealer: n.sealer, Logger: n.log})
		if err != nil {
			return nil, nil, err
		}
		return p, p.Close, nil
	}
	broker, err := stream.NewBroker(stream.BrokerConfig{Logger: n.log})
	if err != nil {
		return nil, nil, err
	}
	p, err := broker.Publisher(id)
	if err != nil {
		return nil, nil, errors.Join(err, broker.Close())
	}
	n.broker.Store(broker)
	return p, func() error {
		n.broker.CompareAndSwap(broker, nil)
		return errors.Join(p.Close(), broker.Close())
	}, nil
}

// flushTables makes the tables of page checksums durable now and then, and at
// the end.
func (n *Node) flushTables(ctx context.Context) {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, d := range n.all() {
			if err := d.flushTable(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("flush page checksums", "database", d.name, "error", err)
			}
		}
	}
}

func (d *database) flushTable(ctx context.Context) error {
	d.content.Lock()
	defer d.content.Unlock()
	if d.opened == nil {
		return nil
	}
	return d.table.FlushCurrent(func(walstream.Position) error { return d.txlog.Sync(ctx) })
}

// Handover implements [cluster.Data]: writers are kept out of all databases,
// the tail is shipped, the target has it durable, and then all are fenced.
func (n *Node) Handover(ctx context.Context, target string) (err error) {
	n.haltApp(ctx)
	defer func() {
		if err != nil {
			n.resumeApp()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, handoverWait)
	defer cancel()
	h := &handover{locks: map[*database]*sqlitedb.WriteLock{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.release())
		}
	}()
	if err := h.drain(ctx, n.all()); err != nil {
		return err
	}
	if err := n.txlog.Sync(ctx); err != nil {
		return err
	}
	request := reachRequest{Positions: positionTexts(n.standing())}
	if err := n.cluster.Call(ctx, target, methodReach, request, nil); err != nil {
		return fmt.Errorf("wait until the target has everything: %w", err)
	}
	if r := n.reign.Load(); r != nil {
		r.handed.Store(true)
	}
	return h.fence(ctx)
}

// handover is the write locks that a switchover holds.
type handover struct {
	mu    sync.Mutex
	locks map[*database]*sqlitedb.WriteLock // guarded by mu
}

// drain keeps writers out of all databases at the same time and captures the
// rest of each.
func (h *handover) drain(ctx context.Context, all []*database) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range all {
		d.content.Lock()
		c := d.capture
		d.content.Unlock()
		if c == nil {
			continue
		}
		group.Go(func() error {
			lock, err := c.Drain(ctx)
			if err != nil {
				return err
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.locks[d] = lock
			return nil
		})
	}
	return group.Wait()
}

// fence fences all databases; each keeps its lock until then.
func (h *handover) fence(ctx context.Context) error {
	var errs []error
	for d, lock := range h.locks {
		delete(h.locks, d)
		err := d.replica.FenceHeld(ctx, lock)
		if err == nil {
			err = d.guard.Closed(d.name)
		}
		errs = append(errs, err)
		d.progress.become(api.StateFenced, nil)
	}
	return errors.Join(errs...)
}

// release lets writers in again.
func (h *handover) release() error {
	var errs []error
	for d, lock := range h.locks {
		delete(h.locks, d)
		errs = append(errs, lock.Release())
	}
	return errors.Join(errs...)
}
