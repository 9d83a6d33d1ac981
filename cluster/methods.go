package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/state"
)

// The methods that nodes call of each other.
const (
	methodRenew      = "cluster.renew"      // primary to every member
	methodPosition   = "cluster.position"   // candidate to every voter
	methodFenced     = "cluster.fenced"     // former primary, or its guard, to every voter
	methodCampaign   = "cluster.campaign"   // a dead primary's guard to one voter
	methodJoin       = "cluster.join"       // the rest: to the leader, passed on by others
	methodAnnounce   = "cluster.announce"   //
	methodRemove     = "cluster.remove"     //
	methodPropose    = "cluster.propose"    //
	methodSwitchover = "cluster.switchover" //
	methodPing       = "cluster.ping"       // anyone to anyone
	methodRemoved    = "cluster.removed"    // the leader to who was removed
	methodDropped    = "cluster.dropped"    // the primary to who was dropped by a recovery
)

type renewRequest struct {
	Epoch uint64        `json:"epoch"`
	Lease time.Duration `json:"lease"` // L, which must not be longer than the voter's
}

type fencedRequest struct {
	Epoch uint64 `json:"epoch"`
}

type nodeRequest struct {
	Node state.Node `json:"node"`
}

// announceResponse is what the leader's state holds.
type announceResponse struct {
	Epoch   uint64 `json:"epoch"`   // the counter
	Primary uint64 `json:"primary"` // epoch of the newest primary
}

type joinResponse struct {
	ClusterID string `json:"clusterID"`
}

type idRequest struct {
	ID string `json:"id"`
}

type proposeResponse struct {
	Epoch uint64 `json:"epoch"`
}

type empty struct{}

// handleMethods sets what this node answers.
func (c *Cluster) handleMethods() {
	c.server.Handle(methodRenew, method(func(_ context.Context, _ string, r renewRequest) (empty, error) {
		if own := c.config.Timing.Lease; r.Lease > own {
			return empty{}, fmt.Errorf("renew lease for %v on node %s: %w: its own timing has %v; all nodes need the same timing", r.Lease, c.config.Name, ErrInvalid, own)
		}
		if !c.voter.renew(r.Epoch, r.Lease) {
			return empty{}, fmt.Errorf("renew lease of epoch %d for %v: %w: %d", r.Epoch, r.Lease, errPromised, c.voter.promised())
		}
		return empty{}, nil
	}))
	c.server.Handle(methodPosition, method(func(ctx context.Context, _ string, r positionRequest) (positionAnswer, error) {
		answer, err := c.answerPosition(ctx, r, false)
		if err != nil && c.voter.promised() > r.Epoch {
			return positionAnswer{Promised: c.voter.promised()}, nil
		}
		return positionAnswer{Answer: answer}, err
	}))
	c.server.Handle(methodFenced, method(func(_ context.Context, _ string, r fencedRequest) (fencedAnswer, error) {
		return c.answerFenced(r.Epoch), nil
	}))
	c.server.Handle(methodCampaign, method(func(ctx context.Context, from string, _ empty) (campaignAnswer, error) {
		began, err := c.campaign(ctx, from)
		return campaignAnswer{Began: began}, err
	}))
	c.server.Handle(methodPing, method(func(context.Context, string, empty) (empty, error) { return empty{}, nil }))
	c.server.Handle(methodRemoved, method(func(_ context.Context, _ string, r idRequest) (empty, error) {
		if r.ID == c.Self() {
			c.setRemoved(ErrRemoved)
		}
		return empty{}, nil
	}))
	c.server.Handle(methodDropped, method(func(_ context.Context, _ string, r droppedRequest) (empty, error) {
		return empty{}, c.answerDropped(r)
	}))
	c.server.Handle(methodJoin, method(func(ctx context.Context, from string, r nodeRequest) (joinResponse, error) {
		return atLeader(ctx, c, from, methodJoin, r, c.admit)
	}))
	c.server.Handle(methodAnnounce, method(func(ctx context.Context, from string, r nodeRequest) (announceResponse, error) {
		return atLeader(ctx, c, from, methodAnnounce, r, c.readdress)
	}))
	c.server.Handle(methodRemove, method(func(ctx context.Context, from string, r idRequest) (empty, error) {
		return atLeader(ctx, c, from, methodRemove, r, c.expel)
	}))
	c.server.Handle(methodPropose, method(func(ctx context.Context, from string, r state.Command) (proposeResponse, error) {
		return atLeader(ctx, c, from, methodPropose, r, c.propose)
	}))
	c.server.Handle(methodSwitchover, method(func(ctx context.Context, from string, r idRequest) (empty, error) {
		return atLeader(ctx, c, from, methodSwitchover, r, c.switchover)
	}))
}

// method makes a typed function a method: it decodes the request and gives
// errors the codes that they travel with.
func method[In, Out any](f func(ctx context.Context, from string, in In) (Out, error)) rpc.Method {
	return func(ctx context.Context, from string, body []byte) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, rpc.Errorf(rpc.CodeBadRequest, "decode request: %v", err)
		}
		out, err := f(ctx, from, in)
		if err != nil {
			return nil, encodeError(err)
		}
		return out, nil
	}
}

// atLeader does something at the leader: here if this node is, otherwise it passes
// the request on. A request that comes from a member who takes this node for the
// leader is not passed on again, so that none goes round in circles.
func atLeader[In, Out any](ctx context.Context, c *Cluster, from, name string, in In, do func(context.Context, In) (Out, error)) (Out, error) {
	var out Out
	if c.raft.IsLeader() {
		return do(ctx, in)
	}
	leader := c.raft.Leader()
	if leader == "" || leader == c.Self() {
		return out, ErrNoPrimary
	}
	// Members send to the leader themselves; only who is not one yet, or does not
	// know the leader, needs this node's help.
	if leader == from {
		return out, errNotLeader
	}
	err := c.Call(ctx, leader, name, in, &out)
	return out, err
}

// lead asks the leader to do something, wherever that is, again and again until
// it is done, refused, or ctx ends. It must be something that may be done twice.
func lead[In, Out any](ctx context.Context, c *Cluster, name string, in In, do func(context.Context, In) (Out, error)) (Out, error) {
	var p pause
	for {
		changed := c.raft.Changed()
		out, err := attempt(ctx, c, name, in, do)
		if err == nil || !retryable(err) {
			return out, err
		}
		p.wait(ctx, changed)
		if ctx.Err() != nil {
			return out, fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// attempt is one try of lead, bounded so that a leader that is gone does not use
// up the caller's time.
func attempt[In, Out any](ctx context.Context, c *Cluster, name string, in In, do func(context.Context, In) (Out, error)) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	return atLeader(ctx, c, "", name, in, do)
}

// apply proposes a command to Raft; only the leader can. It returns the epoch
// counter after it.
func (c *Cluster) apply(ctx context.Context, command state.Command) (uint64, error) {
	data, err := command.Encode()
	if err != nil {
		return 0, err
	}
	result, err := c.raft.Apply(ctx, data)
	if err != nil {
		return 0, err
	}
	a, ok := result.(applied)
	if !ok {
		return 0, fmt.Errorf("apply command: the state machine answered %T", result)
	}
	return a.epoch, a.err
}

// propose is apply for what other nodes may ask for: nothing that makes a primary
// or changes who is a member.
func (c *Cluster) propose(ctx context.Context, command state.Command) (proposeResponse, error) {
	if command.AddDatabase == nil && command.RemoveDatabase == nil && command.Archive == nil && command.RaiseEpoch == nil {
		return proposeResponse{}, fmt.Errorf("propose command: %w: not one that a node may propose", ErrInvalid)
	}
	epoch, err := c.apply(ctx, command)
	return proposeResponse{Epoch: epoch}, err
}

// AddDatabase registers a database, at the leader, committed on return. With the
// epoch of this node's reign it also begins the database from nothing in that
// reign, if that has not begun it: its positions count from then on, and what
// earlier reigns had of it, on nodes that did not answer when this one was
// promoted, is off the line. ErrStaleEpoch is wrapped if the reign is over. With
// epoch zero it only registers.
func (c *Cluster) AddDatabase(ctx context.Context, name string, epoch uint64) error {
	return c.ask(ctx, state.Command{AddDatabase: &state.AddDatabase{Name: name, Epoch: epoch}})
}

// RemoveDatabase unregisters a database, at the leader, committed on return.
func (c *Cluster) RemoveDatabase(ctx context.Context, name string) error {
	return c.ask(ctx, state.Command{RemoveDatabase: &state.RemoveDatabase{Name: name}})
}

// RaiseEpoch sets the epoch counter to at least floor, committed on return: for a
// cluster that is made from data that has epochs already.
func (c *Cluster) RaiseEpoch(ctx context.Context, floor uint64) error {
	return c.ask(ctx, state.Command{RaiseEpoch: &state.RaiseEpoch{Floor: floor}})
}

// SetArchive keeps the coarse progress of archiving a database, committed on
// return.
func (c *Cluster) SetArchive(ctx context.Context, database string, progress json.RawMessage) error {
	return c.ask(ctx, state.Command{Archive: &state.Archive{Database: database, Progress: progress}})
}

// ask proposes a command wherever the leader is, and returns when this node's own
// state has it as well.
func (c *Cluster) ask(ctx context.Context, command state.Command) error {
	_, err := lead(ctx, c, methodPropose, command, c.propose)
	if err != nil || command.AddDatabase == nil {
		return err
	}
	for {
		changed := c.changed.next()
		if slices.Contains(c.State().Databases, command.AddDatabase.Name) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for database %s to be known here: %w", command.AddDatabase.Name, ctx.Err())
		}
	}
}
