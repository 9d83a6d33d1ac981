package mux

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection whose handshake is done: the peer is a node of the
// cluster. It is closed with its [Mux].
type Conn struct {
	*tls.Conn
	peer     string
	protocol string
	tcp      *net.TCPConn
	forget   func(*Conn) // takes it off the mux's list
	once     sync.Once
	closeErr error // set within once
}

var _ net.Conn = (*Conn)(nil)

// Peer returns the ID of the node at the other end.
func (c *Conn) Peer() string { return c.peer }

// Protocol returns the ALPN that both ends agreed on.
func (c *Conn) Protocol() string { return c.protocol }

// Close ends the connection; reads and writes that wait return. Closing again
// returns the same error.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.forget(c)
		// TLS's own Close waits up to five seconds to say goodbye to a peer that
		// does not read; nobody here needs the goodbye, since every protocol
		// has framing of its own.
		c.closeErr = c.tcp.Close()
	})
	return c.closeErr
}

// SetPeerTimeout makes the kernel end the connection once data that was written
// has not been acknowledged for so long: the peer's host, or the way to it, is
// gone. It also counts the time in which a peer leaves its buffer full, so it is
// not for streams that rely on backpressure.
func (c *Conn) SetPeerTimeout(d time.Duration) error {
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("set peer timeout: %w", err)
	}
	var opt error
	err = raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err == nil {
		err = opt
	}
	if err != nil {
		return fmt.Errorf("set peer timeout: %w", err)
	}
	return nil
}
