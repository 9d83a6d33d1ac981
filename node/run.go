package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/secure"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
	"github.com/lsnode/lsnode/walstream/stream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// stopWait bounds how long a graceful stop tries to hand over first.
const stopWait = 8 * time.Second

// Run is a node's life: it resumes what the data dir holds, or begins a cluster
// of one, or joins the cluster of its peers, and serves until ctx ends. Then a
// primary hands over first, so that nothing is lost, and Run returns nil with
// every database closed to writers, unless this node is the only voter.
// It also returns nil once this node has left the cluster or was removed from it.
// With an application ([Config.Exec]) that has ended by itself, or failed to end
// well, it wraps a [*child.Ended].
// One process may run several nodes, but not two on one data dir or one database
// file.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	for {
		err := oneLife(ctx, cfg)
		if !errors.Is(err, cluster.ErrDropped) || ctx.Err() != nil {
			return err
		}
		cfg.Logger.Warn("this node joins anew: what it has and the cluster has not will be kept in quarantine", "reason", err)
	}
}

// oneLife is the part of a node's life within which it is the same member.
func oneLife(ctx context.Context, cfg Config) (err error) {
	n, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.enter(ctx); err != nil {
		return err
	}
	return n.serve(ctx)
}

// open opens what the data dir holds. Nothing of a database is touched yet.
func open(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: cfg.Logger, tips: newTips(), looks: newDeepLooks(), databases: map[string]*database{}}
	n.shared = &shared{log: cfg.Logger, gate: newGate(), node: cfg.Name, replace: cfg.Replace, fileMode: cfg.FileMode}
	if n.fileGroup, err = groupID(cfg.FileGroup); err != nil {
		return nil, err
	}
	n.create = apply.CreateOptions{FileMode: cfg.FileMode, FileGroup: n.fileGroup}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	timing, err := cluster.ParseTiming(cfg.Timing)
	if err != nil {
		return nil, err
	}
	var token secure.Token
	if cfg.Token != "" {
		if token, err = secure.ParseToken(cfg.Token); err != nil {
			return nil, err
		}
	}
	n.cluster, err = cluster.Open(ctx, cluster.Config{
		DataDir: cfg.DataDir, Name: cfg.Name, Listen: cfg.Listen, Advertise: cfg.Advertise, HTTPAddr: cfg.HTTP,
		Token: token, Peers: cfg.Peers, Timing: timing, Nonvoter: cfg.Nonvoter, Version: cfg.Version, Logger: cfg.Logger,
		Lease: func(epoch uint64, deadline time.Duration) { n.guard.Lease(epoch, deadline) }, // within Run only: guard is set by then
	})
	if err != nil {
		return nil, err
	}
	n.quarantine = QuarantineOf(cfg.DataDir)
	if n.registry, err = openRegistry(cfg); err != nil {
		return nil, err
	}
	if n.txlog, err = txlog.Open(filepath.Join(cfg.DataDir, "log"), txlog.Options{Logger: cfg.Logger, SegmentSize: cfg.LogBytes / 16}); err != nil {
		return nil, err
	}
	if n.watcher, err = capture.NewWatcher(); err != nil {
		return nil, err
	}
	n.metrics = n.openMetrics()
	n.openGuard()
	n.openApp()
	return n, nil
}

// enter makes this node a member, if it is none yet.
func (n *Node) enter(ctx context.Context) error {
	if n.cluster.Fresh() {
		peers := n.cluster.RejoinPeers()
		if peers == nil {
			peers = n.cfg.Peers
		}
		if len(peers) > 0 {
			if err := n.cluster.Join(ctx, peers); err != nil {
				return err
			}
		} else if err := n.bootstrap(ctx); err != nil {
			return err
		}
	}
	if n.cfg.NATS != "" {
		if err := n.openSealer(); err != nil {
			return err
		}
	}
	if err := n.knowKept(); err != nil {
		return err
	}
	n.gate.promise(walstream.Epoch(n.cluster.Promised())) // what was promised before a restart still is
	return n.handle()
}

// bootstrap begins a cluster of one. It needs to know which databases it is for:
// a node that was meant to join, and whose operator forgot to say so, must not
// become a cluster of its own.
func (n *Node) bootstrap(ctx context.Context) error {
	if len(n.cfg.Databases) == 0 && n.cfg.DBDir == "" {
		return fmt.Errorf("begin a cluster in %s: no database was named: give --db PATH or --db-dir DIR, "+
			"or join an existing cluster with lsnode join --peers HOST:PORT", n.cfg.DataDir)
	}
	if err := n.registry.scan(); err != nil {
		return err
	}
	for name, path := range n.registry.local() {
		if err := refuseFenced(ctx, path); err != nil {
			return fmt.Errorf("begin a cluster with database %s, %s: %w", name, path, err)
		}
	}
	return n.cluster.Bootstrap(ctx)
}

// refuseFenced refuses a file that is a copy of some cluster, before anything is
// made of it: a follower whose data dir was lost must not become a second
// primary.
func refuseFenced(ctx context.Context, path string) (err error) {
	db, err := sqlitedb.Open(ctx, path, sqlitedb.Options{})
	if err != nil {
		return nil // what is no database, or not there yet, is refused in its own time
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	mark, err := sqlitefile.CurrentMark(db.Files())
	if err == nil && mark > sqlitefile.MarkWAL {
		err = errFencedCopy
	}
	return err
}

// openSealer makes the key with which messages on somebody else's NATS are
// sealed.
func (n *Node) openSealer() (err error) {
	token := n.cluster.Token()
	id, err := hex.DecodeString(token.KeyID()[:8])
	if err != nil {
		return fmt.Errorf("make sealer: %w", err)
	}
	key := stream.Key{ID: uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])}
	copy(key.Secret[:], token.SealingKey())
	n.sealer, err = stream.NewSealer(n.cluster.ID(), key)
	return err
}

// handle answers what other nodes ask on the data path.
func (n *Node) handle() error {
	pulls, err := stream.NewServer(stream.ServerConfig{Log: n.txlog, Snapshot: n.pullSnapshot, Logger: n.log})
	if err != nil {
		return err
	}
	n.cluster.RPC().Handle(methodTip, n.heardTip)
	n.cluster.RPC().Handle(methodReach, n.reach)
	n.cluster.RPC().Handle(methodPages, n.answerPages)
	n.cluster.RPC().Handle(methodVerify, n.answerVerify)
	n.cluster.RPC().Handle(methodDurable, n.answerDurable)
	n.cluster.RPC().Handle(methodStanding, n.answerStanding)
	n.cluster.Handle(protocolPull, func(conn net.Conn, from string) {
		if err := pulls.Serve(context.Background(), conn); err != nil {
			n.log.Debug("serve a pull", "node", from, "error", err)
		}
	})
	n.cluster.Handle(protocolNATS, func(conn net.Conn, from string) {
		broker := n.broker.Load()
		if broker == nil { // this node is not primary: the other finds out who is
			conn.Close()
			return
		}
		if err := broker.ServeConn(context.Background(), conn); err != nil {
			n.log.Debug("live stream ended", "node", from, "error", err)
		}
	})
	return nil
}

// serve lives the node's roles beside its endpoints until ctx ends.
func (n *Node) serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", n.cfg.HTTP)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", n.cfg.HTTP, err)
	}
	if err := api.WriteAddress(n.cfg.DataDir, listener.Addr()); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := api.New(api.Config{Backend: n, Metrics: n.metrics.Handler(), Token: n.cluster.Token().Reveal(), Logger: n.log})
	defer n.guarded()()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, life := errgroup.WithContext(life)
	group.Go(func() error { return server.Run(life, listener) })
	group.Go(func() error { return n.watcher.Run(life) })
	group.Go(func() error { return n.upkeep(life) })
	group.Go(func() error { return n.watchKept(life) })
	if n.cfg.AuditInterval > 0 {
		group.Go(func() error { return n.audit(life) })
	}
	if n.cfg.DBDir != "" {
		group.Go(func() error { return n.watchDatabases(life) })
	}
	group.Go(func() error {
		defer end()
		err := n.cluster.Run(life, n)
		if errors.Is(err, cluster.ErrRemoved) {
			n.log.Info("this node is no member any more and stops: its copies stay read-only until they are released with lsnode release PATH")
			return nil
		}
		return err
	})
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	endApp := n.runApp(leave)
	stop := context.AfterFunc(ctx, func() {
		_ = endApp() // said below
		n.handOver()
		end()
	})
	err = group.Wait()
	stop()
	return errors.Join(err, endApp())
}

// handOver makes another node primary before this one stops, if it can.
func (n *Node) handOver() {
	if n.cluster.Role() != cluster.RolePrimary || n.cluster.SoleVoter() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	if err := n.cluster.Switchover(ctx, ""); err != nil {
		n.log.Warn("stopping without having handed over: the others elect a primary when the lease has ended", "error", err)
	}
}

func (n *Node) watchDatabases(ctx context.Context) error {
	return watchDirectory(ctx, n.cfg.DBDir, func() {
		if err := n.registry.scan(); err != nil {
			n.log.Warn("look for databases", "directory", n.cfg.DBDir, "error", err)
		}
	})
}

// close closes everything that is open, also when opening was cut off.
func (n *Node) close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), fenceWait)
	defer cancel()
	if n.cluster != nil {
		errs = append(errs, n.cluster.Close())
	}
	n.looks.close()
	for _, d := range n.all() {
		errs = append(errs, d.close(ctx))
	}
	if n.txlog != nil {
		errs = append(errs, n.txlog.Close())
	}
	if n.watcher != nil {
		if err := n.watcher.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, n.guard.Close())
	return errors.Join(errs...)
}

// groupID returns the number of a group that is given by name or number; zero
// for none.
func groupID(group string) (int, error) {
	if group == "" {
		return 0, nil
	}
	if id, err := strconv.Atoi(group); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("find group of copies: %w", err)
	}
	return strconv.Atoi(g.Gid)
}
