package rpc

import (
	"context"
	"net"
	"time"

	"github.com/lsnode/lsnode/cluster/mux"
)

// PeerTimeout is how long a peer's host may leave a request or a response
// unacknowledged before the connection is given up. It is the kernel at the
// other end that acknowledges, so this says nothing about how busy the process
// is. After a cut network heals, the next call then dials afresh instead of
// waiting for TCP's next repetition, which comes later and later.
const PeerTimeout = 2 * time.Second

// NewMuxClient returns a client that dials through a node's port. Addresses are
// "host:port" or "ID@host:port".
func NewMuxClient(m *mux.Mux) *Client { return NewClient(MuxDialer(m)) }

// MuxDialer dials through a node's port.
func MuxDialer(m *mux.Mux) Dialer {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := m.Dial(ctx, address, Protocol)
		if err != nil {
			return nil, err
		}
		if err := conn.SetPeerTimeout(PeerTimeout); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// ServeMux makes the server answer what comes to a node's port for [Protocol],
// until ctx ends or the port is closed.
func (s *Server) ServeMux(ctx context.Context, m *mux.Mux) {
	m.Handle(Protocol, func(conn *mux.Conn) {
		if err := conn.SetPeerTimeout(PeerTimeout); err != nil {
			s.logger.Warn("set up connection", "from", conn.Peer(), "error", err)
		}
		s.Serve(ctx, conn, conn.Peer())
	})
}
