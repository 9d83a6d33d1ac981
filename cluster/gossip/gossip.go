package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/lsnode/lsnode/cluster/mux"
)

// maxRole bounds the length of a role that [Gossip.Announce] is given.
const maxRole = 32

// Gossip is this node's part. Its methods are safe for concurrent use.
type Gossip struct {
	config   Config
	members  *members
	list     *memberlist.Memberlist
	announce chan struct{} // there is news to be told; one is enough
	cancel   context.CancelFunc
	wg       sync.WaitGroup // the two loops

	mu     sync.Mutex
	closed bool // guarded by mu, which is held during a goodbye
}

// Open begins to gossip, with the nodes that config.Known names.
func Open(ctx context.Context, config Config) (*Gossip, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	self := meta{Name: config.Name, Address: config.Advertise, HTTP: config.HTTP, Version: config.Version}
	if err := self.check(); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	advertise, err := resolve(ctx, config.Advertise)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	g := &Gossip{
		config:   config,
		members:  newMembers(config.Mux.NodeID(), self, config.Logger),
		announce: make(chan struct{}, 1),
	}
	t := newTransport(config.Mux, advertise)
	name := startName(config.Mux.NodeID(), time.Now().UnixNano())
	if g.list, err = memberlist.Create(config.options(name, t, g.members)); err != nil {
		return nil, fmt.Errorf("open gossip: %w", errors.Join(err, t.Shutdown()))
	}
	loops, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.wg.Go(func() { g.announceLoop(loops) })
	g.wg.Go(func() { g.rejoinLoop(loops) })
	return g, nil
}

// Members returns all nodes that were heard of since Open, this one included,
// ordered by ID.
func (g *Gossip) Members() []Member { return g.members.get() }

// Member returns what is known of a node; ok is false if nothing is.
func (g *Gossip) Member(nodeID string) (m Member, ok bool) { return g.members.one(nodeID) }

// Alive tells whether a node seems to be alive.
func (g *Gossip) Alive(nodeID string) bool {
	m, _ := g.members.one(nodeID)
	return m.Alive
}

// Changed returns a channel that is closed at the next change of Members. Get it
// before looking.
func (g *Gossip) Changed() <-chan struct{} { return g.members.next() }

// Announce tells the others, soon, what this node does now. A role has at most
// 32 bytes. It does not block.
func (g *Gossip) Announce(role string, epoch uint64) {
	if !g.members.say(role[:min(len(role), maxRole)], epoch) {
		return
	}
	select {
	case g.announce <- struct{}{}:
	default: // the loop has not yet told the news before; it will tell both
	}
}

func (g *Gossip) announceLoop(ctx context.Context) {
	for {
		select {
		case <-g.announce:
			// It waits until one node has been told. If none can be, each exchange
			// with another node tells it later.
			_ = g.list.UpdateNode(time.Second)
		case <-ctx.Done():
			return
		}
	}
}

// rejoinLoop calls the nodes that ought to be there and are not alive.
func (g *Gossip) rejoinLoop(ctx context.Context) {
	ticker := time.NewTicker(g.config.Rejoin)
	defer ticker.Stop()
	for {
		for _, address := range g.config.Known() {
			if ctx.Err() != nil {
				return
			}
			g.call(address)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// call exchanges everything with a node, unless it is alive already.
func (g *Gossip) call(address string) {
	id, hostport, err := mux.SplitAddress(address)
	if err != nil || id == g.config.Mux.NodeID() || id != "" && g.Alive(id) || id == "" && g.isKnown(hostport) {
		return
	}
	if id != "" {
		hostport = id + "/" + hostport // memberlist's way to name who is meant
	}
	if _, err := g.list.Join([]string{hostport}); err != nil {
		g.config.Logger.Debug("call node", "part", "gossip", "address", address, "error", err)
	}
}

// isKnown tells whether a node that is alive, or this one, has the address.
func (g *Gossip) isKnown(hostport string) bool {
	if hostport == g.config.Advertise {
		return true
	}
	for _, m := range g.members.get() {
		if m.Alive && m.Address == hostport {
			return true
		}
	}
	return false
}

// Leave says goodbye, so that the others need not find out, and ends gossip. It
// waits until one node has heard it, for the given time at most.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	return errors.Join(g.list.Leave(timeout), g.closeLocked())
}

// Close ends gossip without a goodbye. The port stays open.
func (g *Gossip) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closeLocked()
}

func (g *Gossip) closeLocked() error {
	if g.closed {
		return nil
	}
	g.closed = true
	g.cancel()
	err := g.list.Shutdown() // ends what the loops may wait for
	g.wg.Wait()
	if err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

// resolve looks up a host and prefers IPv4, which most clusters of this kind use
// even where names have both.
func resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %q: %w", hostport, err)
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	best := addresses[0].Unmap()
	for _, a := range addresses {
		if a.Unmap().Is4() {
			best = a.Unmap()
			break
		}
	}
	return netip.AddrPortFrom(best, uint16(port)), nil
}
