package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

const echo = "lsnode-test/1"

func listen(t *testing.T, token secure.Token, id string, change func(*mux.Config)) *mux.Mux {
	t.Helper()
	credentials, err := secure.NewCredentials(token, id)
	if err != nil {
		t.Fatal(err)
	}
	config := mux.Config{Listen: "127.0.0.1:0", Credentials: credentials}
	if change != nil {
		change(&config)
	}
	m, err := mux.Listen(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// serveEcho answers each connection with the ID of the node at its other end.
func serveEcho(m *mux.Mux) {
	m.Handle(echo, func(conn *mux.Conn) {
		defer conn.Close()
		_, _ = io.WriteString(conn, "hello "+conn.Peer())
	})
}

func greet(t *testing.T, m *mux.Mux, address string) string {
	t.Helper()
	conn, err := m.Dial(t.Context(), address, echo)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + ", says " + conn.Peer()
}

func TestPeersKnowEachOther(t *testing.T) {
	token := secure.NewToken()
	a, b := listen(t, token, "node-a", nil), listen(t, token, "node-b", nil)
	serveEcho(b)
	if got, want := greet(t, a, b.Addr().String()), "hello node-a, says node-b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := greet(t, a, mux.At("node-b", b.Addr().String())), "hello node-a, says node-b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err := a.Dial(t.Context(), mux.At("node-c", b.Addr().String()), echo)
	if !errors.Is(err, mux.ErrWrongNode) {
		t.Errorf("dial a node that is not there: %v", err)
	}
	if got := b.PacketConn().LocalAddr().(*net.UDPAddr).Port; got != b.Addr().Port {
		t.Errorf("UDP has port %d, TCP %d", got, b.Addr().Port)
	}
}

// TestStrangers: whoever lacks the token, or speaks no known protocol, gets
// nothing, and disturbs nothing.
func TestStrangers(t *testing.T) {
	token := secure.NewToken()
	server, friend := listen(t, token, "server", nil), listen(t, token, "friend", nil)
	serveEcho(server)
	address := server.Addr().String()
	stranger := listen(t, secure.NewToken(), "stranger", nil)
	good, err := secure.NewCredentials(token, "good")
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := secure.NewCredentials(secure.NewToken(), "wrong")
	if err != nil {
		t.Fatal(err)
	}

	if _, err := stranger.Dial(t.Context(), address, echo); err == nil {
		t.Error("a node with another token was let in")
	}
	for name, config := range map[string]*tls.Config{
		"no certificate, knows the key ID": {InsecureSkipVerify: true, ServerName: good.ClientConfig(echo).ServerName, NextProtos: []string{echo}},
		"no certificate, no key ID":        {InsecureSkipVerify: true, NextProtos: []string{echo}},
		"foreign certificate, our key ID": func() *tls.Config {
			c := wrong.ClientConfig(echo)
			c.InsecureSkipVerify, c.ServerName = true, good.ClientConfig(echo).ServerName
			return c
		}(),
		"right token, unknown protocol": good.ClientConfig("lsnode-unknown/1"),
		"right token, no protocol": func() *tls.Config {
			c := good.ClientConfig(echo)
			c.NextProtos = nil
			return c
		}(),
		"right token, TLS 1.2": func() *tls.Config {
			c := good.ClientConfig(echo)
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			if got := knock(t, address, config); got != "" {
				t.Errorf("got %q", got)
			}
			if got, want := greet(t, friend, address), "hello friend, says server"; got != want {
				t.Errorf("afterwards a friend got %q", got)
			}
		})
	}
	t.Run("plain TCP", func(t *testing.T) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: lsnode\r\n\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		text, _ := io.ReadAll(conn)
		if len(text) > 16 { // a TLS alert record has 7
			t.Errorf("got %q", text)
		}
		if got, want := greet(t, friend, address), "hello friend, says server"; got != want {
			t.Errorf("afterwards a friend got %q", got)
		}
	})
}

// knock connects with a TLS configuration and returns what the server says.
func knock(t *testing.T, address string, config *tls.Config) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "anyone there?")
	text, err := io.ReadAll(conn)
	if err == nil && len(text) == 0 {
		t.Error("the connection ended as if it had been served")
	}
	return string(text)
}

// TestIdleStrangersDoNotBlock: connections that never begin the handshake are
// dropped in favour of new ones.
func TestIdleStrangersDoNotBlock(t *testing.T) {
	token := secure.NewToken()
	server := listen(t, token, "server", func(c *mux.Config) { c.MaxHandshakes = 4; c.HandshakeTimeout = time.Hour })
	serveEcho(server)
	friend := listen(t, token, "friend", nil)
	oldest := idle(t, server)
	for range 20 {
		idle(t, server)
	}
	if got, want := greet(t, friend, server.Addr().String()), "hello friend, says server"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	expectClosed(t, oldest)
}

// TestIdleStrangersAreDropped: also when nobody else comes.
func TestIdleStrangersAreDropped(t *testing.T) {
	server := listen(t, secure.NewToken(), "server", func(c *mux.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	expectClosed(t, idle(t, server))
}

// idle connects and says nothing.
func idle(t *testing.T, server *mux.Mux) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// expectClosed waits until the other end has closed the connection.
func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("got %v, want the connection closed", err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestListener(t *testing.T) {
	token := secure.NewToken()
	server, client := listen(t, token, "server", nil), listen(t, token, "client", nil)
	l := server.Listener(echo)
	dialled := make(chan error, 1)
	go func() {
		conn, err := client.Dial(context.Background(), server.Addr().String(), echo)
		if err == nil {
			_, err = io.WriteString(conn, "hi")
			err = errors.Join(err, conn.Close())
		}
		dialled <- err
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.(*mux.Conn).Peer(); got != "client" {
		t.Errorf("peer is %q", got)
	}
	text, _ := io.ReadAll(conn)
	if err := <-dialled; err != nil || string(text) != "hi" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err := client.Dial(t.Context(), server.Addr().String(), echo); err == nil {
		t.Error("a protocol without listener was accepted")
	}
}

// TestCloseEndsEverything: both directions, and it waits for handlers.
func TestCloseEndsEverything(t *testing.T) {
	token := secure.NewToken()
	server, client := listen(t, token, "server", nil), listen(t, token, "client", nil)
	var ended atomic.Bool
	entered := make(chan struct{})
	server.Handle(echo, func(conn *mux.Conn) {
		close(entered)
		_, _ = conn.Read(make([]byte, 1))
		ended.Store(true)
	})
	conn, err := client.Dial(t.Context(), server.Addr().String(), echo)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if !ended.Load() {
		t.Error("Close did not wait for the handler")
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection still lives")
	}
	if _, err := server.Dial(t.Context(), client.Addr().String(), echo); err == nil {
		t.Error("dialled through a closed port")
	}
	if err := server.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct{ address, id, hostport string }{
		{"10.0.0.1:7400", "", "10.0.0.1:7400"},
		{"n1@10.0.0.1:7400", "n1", "10.0.0.1:7400"},
		{"n1@[::1]:7400", "n1", "[::1]:7400"},
		{"db.example:7400", "", "db.example:7400"},
	} {
		id, hostport, err := mux.SplitAddress(c.address)
		if err != nil || id != c.id || hostport != c.hostport || mux.At(id, hostport) != c.address {
			t.Errorf("%q: %q, %q, %v", c.address, id, hostport, err)
		}
	}
	for _, bad := range []string{"", "n1", "n1@", "n1@host", "a@b@c:1:2"} {
		if _, _, err := mux.SplitAddress(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
