package cluster

import (
	"context"
	"errors"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/state"
)

// What callers branch on. They are the same whether the call was answered here or
// forwarded to another node.
var (
	// ErrNoPrimary says that no node is primary at the moment; the call may be
	// repeated.
	ErrNoPrimary = errors.New("no node is primary at the moment")
	// ErrUnknownNode says that no member has this name or ID.
	ErrUnknownNode = state.ErrUnknownNode
	// ErrNameTaken says that a live member has this name.
	ErrNameTaken = state.ErrNameTaken
	// ErrStaleEpoch says that this node's reign is over.
	ErrStaleEpoch = state.ErrStaleEpoch
	// ErrNotVoter says that the node is no voter, so it can't be primary.
	ErrNotVoter = errors.New("the node is not a voter")
	// ErrNotCaughtUp says that a node lacks what others count on.
	ErrNotCaughtUp = errors.New("the node has not caught up")
	// ErrUnreachable says that a node does not answer.
	ErrUnreachable = errors.New("the node does not answer")
	// ErrSoleVoter says that the cluster can't do without this node.
	ErrSoleVoter = errors.New("the node is the only voter")
	// ErrIsPrimary says that the node is primary: switch over first.
	ErrIsPrimary = errors.New("the node is primary")
	// ErrRemoved says that this node is not a member any more.
	ErrRemoved = errors.New("the node has been removed from the cluster")
	// ErrDropped says that a recovery of the cluster's lost majority went on without
	// this node: it joins anew when it is opened the next time.
	ErrDropped = errors.New("the cluster was recovered without this node")
	// ErrNoToken says that a cluster can't be joined without its token.
	ErrNoToken = errors.New("no cluster token given")
	// ErrNotFresh says that the data dir belongs to a cluster already.
	ErrNotFresh = errors.New("the data dir belongs to a cluster already")
	// ErrInvalid says that the request itself is wrong.
	ErrInvalid = state.ErrInvalid
)

// errNotLeader says that a request has to go elsewhere.
var errNotLeader = errors.New("the node is not the leader")

// coded are the errors that keep their meaning over the wire.
func coded() map[string]error {
	return map[string]error{
		"no-primary":    ErrNoPrimary,
		"unknown-node":  ErrUnknownNode,
		"name-taken":    ErrNameTaken,
		"stale-epoch":   ErrStaleEpoch,
		"not-voter":     ErrNotVoter,
		"not-caught-up": ErrNotCaughtUp,
		"unreachable":   ErrUnreachable,
		"sole-voter":    ErrSoleVoter,
		"is-primary":    ErrIsPrimary,
		"removed":       ErrRemoved,
		"dropped":       ErrDropped,
		"invalid":       ErrInvalid,
		"not-leader":    errNotLeader,
		"unknown":       consensus.ErrUnknown,
		"promised":      errPromised,
	}
}

// encodeError gives an error the code that it travels with.
func encodeError(err error) error {
	if err == nil {
		return nil
	}
	for code, known := range coded() {
		if errors.Is(err, known) || known == errNotLeader && errors.Is(err, consensus.ErrNotLeader) {
			return rpc.Errorf(code, "%s", err.Error())
		}
	}
	return err
}

// decodeError is the inverse of encodeError on the caller's side.
func decodeError(err error) error {
	known, ok := coded()[rpc.Code(err)]
	if !ok {
		return err
	}
	return &remoteError{err: err, known: known}
}

// retryable tells whether something that failed may succeed at another leader, or
// later.
func retryable(err error) bool {
	for _, passing := range []error{
		ErrNoPrimary, errNotLeader, consensus.ErrNotLeader, consensus.ErrUnknown,
		rpc.ErrUnreachable, rpc.ErrLost, ErrUnreachable, context.DeadlineExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return rpc.Code(err) == rpc.CodeUnknownMethod // not that far yet
}

// remoteError is another node's error, with the meaning that it had there.
type remoteError struct {
	err   error
	known error
}

func (e *remoteError) Error() string   { return e.err.Error() }
func (e *remoteError) Unwrap() []error { return []error{e.err, e.known} }
