package testcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lsnode/lsnode/testcluster/app"
)

// DatabaseName is the name of the database that a cluster is made with.
const DatabaseName = "app"

// Options say what cluster to make.
type Options struct {
	Binary    string       // the lsnode program
	Dir       string       // where everything goes; must be there
	Apps      app.Launcher // how applications are started
	Size      int          // number of nodes; 3
	Namespace bool         // each node in a network namespace of its own; false: all on loopback
	Nonvoters bool         // all but the first node only follow; false
	Accounts  int64        // of the bank in the database; 200
	Args      []string     // more flags for every node
}

// Cluster is a few nodes that replicate one bank's database. One goroutine uses
// it; its nodes may be used by others.
type Cluster struct {
	Options
	Nodes   []*Node
	Network *Network // nil on loopback
}

// New makes a cluster without starting it: addresses, directories, and the
// bank's database in place on the first node.
func New(o Options) (*Cluster, error) {
	if o.Size == 0 {
		o.Size = 3
	}
	if o.Accounts == 0 {
		o.Accounts = 200
	}
	c := &Cluster{Options: o}
	ports, err := freePorts(2 * o.Size)
	if err != nil {
		return nil, err
	}
	if o.Namespace {
		if c.Network, err = NewNetwork(o.Size); err != nil {
			return nil, err
		}
	}
	for i := range o.Size {
		c.Nodes = append(c.Nodes, NewNode(c.config(i, ports)))
	}
	first := c.Nodes[0].DB(DatabaseName)
	if err := os.MkdirAll(filepath.Dir(first), 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make cluster: %w", err), c.Close())
	}
	if err := app.Prepare(first, o.Accounts); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// config is the configuration of node i of the cluster, counted from 0. The
// first one has the application's file; the others get copies at their place.
func (c *Cluster) config(i int, ports []int) NodeConfig {
	name := fmt.Sprintf("n%d", i+1)
	dir := filepath.Join(c.Dir, name)
	n := NodeConfig{
		Name: name, Binary: c.Binary, DataDir: filepath.Join(dir, "data"), LogFile: filepath.Join(dir, "lsnode.log"),
		Databases: []string{DatabaseName + "=" + filepath.Join(dir, "app", "bank.db")}, Args: c.Args,
	}
	if c.Network != nil {
		n.Space, n.HTTP = c.Network.Space(i+1), "127.0.0.1:7480"
		n.Listen = c.Network.Address(i+1) + ":7400"
	} else {
		n.Listen = fmt.Sprintf("127.0.0.1:%d", ports[2*i])
		n.HTTP = fmt.Sprintf("127.0.0.1:%d", ports[2*i+1])
	}
	if i > 0 {
		n.Peers = []string{c.Nodes[0].Listen}
		n.TokenFile = filepath.Join(c.Nodes[0].DataDir, "cluster.token")
		n.Nonvoter = c.Nonvoters
	}
	return n
}

// Start starts the first node, waits until it is primary, starts the others,
// and waits until all follow and, unless they are to follow only, vote.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.Nodes[0].Start(); err != nil {
		return err
	}
	if _, err := c.Nodes[0].WaitFor(ctx, "a primary", IsPrimary); err != nil {
		return err
	}
	for _, n := range c.Nodes[1:] {
		if err := c.StartNode(n); err != nil {
			return err
		}
	}
	return c.WaitSettled(ctx)
}

// StartNode starts a node, as a fresh one that joins or one that was there
// before: every other node is a peer it may ask.
func (c *Cluster) StartNode(n *Node) error {
	if err := os.MkdirAll(filepath.Dir(n.DB(DatabaseName)), 0o755); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	return n.Start()
}

// IsPrimary tells whether the node that was asked takes writes.
func IsPrimary(s Status) bool {
	return s.Role == "primary" && s.Database(DatabaseName).State == "primary"
}

// IsFollowing tells whether the node that was asked streams from a primary.
func IsFollowing(s Status) bool {
	return s.Role == "follower" && s.Database(DatabaseName).State == "streaming"
}

// WaitSettled waits until one running node is primary, all others that run
// stream, and every node votes that is to: with two nodes only the first does.
func (c *Cluster) WaitSettled(ctx context.Context) error {
	primary, err := c.WaitPrimary(ctx)
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if n == primary || !n.Running() {
			continue
		}
		_, err := n.WaitFor(ctx, "following", func(s Status) bool {
			return IsFollowing(s) && (n.Nonvoter || len(s.Nodes) < 3 || s.Peer(n.Name).Voter)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitPrimary waits until a running node, and none of those excepted, is
// primary.
func (c *Cluster) WaitPrimary(ctx context.Context, except ...*Node) (*Node, error) {
	for {
		var seen []string
		for _, n := range c.Nodes {
			if contains(except, n) || !n.Running() {
				continue
			}
			s, err := n.Status(ctx)
			if err == nil && IsPrimary(s) {
				return n, nil
			}
			seen = append(seen, fmt.Sprintf("%s: %s, %s, %v", n.Name, s.Role, s.Database(DatabaseName).State, err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a primary: %w; last: %s", ctx.Err(), strings.Join(seen, "; "))
		case <-time.After(statusPoll):
		}
	}
}

// WaitEqual waits until all nodes that run stand at the same transaction with
// the same checksum, by their own word. It can only end if nobody writes.
func (c *Cluster) WaitEqual(ctx context.Context, name string) (DatabaseStatus, error) {
	for {
		var all []DatabaseStatus
		equal := true
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			s, err := n.Status(ctx)
			d := s.Database(name)
			all = append(all, d)
			equal = equal && err == nil && (d.State == "primary" || d.State == "streaming") &&
				d.TXID == all[0].TXID && d.Checksum == all[0].Checksum
		}
		if equal && len(all) > 0 {
			return all[0], nil
		}
		select {
		case <-ctx.Done():
			return DatabaseStatus{}, fmt.Errorf("wait until all nodes are equal: %w; last: %+v", ctx.Err(), all)
		case <-time.After(statusPoll):
		}
	}
}

// Logs returns the end of every node's log.
func (c *Cluster) Logs(size int64) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "---- log of %s (running: %v)\n%s\n", n.Name, n.Running(), n.LogTail(size))
	}
	return b.String()
}

// Close kills all nodes, with their guards, and removes the network. Files stay.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		n.Kill()
		errs = append(errs, n.KillGuards())
	}
	if c.Network != nil {
		errs = append(errs, c.Network.Close())
	}
	return errors.Join(errs...)
}

func contains(nodes []*Node, n *Node) bool {
	for _, m := range nodes {
		if m == n {
			return true
		}
	}
	return false
}

// cutName returns the path of "NAME=PATH" if it is for that name.
func cutName(spec, name string) (string, bool) {
	got, path, ok := strings.Cut(spec, "=")
	if !ok {
		return spec, strings.TrimSuffix(filepath.Base(spec), filepath.Ext(spec)) == name
	}
	return path, got == name
}
