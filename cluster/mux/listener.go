package mux

import (
	"net"
	"sync"
)

// Listener is the accepted connections of one protocol, for code that wants to
// accept them itself.
type Listener struct {
	mux   *Mux
	alpn  string
	conns chan *Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

var _ net.Listener = (*Listener)(nil)

// Listener makes a listener the handler of a protocol. Until its connections
// are accepted they wait.
func (m *Mux) Listener(alpn string) *Listener {
	l := &Listener{mux: m, alpn: alpn, conns: make(chan *Conn), done: make(chan struct{})}
	m.Handle(alpn, l.offer)
	return l
}

func (l *Listener) offer(conn *Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		_ = conn.Close()
	case <-l.mux.ctx.Done():
		_ = conn.Close()
	}
}

// Accept returns the next connection, a *[Conn], or an error that wraps
// [net.ErrClosed] after Close, also that of the mux.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
	case <-l.mux.ctx.Done():
	}
	return nil, ErrClosed
}

// Close ends Accept and takes the handler away. Accepted connections stay open.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.mux.Handle(l.alpn, nil)
		close(l.done)
	})
	return nil
}

// Addr returns the address of the node's port.
func (l *Listener) Addr() net.Addr { return l.mux.Addr() }
