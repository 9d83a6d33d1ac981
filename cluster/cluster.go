package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/identity"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/secure"
	"github.com/lsnode/lsnode/cluster/state"
)

// Cluster is this node's membership. Its methods are safe for concurrent use,
// but for Open, Bootstrap, Join, Run and Close, which come in this order, once.
type Cluster struct {
	config   Config
	logger   *slog.Logger
	lock     *identity.Lock
	identity *identity.Identity
	voter    *voter
	machine  *machine
	changed  notifier              // state, role or members
	removed  chan struct{}         // closed once this node is no member any more
	crowd    atomic.Pointer[crowd] // set once, when the cluster's ID is known

	rejoinPeers []string // set by Open

	// Set by start, and not changed afterwards.
	token     secure.Token
	advertise string
	mux       *mux.Mux
	server    *rpc.Server
	client    *rpc.Client
	raft      *consensus.Consensus
	stop      context.CancelFunc // ends what the RPC server does

	mu         sync.Mutex
	role       Role              // guarded by mu
	data       Data              // of Run; nil outside; guarded by mu
	reigning   *reign            // while Data.Reign runs; guarded by mu
	epochFloor uint64            // what a voter has promised to someone else; guarded by mu
	confirmed  *announceResponse // what the state holds at least; nil: not known yet; guarded by mu
	whyRemoved error             // set when removed is closed; guarded by mu
}

// Open takes the data dir (another process that has it is named in the error)
// and, if it belongs to a cluster already, starts to talk to the others.
// Otherwise [Cluster.Fresh] is true, and Bootstrap or Join comes next.
func Open(ctx context.Context, config Config) (_ *Cluster, err error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	c := &Cluster{config: config, logger: config.Logger, role: RoleFenced, removed: make(chan struct{})}
	c.machine = newMachine(&c.changed, config.Logger)
	if c.lock, err = identity.Acquire(config.DataDir, "lsnode "+config.Name); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.identity, err = identity.Load(config.DataDir); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if err := c.beginRejoin(); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if c.voter, err = openVoter(config.DataDir, config.Timing.Timing); err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	if !c.Fresh() {
		if err := c.start(ctx, false); err != nil {
			return nil, fmt.Errorf("open cluster: %w", err)
		}
	}
	return c, nil
}

// start takes the token and the port, and begins to talk. A token is made only
// if create says so.
func (c *Cluster) start(ctx context.Context, create bool) error {
	if err := c.loadToken(create); err != nil {
		return err
	}
	credentials, err := secure.NewCredentials(c.token, c.Self())
	if err != nil {
		return err
	}
	c.mux, err = mux.Listen(ctx, mux.Config{Listen: c.config.Listen, Credentials: credentials, Logger: c.logger})
	if err != nil {
		return err
	}
	if c.advertise, err = advertised(c.config, c.mux.Addr()); err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.client = rpc.NewMuxClient(c.mux)
	c.server = rpc.NewServer(c.logger)
	c.raft, err = consensus.Open(consensus.Config{
		Dir:       filepath.Join(c.config.DataDir, "raft"),
		Mux:       c.mux,
		Advertise: c.advertise,
		Resolve:   c.resolve,
		Refuse:    c.dropped,
		Machine:   c.machine,
		Timing:    consensus.Timing{Heartbeat: c.config.Timing.Raft, Election: c.config.Timing.Raft, LeaderLease: c.config.Timing.Raft},
		Logger:    c.logger,
	})
	if err != nil {
		return err
	}
	if !c.Fresh() {
		if err := c.openCrowd(ctx); err != nil {
			return err
		}
	}
	c.handleMethods()
	c.server.ServeMux(serving, c.mux)
	return nil
}

// loadToken takes the token from the data dir or, if it has none, from the
// configuration, or makes it.
func (c *Cluster) loadToken(create bool) (err error) {
	if !c.config.Token.IsZero() {
		c.token = c.config.Token
		return secure.SaveToken(c.config.DataDir, c.token)
	}
	if create {
		c.token, _, err = secure.LoadOrCreateToken(c.config.DataDir)
		return err
	}
	c.token, err = secure.LoadToken(filepath.Join(c.config.DataDir, secure.TokenFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoToken, err)
	}
	return nil
}

// Close ends everything at once, without a goodbye. Run must have returned.
func (c *Cluster) Close() error {
	var errs []error
	closeOne := func(part io.Closer) { errs = append(errs, part.Close()) }
	if c.stop != nil {
		c.stop()
	}
	if c.raft != nil {
		closeOne(c.raft)
	}
	if w := c.crowd.Load(); w != nil {
		closeOne(w)
	}
	if c.client != nil {
		closeOne(c.client)
	}
	if c.mux != nil {
		closeOne(c.mux)
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close cluster: %w", err)
	}
	return nil
}

// Fresh tells whether the data dir belongs to no cluster yet.
func (c *Cluster) Fresh() bool { return c.identity.Cluster() == "" }

// ID returns the cluster's ID, "" while the data dir is fresh.
func (c *Cluster) ID() string { return c.identity.Cluster() }

// Self returns this node's ID.
func (c *Cluster) Self() string { return c.identity.Node() }

// Name returns this node's name.
func (c *Cluster) Name() string { return c.config.Name }

// Address returns the address under which the others reach this node.
func (c *Cluster) Address() string { return c.advertise }

// Token returns the cluster's secret.
func (c *Cluster) Token() secure.Token { return c.token }

// State returns the replicated state as this node has it. It is never changed.
func (c *Cluster) State() *state.State { return c.machine.current.Load() }

// Changed returns a channel that is closed at the next change of state, role,
// members or their liveness. Get it before looking.
func (c *Cluster) Changed() <-chan struct{} { return c.changed.next() }

// Role returns what this node is at the moment.
func (c *Cluster) Role() Role {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.role
}

// Promised returns the highest epoch whose position request this node has agreed
// to answer: nothing of a lower epoch may be accepted or acknowledged. It is
// known again after a restart.
func (c *Cluster) Promised() uint64 { return c.voter.promised() }

// Voters returns the IDs of the voters in the newest configuration, committed or
// not.
func (c *Cluster) Voters() []string {
	var ids []string
	for _, m := range c.raft.Configuration() {
		if m.Voter {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// IsVoter tells whether a node is a voter.
func (c *Cluster) IsVoter(node string) bool { return slices.Contains(c.Voters(), node) }

// SoleVoter tells whether this node is the only voter: then nobody else can be
// promoted, and its databases are never fenced.
func (c *Cluster) SoleVoter() bool {
	voters := c.Voters()
	return len(voters) == 1 && voters[0] == c.Self()
}

// Leader returns the ID of Raft's leader as far as this node knows, or "".
func (c *Cluster) Leader() string { return c.raft.Leader() }

// RPC returns the server on which further methods can be set.
func (c *Cluster) RPC() *rpc.Server { return c.server }

// Call calls a method of a member; this node itself can be called too.
func (c *Cluster) Call(ctx context.Context, node, method string, in, out any) error {
	address := c.hostport(node)
	if address == "" {
		return fmt.Errorf("call %s of node %s: %w: its address is not known", method, node, ErrUnreachable)
	}
	return c.CallAddress(ctx, mux.At(node, address), method, in, out)
}

// CallAddress calls a method of the node at an address, "host:port" or
// "ID@host:port".
func (c *Cluster) CallAddress(ctx context.Context, address, method string, in, out any) error {
	return decodeError(c.client.Call(ctx, address, method, in, out))
}

// Handle lets connections of a protocol be handled: from is the ID of the node at
// the other end. The handler owns the connection.
func (c *Cluster) Handle(alpn string, handler func(conn net.Conn, from string)) {
	c.mux.Handle(alpn, func(conn *mux.Conn) { handler(conn, conn.Peer()) })
}

// Dial connects to a member for a protocol.
func (c *Cluster) Dial(ctx context.Context, node, alpn string) (net.Conn, error) {
	address := c.hostport(node)
	if address == "" {
		return nil, fmt.Errorf("dial node %s: %w: its address is not known", node, ErrUnreachable)
	}
	return c.mux.Dial(ctx, mux.At(node, address), alpn)
}

// nameOf returns a member's name, for people; its ID if it has none.
func (c *Cluster) nameOf(id string) string {
	if n, ok := c.State().Nodes[id]; ok {
		return n.Name
	}
	return id
}

func (c *Cluster) setData(data Data) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = data
}

func (c *Cluster) currentData() Data {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data
}

func (c *Cluster) setReign(r *reign) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reigning = r
}

// currentReign returns this node's reign while it is primary, or ErrNoPrimary.
func (c *Cluster) currentReign() (*reign, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reigning == nil {
		return nil, ErrNoPrimary
	}
	return c.reigning, nil
}

// setRole is the only place that changes the role; it says so in one line.
func (c *Cluster) setRole(role Role, epoch uint64, reason string) {
	c.mu.Lock()
	old := c.role
	c.role = role
	c.mu.Unlock()
	if role != old || role == RoleFollower { // a follower has a new primary
		c.logger.Info("role", "role", role, "was", old, "epoch", epoch, "reason", reason)
	}
	if w := c.crowd.Load(); w != nil {
		w.gossip.Announce(string(role), epoch)
	}
	c.changed.notify()
}

// floor returns what the next candidacy's epoch has to be above.
func (c *Cluster) floor() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.epochFloor, c.voter.promised())
}

func (c *Cluster) raiseFloor(epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epochFloor = max(c.epochFloor, epoch)
}

// patience is how long a candidate waits for answers, and others for a leader.
func (c *Cluster) patience() time.Duration { return 4*c.config.Timing.Lease + 10*time.Second }
