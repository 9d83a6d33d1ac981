package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lsnode/lsnode/walstream"
)

// What a [Backend] wraps so that the answer's code, and the exit status and
// advice of the command line, fit the cause.
var (
	// ErrNoPrimary: the cluster has no primary at present. 503; it may be tried
	// again.
	ErrNoPrimary = errors.New("no node is primary at present")
	// ErrLineLost: the awaited commit was on a line that the cluster's history
	// has left. It will never be reached. 410.
	ErrLineLost = errors.New("the cluster's history has left the line of that commit")
	// ErrUnknownDatabase: this node replicates no database of that name. 404.
	ErrUnknownDatabase = errors.New("no such database")
	// ErrNotPrimary: only the primary can do it, and this node is another. 421.
	ErrNotPrimary = errors.New("this node is not the primary")
	// ErrNotServed: the database is not captured at the moment. 503.
	ErrNotServed = errors.New("the database is not captured at the moment")
	// ErrUnconfirmed: this node can't find out any more whether it was reached.
	// 504.
	ErrUnconfirmed = errors.New("this node is not primary any more")
	// ErrUnknownNode: the cluster has no member of that name. 404.
	ErrUnknownNode = errors.New("no such node")
	// ErrRefused: it can't be done as things stand (the target is behind, the
	// node to be removed is alive …); the text says what to do. 409.
	ErrRefused = errors.New("refused")
)

// Backend is the node behind a [Server]. Any number of requests may call any of
// its methods at once.
type Backend interface {
	// Status returns what the node knows now. It is called for each probe of a
	// load balancer, so it must neither block nor do I/O. Role is primary only
	// while applications may write here.
	Status(ctx context.Context) Status

	// Ready returns nil when every database is served (primary or streaming),
	// otherwise what is missing. It neither blocks nor does I/O.
	Ready() error

	// Wait returns nil once the database here shows the commit of pos to
	// readers. Errors: ErrUnknownDatabase, ErrLineLost, or ctx's error when its
	// deadline comes first.
	Wait(ctx context.Context, db string, pos walstream.Position) error

	// Sync returns once everything that was committed to the database before the
	// call is durable on a majority of the voters. Errors: ErrNotPrimary,
	// ErrUnknownDatabase, ErrNotServed, or a [*NotSynced] that wraps ctx's error
	// when its deadline comes first, ErrUnconfirmed when the reign ends first.
	Sync(ctx context.Context, db string) (Synced, error)

	// Verify compares what all nodes have of a database at one position. deep:
	// each reads every page from disk, and has repaired what is damaged. Only the
	// primary can do it. Errors: ErrNotPrimary, ErrUnknownDatabase, ErrNotServed,
	// ctx's; what is wrong with a node is in its part of the answer.
	Verify(ctx context.Context, db string, deep bool) (Verified, error)

	// Switchover hands the primary's role to the named node, or, if to is
	// empty, to the one that is best placed. It returns once the new primary is
	// open for writing. It may be called on any node. Errors: ErrNoPrimary,
	// ErrUnknownNode, ErrRefused, ctx's. After an error the primary is what it
	// was, unless the error says otherwise.
	Switchover(ctx context.Context, to string) error

	// Leave takes this node out of its cluster and makes it stop: the primary
	// hands over first. Its copies stay, fenced. Errors: ErrRefused, ctx's.
	Leave(ctx context.Context) error

	// Remove takes another node, which is not alive, out of the cluster, by
	// name or ID. It may be called on any node; the change is committed on
	// return. Errors: ErrNoPrimary, ErrUnknownNode, ErrRefused, ctx's.
	Remove(ctx context.Context, node string) error
}

// Synced is the answer to a sync: up to where the database is durable on a
// majority, and on which nodes that was known to be so.
type Synced struct {
	Bookmark string   `json:"bookmark"`
	TXID     string   `json:"txid"`
	Nodes    []string `json:"nodes"`
}

// Verified is the answer to a verification.
type Verified struct {
	Database string         `json:"database"`
	TXID     string         `json:"txid"`     // at which all nodes were compared
	Checksum string         `json:"checksum"` // of the primary at it
	Nodes    []VerifiedNode `json:"nodes"`
}

// Equal tells whether all nodes have what the primary has, undamaged.
func (v Verified) Equal() bool {
	for _, n := range v.Nodes {
		if !n.Equal {
			return false
		}
	}
	return true
}

// VerifiedNode is what one node has.
type VerifiedNode struct {
	Node      string            `json:"node"`
	Equal     bool              `json:"equal"`
	TXID      string            `json:"txid"`
	Checksum  string            `json:"checksum"`
	PagesRead uint32            `json:"pages_read"`      // from disk; 0 unless deep
	Damaged   int               `json:"damaged"`         // pages that were not what was written
	Pages     map[uint32]string `json:"pages,omitempty"` // some of them, and what was wrong
	Repaired  bool              `json:"repaired"`        // they are what they should be now
	Error     string            `json:"error,omitempty"` // why it could not be compared
}

// NotSynced says that a position is not known to be on a majority.
type NotSynced struct {
	Database string
	Position walstream.Position // that was to be reached
	Nodes    []string           // that have it
	Err      error
}

// Error says which nodes have what.
func (e *NotSynced) Error() string {
	have := "no node"
	if len(e.Nodes) > 0 {
		have = strings.Join(e.Nodes, ", ")
	}
	return fmt.Sprintf("sync %s: transaction %s is not on a majority: %s has it: %v", e.Database, e.Position.TXID, have, e.Err)
}

// Unwrap returns what kept it from a majority.
func (e *NotSynced) Unwrap() error { return e.Err }
