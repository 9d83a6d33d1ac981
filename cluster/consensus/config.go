package consensus

import (
	"errors"
	"log/slog"
	"time"

	"github.com/lsnode/lsnode/cluster/mux"
)

// Protocol is the ALPN of Raft's connections.
const Protocol = "lsnode-raft/1"

// Timing is how fast Raft is. All nodes of a cluster should have the same.
type Timing struct {
	// Heartbeat is the time without a leader's sign of life after which a node
	// thinks about an election; a leader sends ten in that time. Default 400 ms.
	Heartbeat time.Duration
	// Election is the time after which an undecided election is repeated, and the
	// bound of a leadership transfer. At least Heartbeat. Default Heartbeat.
	Election time.Duration
	// LeaderLease is the time without answers of a majority after which a leader
	// gives up. At most Heartbeat. Default Heartbeat.
	LeaderLease time.Duration
	// Commit is the time after which followers learn, at the latest, that an entry
	// is committed. The leader itself does not wait for it. Default 10 ms.
	Commit time.Duration
	// Network bounds one request, and one attempt to connect. Default 2 s.
	Network time.Duration
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	set(&t.Heartbeat, 400*time.Millisecond)
	set(&t.Election, t.Heartbeat)
	set(&t.LeaderLease, t.Heartbeat)
	set(&t.Commit, 10*time.Millisecond)
	set(&t.Network, 2*time.Second)
	return t
}

// Machine is the replicated state. Its methods are called by one goroutine at a
// time, and on every node with the same commands in the same order.
type Machine interface {
	// Apply executes a committed command. It must depend on nothing but the state
	// and the command. What it returns is the result of [Consensus.Apply] on the
	// node that proposed it.
	Apply(index uint64, command []byte) any
	// Snapshot returns the whole state, encoded.
	Snapshot() ([]byte, error)
	// Restore replaces the whole state with what some Snapshot returned, possibly
	// that of another node or another version of the program.
	Restore(snapshot []byte) error
}

// Config says what [Open] works with. The fields without a default must be set.
type Config struct {
	// Dir is the directory for the log and the snapshots, this node's alone. It
	// is made if need be.
	Dir string
	// Mux is the node's port.
	Mux *mux.Mux
	// Advertise is this node's own address, "host:port". Default: what Mux
	// listens on.
	Advertise string
	// Resolve returns the current address, "host:port", of a node, or "" if it
	// knows none; then the one from the configuration is used. Default none.
	Resolve func(nodeID string) string
	// Refuse tells whose connections are not accepted: Raft itself believes anyone
	// who calls itself leader. Default nobody's.
	Refuse func(nodeID string) bool
	// Machine is the replicated state.
	Machine Machine
	// Timing is how fast elections are. Default as its fields say.
	Timing Timing
	// Logger gets what happens. Default none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Mux == nil || c.Machine == nil {
		return c, errors.New("directory, port and machine must be given")
	}
	if c.Advertise == "" {
		c.Advertise = c.Mux.Addr().String()
	}
	if c.Resolve == nil {
		c.Resolve = func(string) string { return "" }
	}
	if c.Refuse == nil {
		c.Refuse = func(string) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Timing = c.Timing.withDefaults()
	return c, nil
}
