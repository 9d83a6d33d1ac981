package node

import (
	"context"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/stream"
)

// live is this node's time as follower of one primary: the live stream, and a
// worker for each database.
type live struct {
	n    *Node
	term *term

	mu         sync.Mutex
	followings map[string]*following // by database; guarded by mu
}

// Follow implements [cluster.Data].
func (n *Node) Follow(ctx context.Context, t cluster.Term) error {
	if t.Primary == "" || t.Primary == n.cluster.Self() {
		return n.stayFenced(ctx)
	}
	n.took(cluster.RoleFollower)
	n.gate.promise(walstream.Epoch(t.Epoch)) // nothing of an earlier primary any more
	l := &live{n: n, followings: map[string]*following{}, term: &term{
		epoch: walstream.Epoch(t.Epoch), line: t.Line, primary: t.Primary,
		dial: n.pullDialer, sources: func() []string { return n.seedSources(t.Primary) },
	}}
	n.live.Store(l)
	defer n.live.CompareAndSwap(l, nil)
	return l.run(ctx)
}

// stayFenced keeps all databases readable and closed to writers while there is
// no primary.
func (n *Node) stayFenced(ctx context.Context) error {
	n.took(cluster.RoleFenced)
	if err := n.fenceAll(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// run follows until ctx ends.
func (l *live) run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { l.receive(ctx) })
	for {
		changed := l.n.cluster.Changed()
		for _, name := range l.n.cluster.State().Databases {
			f, err := l.begin(name)
			if err != nil {
				return err
			}
			if f != nil {
				workers.Go(func() { f.run(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// begin returns a worker for a database that has none yet.
func (l *live) begin(name string) (*following, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.followings[name] != nil {
		return nil, nil
	}
	d, err := l.n.database(name)
	if err != nil {
		return nil, err
	}
	f := newFollowing(d, l.term)
	l.followings[name] = f
	return f, nil
}

// each calls do for every database's worker.
func (l *live) each(do func(*following)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.followings {
		do(f)
	}
}

// receive keeps a subscription to the live stream. While there is none, tips
// make the workers pull.
func (l *live) receive(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		started := time.Now()
		err := l.subscribe(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > retryLongest {
			wait = retryFirst
		}
		l.n.log.Debug("live stream ended", "primary", l.term.primary, "error", err, "retry_in", wait)
		wait = pause(ctx, wait)
	}
}

func (l *live) subscribe(ctx context.Context) error {
	config := stream.SubscriberConfig{
		Cluster: l.n.cluster.State().ClusterID,
		Handle:  func(_ context.Context, m *stream.Message) error { l.deliver(m); return nil },
		Ready:   func() { l.each((*following).nudge) }, // what came before is pulled
		Logger:  l.n.log,
	}
	if l.n.cfg.NATS != "" {
		config.URL, config.Sealer = l.n.cfg.NATS, l.n.sealer
	} else {
		config.Dial = l.n.natsDialer(l.term.primary)
	}
	s, err := stream.NewSubscriber(config)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// deliver hands a message to its database's worker.
func (l *live) deliver(m *stream.Message) {
	l.mu.Lock()
	f := l.followings[m.Header.Database]
	l.mu.Unlock()
	if f != nil {
		f.offer(m)
	}
}

// seedSources returns the nodes to seed from, followers first, so that the
// primary reads as little as possible for it.
func (n *Node) seedSources(primary string) []string {
	var ids []string
	for id := range n.cluster.State().Nodes {
		if id != primary && id != n.cluster.Self() && n.cluster.Alive(id) {
			ids = append(ids, id)
		}
	}
	return append(ids, primary)
}
