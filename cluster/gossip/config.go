package gossip

import (
	"errors"
	"io"
	"log"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/lsnode/lsnode/cluster/mux"
)

// Protocol is the ALPN of gossip's streams.
const Protocol = "lsnode-gossip/1"

// Config says what [Open] works with. The fields without a default must be set.
type Config struct {
	// Mux is the node's port.
	Mux *mux.Mux
	// Key is the gossip key, 32 bytes.
	Key []byte
	// Cluster is the cluster's ID; gossip with another one is ignored. Default
	// "".
	Cluster string
	// Advertise is where the others reach this node, "host:port". A name is looked
	// up once.
	Advertise string
	// Name is the node's name for people. Default "".
	Name string
	// HTTP is the address of the node's HTTP interface. Default "".
	HTTP string
	// Version is the program's. Default "".
	Version string
	// Known returns the addresses of the nodes that ought to be there, "host:port"
	// or "ID@host:port"; those that are not alive are called. Default none.
	Known func() []string
	// Probe is how often a node looks after another one; one that died is noticed
	// after about four times that. Default 500 ms.
	Probe time.Duration
	// Rejoin is how often nodes are called that ought to be there and are not
	// alive. Default 2 s.
	Rejoin time.Duration
	// Logger gets what happens. Default none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Mux == nil || len(c.Key) != 32 || c.Advertise == "" {
		return c, errors.New("port, key of 32 bytes, and address must be given")
	}
	if c.Known == nil {
		c.Known = func() []string { return nil }
	}
	if c.Probe == 0 {
		c.Probe = 500 * time.Millisecond
	}
	if c.Rejoin == 0 {
		c.Rejoin = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// options is memberlist's own configuration for a local network, with the lines
// that differ.
func (c Config) options(name string, t *transport, m *members) *memberlist.Config {
	o := memberlist.DefaultLANConfig()
	o.Name = name
	o.Transport = t
	o.Label = c.Cluster
	o.SecretKey = c.Key
	o.Delegate = m
	o.Events = m
	o.LogOutput = nil
	o.Logger = newLogger(c.Logger)
	o.ProbeInterval = c.Probe
	o.ProbeTimeout = c.Probe / 2
	o.SuspicionMult = 3
	o.SuspicionMaxTimeoutMult = 2
	o.AwarenessMaxMultiplier = 3
	o.GossipInterval = c.Probe / 5
	o.PushPullInterval = 20 * c.Probe
	o.TCPTimeout = streamTimeout
	return o
}

// streamTimeout bounds a whole exchange over a stream.
const streamTimeout = 3 * time.Second

// logLines turns memberlist's text lines into slog records. All are for
// debugging: it reports as errors what any stranger can cause with a UDP packet,
// and what matters, who comes and goes, is logged by this package.
type logLines struct {
	logger *slog.Logger
}

func newLogger(to *slog.Logger) *log.Logger {
	return log.New(&logLines{logger: to.With("part", "gossip")}, "", 0)
}

// Write implements [io.Writer]: p is one line.
func (l *logLines) Write(p []byte) (int, error) {
	n := len(p)
	for n > 0 && p[n-1] == '\n' {
		n--
	}
	l.logger.Debug(string(p[:n]))
	return len(p), nil
}

var _ io.Writer = (*logLines)(nil)
