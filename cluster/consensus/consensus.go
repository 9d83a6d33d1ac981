package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/lsnode/lsnode/cluster/internal/durable"
)

// Consensus is this node's part in the replicated state. Its methods are safe
// for concurrent use.
type Consensus struct {
	config     Config
	raft       *raft.Raft
	ready      atomic.Pointer[raft.Raft] // raft, for its own callbacks, which begin before it is set
	store      *raftboltdb.BoltStore
	transport  *patientTransport
	leadership *leadership
	fsm        fsm
	hasState   bool

	closed  chan struct{} // closed by Close
	once    sync.Once
	wg      sync.WaitGroup        // watch
	own     chan bool             // this node's leadership, every change, from Raft
	seen    chan raft.Observation // that someone else leads
	observe *raft.Observer

	transferMu sync.Mutex // held during a leadership transfer
}

// Open starts this node's Raft with what its directory holds. A new node is part
// of nothing until it is bootstrapped, or added by the leader of a cluster.
func Open(config Config) (_ *Consensus, err error) {
	config, err = config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open raft: %w", err)
	}
	if err := durable.MkdirAll(config.Dir); err != nil {
		return nil, fmt.Errorf("open raft: %w", err)
	}
	c := &Consensus{
		config:     config,
		leadership: newLeadership(),
		closed:     make(chan struct{}),
		own:        make(chan bool),
		seen:       make(chan raft.Observation, 16),
	}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("open raft: %w", err)
	}
	return c, nil
}

func (c *Consensus) open() (err error) {
	if c.store, err = openStore(c.config.Dir); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return errors.Join(err, c.store.Close())
	}
	return nil
}

// start makes the Raft out of its parts. Whatever was begun is ended on an error.
func (c *Consensus) start() error {
	logger := newLogger(c.config.Logger)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.config.Dir, 2, logger)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	cache, err := raft.NewLogCache(256, c.store)
	if err != nil {
		return err
	}
	if c.hasState, err = raft.HasExistingState(cache, c.store, snapshots); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	begun := make(chan struct{})
	defer close(begun)
	stream := &streamLayer{
		Listener: c.config.Mux.Listener(Protocol), mux: c.config.Mux, peerTimeout: c.config.Timing.Network,
		refuse: c.config.Refuse, begun: begun,
	}
	c.transport = newPatientTransport(c.isMember, raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: &addresses{config: c.config, fallback: c.configured},
		Stream:                stream,
		MaxPool:               3,
		Timeout:               c.config.Timing.Network,
		Logger:                logger,
	}))
	options := c.options()
	options.Logger = logger
	c.wg.Go(c.watch)
	stable := &patientStable{StableStore: c.store, logger: c.config.Logger, closed: c.closed}
	c.fsm.machine = c.config.Machine
	c.raft, err = raft.NewRaft(options, &c.fsm, cache, stable, snapshots, c.transport)
	if err != nil {
		close(c.closed)
		c.wg.Wait()
		return errors.Join(err, c.transport.Close())
	}
	c.ready.Store(c.raft)
	c.observe = raft.NewObserver(c.seen, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	c.raft.RegisterObserver(c.observe)
	return nil
}

func (c *Consensus) options() *raft.Config {
	o := raft.DefaultConfig()
	o.LocalID = raft.ServerID(c.config.Mux.NodeID())
	o.HeartbeatTimeout = c.config.Timing.Heartbeat
	o.ElectionTimeout = c.config.Timing.Election
	o.LeaderLeaseTimeout = c.config.Timing.LeaderLease
	o.CommitTimeout = c.config.Timing.Commit
	o.ShutdownOnRemove = false
	o.NotifyCh = c.own
	// The state is small, so a short log and few entries kept behind a snapshot
	// cost nothing.
	o.SnapshotThreshold = 2048
	o.TrailingLogs = 2048
	o.NoLegacyTelemetry = true
	return o
}

// watch passes changes of leadership on, each one.
func (c *Consensus) watch() {
	for {
		select {
		case leads := <-c.own:
			ctx := c.leadership.set(leads)
			if leads {
				c.transport.setLeading(ctx)
			}
		case <-c.seen:
			c.leadership.notify()
		case <-c.closed:
			c.leadership.set(false)
			return
		}
	}
}

// HasState tells whether the directory held anything when it was opened: this
// node has been part of a cluster.
func (c *Consensus) HasState() bool { return c.hasState }

// Bootstrap makes a new node a cluster of one. It is refused for a node that has
// been part of a cluster ([Consensus.HasState]).
func (c *Consensus) Bootstrap(ctx context.Context) error {
	configuration := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter,
		ID:       raft.ServerID(c.config.Mux.NodeID()),
		Address:  raft.ServerAddress(c.config.Advertise),
	}}}
	err := c.await(ctx, func() error { return c.raft.BootstrapCluster(configuration).Error() })
	if err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	return nil
}

// Close ends this node's part at once, without a goodbye; the others find out by
// themselves. What was committed is durable.
func (c *Consensus) Close() error {
	var err error
	c.once.Do(func() {
		c.raft.DeregisterObserver(c.observe)
		// The transport is closed first, so that no request keeps Raft waiting.
		err = c.transport.Close()
		c.transport.CloseStreams()
		shutdown := c.raft.Shutdown()
		close(c.closed) // watch takes no more; Raft does not wait for it during a shutdown
		c.wg.Wait()
		err = errors.Join(err, shutdown.Error(), c.store.Close())
	})
	if err != nil {
		return fmt.Errorf("close raft: %w", err)
	}
	return nil
}
