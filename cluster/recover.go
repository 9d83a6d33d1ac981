package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/identity"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/secure"
	"github.com/lsnode/lsnode/cluster/state"
)

// Recovery is the membership of a node that is not running, looked at in order to
// decide whether it is to go on alone: for a cluster that has lost the majority of
// its voters for good. One goroutine uses it.
type Recovery struct {
	dataDir  string
	logger   *slog.Logger
	lock     *identity.Lock
	identity *identity.Identity
	promised uint64
	state    *state.State
	members  []consensus.Member
	mux      *mux.Mux
	client   *rpc.Client
}

// OpenRecovery takes the data dir, which must be that of a member; a running node
// has it, and is named in the error. Nothing is changed.
func OpenRecovery(ctx context.Context, dataDir string, logger *slog.Logger) (_ *Recovery, err error) {
	if _, err := os.Stat(filepath.Join(dataDir, "identity.json")); err != nil {
		return nil, fmt.Errorf("open data dir: it is none of a node: %w", err)
	}
	r := &Recovery{dataDir: dataDir, logger: logger}
	if r.lock, err = identity.Acquire(dataDir, "lsnode recover"); err != nil {
		return nil, fmt.Errorf("open data dir: the node must not be running: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open data dir: %w", errors.Join(err, r.Close()))
		}
	}()
	if r.identity, err = identity.Load(dataDir); err != nil {
		return nil, err
	}
	if r.identity.Cluster() == "" {
		return nil, errors.New("the node is no member of a cluster yet")
	}
	voter, err := openVoter(dataDir, TimingLAN().Timing)
	if err != nil {
		return nil, err
	}
	r.promised = voter.promised()
	m := newMachine(new(notifier), logger)
	if r.members, err = consensus.Read(filepath.Join(dataDir, "raft"), m, logger); err != nil {
		return nil, err
	}
	r.state = m.current.Load()
	if _, ok := r.state.Nodes[r.Self()]; !ok {
		return nil, fmt.Errorf("%w: this node has not got the cluster's state yet", ErrUnknownNode)
	}
	return r, r.connect(ctx)
}

// connect makes it possible to ask the others.
func (r *Recovery) connect(ctx context.Context) error {
	token, err := secure.LoadToken(filepath.Join(r.dataDir, secure.TokenFile))
	if err != nil {
		return err
	}
	credentials, err := secure.NewCredentials(token, r.Self())
	if err != nil {
		return err
	}
	if r.mux, err = mux.Listen(ctx, mux.Config{Listen: "127.0.0.1:0", Credentials: credentials, Logger: r.logger}); err != nil {
		return err
	}
	r.client = rpc.NewMuxClient(r.mux)
	return nil
}

// Self returns this node's ID.
func (r *Recovery) Self() string { return r.identity.Node() }

// State returns the replicated state as this node has it.
func (r *Recovery) State() *state.State { return r.state }

// Voters returns the IDs of the voters as far as this node knows.
func (r *Recovery) Voters() []string { return append(without(r.members, r.Self()), r.ownVote()...) }

func (r *Recovery) ownVote() []string {
	for _, m := range r.members {
		if m.ID == r.Self() && m.Voter {
			return []string{m.ID}
		}
	}
	return nil
}

// Promised returns the highest epoch that this node has answered or heard of.
func (r *Recovery) Promised() uint64 { return max(r.promised, r.state.Epoch) }

// Call calls a method of another member.
func (r *Recovery) Call(ctx context.Context, node, method string, in, out any) error {
	n, ok := r.state.Nodes[node]
	if !ok {
		return fmt.Errorf("call %s of node %s: %w", method, node, ErrUnknownNode)
	}
	return decodeError(r.client.Call(ctx, atAddress(n), method, in, out))
}

// GoOnAlone makes this node the cluster's only member from its next start on,
// with epochs above floor; the others are dropped ([ErrDropped]). It is durable on
// return. After a crash in the middle it can be repeated.
func (r *Recovery) GoOnAlone(floor uint64) error {
	next, err := r.state.Recover(r.Self(), max(floor, r.Promised()))
	if err != nil {
		return err
	}
	self := consensus.Member{ID: r.Self(), Address: next.Nodes[r.Self()].Address, Voter: true}
	return consensus.Recover(filepath.Join(r.dataDir, "raft"), self, &replaced{machine: newMachine(new(notifier), r.logger), next: next}, r.logger)
}

// Close lets go of the data dir.
func (r *Recovery) Close() error {
	var errs []error
	if r.client != nil {
		errs = append(errs, r.client.Close())
	}
	if r.mux != nil {
		errs = append(errs, r.mux.Close())
	}
	return errors.Join(append(errs, r.lock.Release())...)
}

// replaced is a machine whose snapshot is a state that was decided upon.
type replaced struct {
	*machine
	next *state.State
}

// Snapshot implements [consensus.Machine].
func (r *replaced) Snapshot() ([]byte, error) { return r.next.Encode() }
