package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lsnode/lsnode/cluster/secure"
)

var (
	// ErrWrongNode is wrapped when another node than the one meant answers at an
	// address.
	ErrWrongNode = errors.New("another node answers at this address")
	// ErrClosed is wrapped by calls after [Mux.Close].
	ErrClosed = fmt.Errorf("the node's port is closed: %w", net.ErrClosed)
)

// Config says where and how nodes are talked to.
type Config struct {
	// Listen is the address to listen on, TCP and UDP; port 0 means a free one.
	// Default "0.0.0.0:7400".
	Listen string
	// Credentials prove the token. No default.
	Credentials *secure.Credentials
	// HandshakeTimeout bounds the time from accepting or dialling a connection
	// to the end of its handshake. Default 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds how many accepted connections may be without a
	// finished handshake. Default 256.
	MaxHandshakes int
	// Logger gets what happens. Default none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "0.0.0.0:7400"
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 256
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Handler talks to a peer. It owns the connection and closes it, or gives it to
// someone who does. [Mux.Close] closes it as well, and waits for the handler.
type Handler func(conn *Conn)

// Mux is a node's port. Its methods are safe for concurrent use.
type Mux struct {
	config  Config
	tcp     net.Listener
	udp     net.PacketConn
	server  *tls.Config
	pending *pending
	wg      sync.WaitGroup // the accept loop, handshakes and handlers
	ctx     context.Context
	cancel  context.CancelFunc

	mu       sync.Mutex
	handlers map[string]Handler // by ALPN; guarded by mu
	conns    map[*Conn]struct{} // accepted and dialled, open; guarded by mu
	closed   bool               // guarded by mu
}

// Listen binds the port, TCP and UDP, and accepts connections until Close. What
// has no handler yet is refused.
func Listen(ctx context.Context, config Config) (*Mux, error) {
	config = config.withDefaults()
	if config.Credentials == nil {
		return nil, errors.New("listen for nodes: no credentials")
	}
	tcp, udp, err := bind(ctx, config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for nodes: %w", err)
	}
	m := &Mux{
		config: config, tcp: tcp, udp: udp,
		pending:  newPending(config.MaxHandshakes),
		handlers: make(map[string]Handler),
		conns:    make(map[*Conn]struct{}),
	}
	m.server = config.Credentials.ServerConfig(m.protocols)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(m.acceptLoop)
	return m, nil
}

// Addr returns the TCP address that is listened on.
func (m *Mux) Addr() *net.TCPAddr { return m.tcp.Addr().(*net.TCPAddr) }

// NodeID returns this node's ID.
func (m *Mux) NodeID() string { return m.config.Credentials.NodeID() }

// PacketConn returns the UDP socket of the same port number. Nothing here
// protects it: whoever uses it encrypts. It is closed by Close.
func (m *Mux) PacketConn() net.PacketConn { return m.udp }

// Handle sets the handler for a protocol from now on. Each connection gets a
// goroutine of its own. A nil handler takes it away; connections that are open
// stay.
func (m *Mux) Handle(alpn string, h Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h == nil {
		delete(m.handlers, alpn)
		return
	}
	m.handlers[alpn] = h
}

// Close stops listening, closes all connections, accepted and dialled, and
// waits for all handlers.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	conns := make([]*Conn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()

	m.cancel()
	err := errors.Join(m.tcp.Close(), m.udp.Close())
	m.pending.closeAll()
	for _, c := range conns {
		_ = c.Close() // it is given up; what was said on it is its protocol's matter
	}
	m.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil // closed before
	}
	return err
}

// protocols returns what is spoken here right now.
func (m *Mux) protocols() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.handlers))
	for name := range m.handlers {
		names = append(names, name)
	}
	return names
}

// acceptLoop accepts until the listener is closed. Other errors (no more file
// descriptors, say) pass: it tries again after a moment.
func (m *Mux) acceptLoop() {
	var delay time.Duration
	for {
		conn, err := m.tcp.Accept()
		if err == nil {
			delay = 0
			done := m.pending.add(conn)
			m.wg.Go(func() { m.welcome(conn.(*net.TCPConn), done) })
			continue
		}
		if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		m.config.Logger.Warn("accept node connection", "error", err, "retry_in", delay)
		select {
		case <-time.After(delay):
		case <-m.ctx.Done():
		}
	}
}

// welcome does the handshake of an accepted connection and runs its handler.
func (m *Mux) welcome(tcp *net.TCPConn, done func()) {
	conn, err := m.handshake(m.ctx, tcp, tls.Server(tcp, m.server))
	done()
	if err != nil {
		// Anyone who can reach the port can cause this line: not above debug.
		m.config.Logger.Debug("refuse connection", "from", tcp.RemoteAddr().String(), "error", err)
		return
	}
	m.mu.Lock()
	handler := m.handlers[conn.Protocol()]
	m.mu.Unlock()
	if handler == nil { // taken away during the handshake
		_ = conn.Close()
		return
	}
	handler(conn)
}

// Dial connects to a node ("host:port", or "ID@host:port" for that node alone)
// and returns when the handshake is done. The connection does not depend on ctx
// afterwards.
func (m *Mux) Dial(ctx context.Context, address, alpn string) (*Conn, error) {
	nodeID, hostport, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()

	dialer := net.Dialer{KeepAliveConfig: keepAlive()}
	raw, err := dialer.DialContext(ctx, "tcp", hostport)
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w", address, err)
	}
	tcp := raw.(*net.TCPConn)
	conn, err := m.handshake(ctx, tcp, tls.Client(tcp, m.config.Credentials.ClientConfig(alpn)))
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w", address, err)
	}
	if nodeID != "" && conn.Peer() != nodeID {
		_ = conn.Close()
		return nil, fmt.Errorf("dial node %s: %w: %s", address, ErrWrongNode, conn.Peer())
	}
	return conn, nil
}

// handshake makes a Conn of either end of a TCP connection, which it closes on
// an error.
func (m *Mux) handshake(ctx context.Context, tcp *net.TCPConn, conn *tls.Conn) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.HandshakeTimeout)
	defer cancel()
	// TCP_NODELAY is what Go sets by itself.
	c, err := m.identify(ctx, tcp, conn)
	if err != nil {
		_ = tcp.Close() // the handshake's error is the one that counts
		return nil, err
	}
	return c, nil
}

func (m *Mux) identify(ctx context.Context, tcp *net.TCPConn, conn *tls.Conn) (*Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	peer, err := secure.PeerID(state)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, tcp: tcp, peer: peer, protocol: state.NegotiatedProtocol, forget: m.forget}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	m.conns[c] = struct{}{}
	return c, nil
}

func (m *Mux) forget(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
}

// bind takes a port for TCP and UDP both. If any free one will do, the one that
// TCP got may be taken for UDP: then another is tried.
func bind(ctx context.Context, address string) (net.Listener, net.PacketConn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	listen := net.ListenConfig{KeepAliveConfig: keepAlive()}
	for attempt := 0; ; attempt++ {
		tcp, err := listen.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, nil, err
		}
		udp, err := listen.ListenPacket(ctx, "udp", withPort(address, tcp.Addr()))
		if err == nil {
			return tcp, udp, nil
		}
		if err = errors.Join(err, tcp.Close()); port != "0" || attempt == 10 {
			return nil, nil, err
		}
	}
}

func withPort(address string, bound net.Addr) string {
	host, _, _ := net.SplitHostPort(address)
	_, port, _ := net.SplitHostPort(bound.String())
	return net.JoinHostPort(host, port)
}

// keepAlive finds out within about six seconds that the host at the other end
// of an idle connection is gone.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3}
}

var _ io.Closer = (*Mux)(nil)
