package cluster

import (
	"context"

	"github.com/lsnode/lsnode/cluster/promote"
	"github.com/lsnode/lsnode/cluster/state"
)

// Data is what the cluster asks of the node's databases. At most one of Reign
// and Follow runs at a time, with none of them while this node is a candidate;
// the other methods may be called at any time, concurrently.
type Data interface {
	// Positions answers a position request. From its beginning nothing of a
	// lower epoch than this one may be written to the log, applied or
	// acknowledged any more; the cluster has made that promise durable
	// ([Cluster.Promised]). It returns for each database the last position that
	// is durable in this node's log, cut back to the line ([state.Line.Cut]; the
	// log itself need not be cut). A database of which there is nothing is left
	// out. It is called again if an answer was lost.
	Positions(ctx context.Context, epoch uint64, line state.Line) (map[string]state.Position, error)

	// Advance prepares a reign of this node: log and files stand at the targets
	// on return, durable, with what is missing fetched from the nodes that have
	// it, and what is off the line kept aside. The files stay fenced. It returns
	// where each database stands: the start of the reign.
	Advance(ctx context.Context, epoch uint64, line state.Line, targets map[string]promote.Target) (map[string]state.Position, error)

	// Reign is the whole of this node's time as primary: epoch records,
	// unfencing, capture, shipping. It writes only while the lease is valid.
	// When ctx ends it stops at once and fences all databases, and returns nil
	// once no write transaction can begin on any of them, otherwise an error that
	// says what is not fenced. It may return nil earlier to resign. A node that is
	// the sole voter ([Cluster.SoleVoter]) leaves its databases open and returns
	// nil as well.
	Reign(ctx context.Context, r Reign) error

	// Handover is called within Reign, which goes on: it keeps writers out (with
	// a bounded wait), ships the tail, waits until the target has all of it
	// durable, and fences. After nil nothing is written in this reign any more,
	// and Reign's ctx ends. After an error writers are let in again.
	Handover(ctx context.Context, target string) error

	// Follow is this node's time as follower in a term: it ends with ctx, or
	// earlier with an error, and is then called again after a pause.
	Follow(ctx context.Context, t Term) error

	// CaughtUp tells, on a primary, whether a member (this node included) has
	// durable everything whose sync was acknowledged, and keeps up with what is
	// shipped: so that it may count as a voter.
	CaughtUp(node string) bool

	// NoPromote tells whether this node abstains from being primary for now.
	NoPromote() bool
}

// Reign is a primary's time in one epoch.
type Reign struct {
	Epoch uint64
	Line  state.Line // this reign included
	// Start is where each database begins. One that is missing is not begun
	// in this reign: [Cluster.AddDatabase] begins it from nothing.
	Start map[string]state.Position
	Lease Lease
}

// Term is a follower's time under one primary.
type Term struct {
	Epoch uint64 // of the primary; zero if there was none yet
	// Primary is the primary's ID. Empty means that there is none, that it was
	// this node in an earlier life, or that it is not known yet: the databases
	// stay fenced and readable.
	Primary string
	// Line is the history, the primary's reign included: what is off it in this
	// node's logs has diverged. It is empty as long as it is not known. It never
	// goes back from one term to the next.
	Line state.Line
}
