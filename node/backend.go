package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/walstream"
)

// Status implements [api.Backend].
func (n *Node) Status(context.Context) api.Status {
	s := n.cluster.State()
	status := api.Status{
		Cluster: n.cluster.ID(), Node: n.cfg.Name, ID: n.cluster.Self(),
		Role: api.Role(n.role()), Epoch: s.Epoch, Archive: api.Archive{State: api.ArchiveOff}, Guard: n.guardStatus(),
	}
	primary := n.primary()
	status.Primary = s.Nodes[primary].Name
	for _, m := range s.Members() {
		status.Nodes = append(status.Nodes, api.Node{
			Name: m.Name, ID: m.ID, Address: m.Address, HTTP: m.HTTP, Role: n.roleOf(m.ID, primary),
			Voter: n.cluster.IsVoter(m.ID), Alive: m.ID == n.cluster.Self() || n.cluster.Alive(m.ID),
		})
	}
	now := time.Now()
	for _, d := range n.all() {
		status.Databases = append(status.Databases, d.progress.status(d.name, d.path, now))
	}
	for name, why := range n.registry.refusals() {
		status.Databases = append(status.Databases, api.Database{Name: name, State: api.StateRefused, Error: why})
	}
	return status
}

// role is what this node is now; primary only while it may write.
func (n *Node) role() cluster.Role { return n.cluster.Role() }

// primary returns the ID of the primary that this node knows, or "".
func (n *Node) primary() string {
	switch n.role() {
	case cluster.RolePrimary:
		return n.cluster.Self()
	case cluster.RoleFollower:
		return n.cluster.State().Primary.Node
	}
	return ""
}

// roleOf is another member's role as far as this node can tell.
func (n *Node) roleOf(id, primary string) api.Role {
	switch {
	case id == n.cluster.Self():
		return api.Role(n.role())
	case id == primary:
		return api.RolePrimary
	case primary == "" || !n.cluster.Alive(id):
		return api.RoleFenced
	}
	return api.RoleFollower
}

// Ready implements [api.Backend].
func (n *Node) Ready() error {
	var errs []error
	now := time.Now()
	for name := range n.owed() {
		d := n.known(name)
		if d == nil {
			errs = append(errs, fmt.Errorf("%s is not opened yet", name))
			continue
		}
		if s := d.progress.status(d.name, d.path, now); !s.State.Served() {
			errs = append(errs, fmt.Errorf("%s is %s", d.name, s.State))
		}
	}
	if len(errs) == 0 && n.primary() == "" {
		errs = append(errs, errors.New("no primary is known"))
	}
	return errors.Join(errs...)
}

// owed returns the databases that this node has to serve: those of the cluster,
// what it has begun with besides and, on the primary, those that its operator
// named, also while they are not opened yet.
func (n *Node) owed() map[string]bool {
	owed := n.ours()
	for _, d := range n.all() {
		owed[d.name] = true
	}
	if n.role() == cluster.RolePrimary {
		for name := range n.registry.local() {
			owed[name] = true
		}
	}
	return owed
}

// Wait implements [api.Backend].
func (n *Node) Wait(ctx context.Context, name string, pos walstream.Position) error {
	d := n.known(name)
	if d == nil {
		return fmt.Errorf("wait for %s: %w", name, api.ErrUnknownDatabase)
	}
	for {
		state := n.cluster.Changed()
		visible, advanced := d.progress.position()
		switch {
		case !n.cluster.State().Line().OnLine(name, toState(pos)):
			return fmt.Errorf("wait for %s of %s: %w", pos, name, api.ErrLineLost)
		case visible.Compare(pos) >= 0:
			return nil
		}
		select {
		case <-advanced:
		case <-state:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s of %s: it shows %s: %w", pos, name, visible, ctx.Err())
		}
	}
}

// Switchover implements [api.Backend].
func (n *Node) Switchover(ctx context.Context, to string) error {
	return translate(n.cluster.Switchover(ctx, to))
}

// Leave implements [api.Backend].
func (n *Node) Leave(ctx context.Context) error { return translate(n.cluster.Leave(ctx)) }

// Remove implements [api.Backend].
func (n *Node) Remove(ctx context.Context, node string) error {
	return translate(n.cluster.Remove(ctx, node))
}

// translate gives the cluster's errors the meaning that the endpoints know.
func translate(err error) error {
	for from, to := range map[error]error{
		cluster.ErrNoPrimary: api.ErrNoPrimary, cluster.ErrUnknownNode: api.ErrUnknownNode,
		cluster.ErrNotVoter: api.ErrRefused, cluster.ErrNotCaughtUp: api.ErrRefused, cluster.ErrSoleVoter: api.ErrRefused,
		cluster.ErrIsPrimary: api.ErrRefused, cluster.ErrUnreachable: api.ErrRefused, cluster.ErrInvalid: api.ErrRefused,
	} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	return err
}

var _ api.Backend = (*Node)(nil)
