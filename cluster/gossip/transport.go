package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/lsnode/lsnode/cluster/mux"
)

// transport carries memberlist's packets over the port's UDP socket, and its
// streams over mutual TLS. memberlist encrypts both.
type transport struct {
	mux       *mux.Mux
	udp       net.PacketConn
	advertise netip.AddrPort
	listener  *mux.Listener
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	ctx       context.Context // ends with Shutdown
	cancel    context.CancelFunc
	wg        sync.WaitGroup // the two loops
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(m *mux.Mux, advertise netip.AddrPort) *transport {
	t := &transport{
		mux:       m,
		udp:       m.PacketConn(),
		advertise: advertise,
		listener:  m.Listener(Protocol),
		packets:   make(chan *memberlist.Packet),
		streams:   make(chan net.Conn),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.packetLoop)
	t.wg.Go(t.streamLoop)
	return t
}

// packetLoop hands packets to memberlist until Shutdown.
func (t *transport) packetLoop() {
	_ = t.udp.SetReadDeadline(time.Time{}) // a former Shutdown has set one
	buffer := make([]byte, 64<<10)
	for t.ctx.Err() == nil {
		n, from, err := t.udp.ReadFrom(buffer)
		if err != nil {
			// Either the end, or an ICMP error about something sent before, which
			// is of no interest; if it is neither, don't spin.
			select {
			case <-t.ctx.Done():
			case <-time.After(time.Millisecond):
			}
			continue
		}
		packet := &memberlist.Packet{Buf: append([]byte(nil), buffer[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packets <- packet:
		case <-t.ctx.Done():
		}
	}
}

// streamLoop hands accepted streams to memberlist until Shutdown.
func (t *transport) streamLoop() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		select {
		case t.streams <- conn:
		case <-t.ctx.Done():
			_ = conn.Close()
		}
	}
}

// FinalAdvertiseAddr implements [memberlist.Transport].
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// WriteTo implements [memberlist.Transport].
func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, fmt.Errorf("send packet: %w", err)
	}
	_, err = t.udp.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// WriteToAddress implements [memberlist.NodeAwareTransport].
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// PacketCh implements [memberlist.Transport].
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout implements [memberlist.Transport].
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

// DialAddressTimeout implements [memberlist.NodeAwareTransport]. If the address
// has a name, the node of that ID must answer.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	id, _, _ := strings.Cut(a.Name, ".")
	conn, err := t.mux.Dial(ctx, mux.At(id, a.Addr), Protocol)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// StreamCh implements [memberlist.Transport].
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements [memberlist.Transport]: the port stays open.
func (t *transport) Shutdown() error {
	t.cancel()
	err := t.listener.Close()
	_ = t.udp.SetReadDeadline(time.Now()) // wakes the loop, unless the port is closed anyway
	t.wg.Wait()
	return err
}
