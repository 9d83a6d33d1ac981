package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/child"
	"github.com/lsnode/lsnode/node/metrics"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/stream"
)

// The protocols that the data path speaks on the node-to-node port.
const (
	protocolNATS = "lsnode-nats/1"
	protocolPull = "lsnode-pull/1"
)

// Node is one node's life. It implements [cluster.Data] and [api.Backend].
type Node struct {
	cfg      Config
	log      *slog.Logger
	cluster  *cluster.Cluster
	registry *registry
	metrics  *metrics.Metrics
	sealer   *stream.Sealer // with an external NATS only
	tips     *tips
	guardErr error        // why this node can't have a guard
	app      *child.Child // nil: none was configured
	*shared

	broker atomic.Pointer[stream.Broker] // while this node reigns
	live   atomic.Pointer[live]          // while this node follows
	lease  atomic.Pointer[cluster.Lease] // while this node reigns
	reign  atomic.Pointer[reign]         // while this node reigns

	looks *deepLooks

	mu        sync.Mutex
	databases map[string]*database // guarded by mu
}

// names returns the databases that this node has to do with, sorted: those of
// the cluster, and those that its operator named.
func (n *Node) names() []string {
	all := n.ours()
	for name := range n.registry.local() {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// ours returns the databases of the cluster, as far as this node knows them.
func (n *Node) ours() map[string]bool {
	all := map[string]bool{}
	for _, name := range n.cluster.State().Databases {
		all[name] = true
	}
	for _, name := range n.txlog.Databases() {
		all[name] = true
	}
	return all
}

// database returns the database of a name, made if need be.
func (n *Node) database(name string) (*database, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.databases[name]; d != nil {
		return d, nil
	}
	if !walstream.ValidName(name) {
		return nil, fmt.Errorf("take database %q: it can't have this name", name)
	}
	path, err := n.registry.path(name)
	if err != nil {
		return nil, err
	}
	d := &database{
		shared: n.shared, name: name, path: path,
		dir: filepath.Join(n.cfg.DataDir, "state", name), progress: newProgress(), counts: n.metrics.Database(name),
	}
	n.databases[name] = d
	return d, nil
}

// known returns a database that was made before, or nil.
func (n *Node) known(name string) *database {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.databases[name]
}

// all returns the databases that were made so far, by name.
func (n *Node) all() []*database {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*database
	for _, name := range slices.Sorted(maps.Keys(n.databases)) {
		all = append(all, n.databases[name])
	}
	return all
}

// fenceAll closes every database of the cluster to writers of which this node
// has a file. One that is busy is queued for while the others go on.
func (n *Node) fenceAll(ctx context.Context) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for name := range n.ours() {
		d, err := n.database(name)
		if err != nil {
			return err
		}
		wg.Go(func() {
			err := d.fence(ctx)
			switch {
			case err == nil:
				d.progress.become(api.StateFenced, nil)
			case sqlitedb.Refused(err) != "", errors.Is(err, errForeign):
				d.progress.become(api.StateRefused, err)
			default:
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pullDialer dials a node for the pull protocol, natsDialer for live messages.
func (n *Node) pullDialer(id string) stream.Dialer { return n.dialer(id, protocolPull) }

func (n *Node) natsDialer(id string) stream.Dialer { return n.dialer(id, protocolNATS) }

func (n *Node) dialer(id, protocol string) stream.Dialer {
	return func(ctx context.Context) (net.Conn, error) { return n.cluster.Dial(ctx, id, protocol) }
}
