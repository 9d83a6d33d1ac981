package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/gossip"
)

// crowd is this node's part in gossip, which begins once the cluster's ID is
// known: its changes are passed on to whoever waits for the cluster's.
type crowd struct {
	gossip *gossip.Gossip
	cancel context.CancelFunc
	wg     sync.WaitGroup // pass
}

// openCrowd begins to gossip.
func (c *Cluster) openCrowd(ctx context.Context) error {
	g, err := gossip.Open(ctx, gossip.Config{
		Mux:       c.mux,
		Key:       c.token.GossipKey(),
		Cluster:   c.ID(),
		Advertise: c.advertise,
		Name:      c.config.Name,
		HTTP:      c.config.HTTPAddr,
		Version:   c.config.Version,
		Known:     c.acquaintances,
		Logger:    c.logger,
	})
	if err != nil {
		return err
	}
	passing, cancel := context.WithCancel(context.Background())
	w := &crowd{gossip: g, cancel: cancel}
	w.wg.Go(func() { w.pass(passing, &c.changed) })
	c.crowd.Store(w)
	return nil
}

func (w *crowd) pass(ctx context.Context, to *notifier) {
	for {
		changed := w.gossip.Changed()
		to.notify()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends gossip without a goodbye.
func (w *crowd) Close() error {
	w.cancel()
	err := w.gossip.Close()
	w.wg.Wait()
	return err
}

// Gossip returns what is known of a member by gossip; ok is false if nothing is.
func (c *Cluster) Gossip(node string) (m gossip.Member, ok bool) {
	if w := c.crowd.Load(); w != nil {
		return w.gossip.Member(node)
	}
	return gossip.Member{}, false
}

// Alive tells whether a member seems to be alive; this node is. Nothing that must
// be right may rest on it.
func (c *Cluster) Alive(node string) bool {
	if node == c.Self() {
		return true
	}
	m, _ := c.Gossip(node)
	return m.Alive
}

// answers asks a member for a sign of life, which takes a moment at most.
func (c *Cluster) answers(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timing.Lease+time.Second)
	defer cancel()
	return c.Call(ctx, node, methodPing, empty{}, nil) == nil
}

// resolve returns where a member is, "host:port", as gossip or the state know it,
// or "".
func (c *Cluster) resolve(id string) string {
	if m, ok := c.Gossip(id); ok && m.Alive && m.Address != "" {
		return m.Address
	}
	return c.State().Nodes[id].Address
}

// hostport is resolve, with Raft's configuration as the last resort: right after
// a start the state is still empty.
func (c *Cluster) hostport(id string) string {
	if id == c.Self() {
		return c.advertise
	}
	if address := c.resolve(id); address != "" {
		return address
	}
	for _, m := range c.raft.Configuration() {
		if m.ID == id {
			return m.Address
		}
	}
	return ""
}
