package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/secure"
)

// node is a port with both ends of the protocol.
type node struct {
	*mux.Mux
	server *rpc.Server
	client *rpc.Client
}

func newNode(t *testing.T, token secure.Token, id, address string) *node {
	t.Helper()
	credentials, err := secure.NewCredentials(token, id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Listen(t.Context(), mux.Config{Listen: address, Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{m, rpc.NewServer(slog.New(slog.DiscardHandler)), rpc.NewMuxClient(m)}
	n.server.ServeMux(t.Context(), m)
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	_ = n.client.Close()
	_ = n.Close()
}

func (n *node) address() string { return mux.At(n.NodeID(), n.Addr().String()) }

type greeting struct{ Text string }

func handleGreet(_ context.Context, from string, body []byte) (any, error) {
	var in greeting
	if err := rpc.Decode(body, &in); err != nil {
		return nil, err
	}
	return greeting{in.Text + " to you, " + from}, nil
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCall(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	b.server.Handle("greet", handleGreet)
	b.server.Handle("refuse", func(context.Context, string, []byte) (any, error) {
		return nil, fmt.Errorf("ask: %w", rpc.Errorf("too-early", "not before %d", 7))
	})
	b.server.Handle("panic", func(context.Context, string, []byte) (any, error) { panic("ouch") })

	var out greeting
	if err := a.client.Call(within(t, 20*time.Second), b.address(), "greet", greeting{"hello"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "hello to you, a"; out.Text != want {
		t.Errorf("got %q, want %q", out.Text, want)
	}
	for method, want := range map[string]string{
		"refuse": "too-early", "panic": rpc.CodeInternal, "nothing": rpc.CodeUnknownMethod,
	} {
		err := a.client.Call(within(t, 20*time.Second), b.address(), method, nil, nil)
		if got := rpc.Code(err); got != want {
			t.Errorf("%s: code %q (%v), want %q", method, got, err, want)
		}
	}
	err := a.client.Call(within(t, 20*time.Second), b.address(), "greet", 7, nil)
	if got := rpc.Code(err); got != rpc.CodeBadRequest {
		t.Errorf("wrong body: code %q (%v)", got, err)
	}
}

// TestCallsOverlap: a request that is held back delays no other.
func TestCallsOverlap(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	held, release := make(chan struct{}), make(chan struct{})
	b.server.Handle("hold", func(ctx context.Context, _ string, _ []byte) (any, error) {
		close(held)
		select {
		case <-release:
			return greeting{"at last"}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	b.server.Handle("greet", handleGreet)
	first := make(chan error, 1)
	go func() { first <- a.client.Call(within(t, 30*time.Second), b.address(), "hold", nil, nil) }()
	<-held

	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			var out greeting
			text := fmt.Sprint("hello ", i)
			err := a.client.Call(within(t, 30*time.Second), b.address(), "greet", greeting{text}, &out)
			if err != nil || out.Text != text+" to you, a" {
				t.Errorf("call %d: %q, %v", i, out.Text, err)
			}
		})
	}
	wg.Wait()
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestDeadlineTravels: the method's context ends when the caller gives up.
func TestDeadlineTravels(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	ended := make(chan error, 1)
	b.server.Handle("hold", func(ctx context.Context, _ string, _ []byte) (any, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	err := a.client.Call(within(t, 300*time.Millisecond), b.address(), "hold", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) && rpc.Code(err) != rpc.CodeInternal {
		t.Errorf("call: %v", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("method: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the method still runs")
	}
}

// TestPeerGoesAndComesBack: what is known is told apart, and the next call
// connects by itself, also to a peer that has restarted.
func TestPeerGoesAndComesBack(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	address := b.address()
	held := make(chan struct{})
	b.server.Handle("hold", func(ctx context.Context, _ string, _ []byte) (any, error) {
		close(held)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	lost := make(chan error, 1)
	go func() { lost <- a.client.Call(within(t, 30*time.Second), address, "hold", nil, nil) }()
	<-held
	b.stop()
	if err := <-lost; !errors.Is(err, rpc.ErrLost) {
		t.Errorf("call under way: %v, want ErrLost", err)
	}
	err := a.client.Call(within(t, 30*time.Second), address, "greet", greeting{"hello"}, nil)
	if !errors.Is(err, rpc.ErrUnreachable) {
		t.Errorf("call to nobody: %v, want ErrUnreachable", err)
	}

	_, hostport, _ := mux.SplitAddress(address)
	again := newNode(t, token, "b", hostport)
	again.server.Handle("greet", handleGreet)
	if err := a.client.Call(within(t, 30*time.Second), address, "greet", greeting{"hello"}, nil); err != nil {
		t.Error(err)
	}
	again.stop()

	// Another node at the same address is not the one that was meant.
	other := newNode(t, token, "other", hostport)
	var asked atomic.Bool
	other.server.Handle("greet", func(context.Context, string, []byte) (any, error) {
		asked.Store(true)
		return nil, nil
	})
	err = rpc.ErrLost
	for errors.Is(err, rpc.ErrLost) { // until the end of the old connection was noticed
		err = a.client.Call(within(t, 30*time.Second), address, "greet", greeting{"hello"}, nil)
	}
	if !errors.Is(err, rpc.ErrUnreachable) || !errors.Is(err, mux.ErrWrongNode) || asked.Load() {
		t.Errorf("call to another node at that address: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	b.server.Handle("grow", func(context.Context, string, []byte) (any, error) {
		return strings.Repeat("x", rpc.MaxFrame), nil
	})
	err := a.client.Call(within(t, 30*time.Second), b.address(), "grow", strings.Repeat("x", rpc.MaxFrame), nil)
	if !errors.Is(err, rpc.ErrTooLarge) {
		t.Errorf("request: %v", err)
	}
	err = a.client.Call(within(t, 30*time.Second), b.address(), "grow", nil, nil)
	if rpc.Code(err) != rpc.CodeInternal || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("response: %v", err)
	}
	var out string
	b.server.Handle("half", func(context.Context, string, []byte) (any, error) {
		return strings.Repeat("x", rpc.MaxFrame/2), nil
	})
	if err := a.client.Call(within(t, 30*time.Second), b.address(), "half", nil, &out); err != nil || len(out) != rpc.MaxFrame/2 {
		t.Errorf("large response: %d bytes, %v", len(out), err)
	}
}

// TestGarbageEndsTheConnectionOnly: a peer with the token that speaks nonsense
// loses its connection, and nobody else does.
func TestGarbageEndsTheConnectionOnly(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	b.server.Handle("greet", handleGreet)
	call := func() {
		t.Helper()
		if err := a.client.Call(within(t, 30*time.Second), b.address(), "greet", greeting{"hello"}, nil); err != nil {
			t.Error(err)
		}
	}
	call()
	conn, err := a.Dial(t.Context(), b.address(), rpc.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\xff\xff\xff\xffnonsense")
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("read %d bytes, %v; want the connection closed", n, err)
	}
	call()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestClosedClient(t *testing.T) {
	token := secure.NewToken()
	a, b := newNode(t, token, "a", "127.0.0.1:0"), newNode(t, token, "b", "127.0.0.1:0")
	b.server.Handle("greet", handleGreet)
	if err := a.client.Call(within(t, 30*time.Second), b.address(), "greet", greeting{}, nil); err != nil {
		t.Error(err)
	}
	if err := a.client.Close(); err != nil {
		t.Error(err)
	}
	err := a.client.Call(within(t, 30*time.Second), b.address(), "greet", greeting{}, nil)
	if !errors.Is(err, rpc.ErrClosed) {
		t.Errorf("call after close: %v", err)
	}
}

func BenchmarkCall(b *testing.B) {
	token := secure.NewToken()
	var nodes [2]*node
	for i := range nodes {
		credentials, _ := secure.NewCredentials(token, fmt.Sprint("n", i))
		m, err := mux.Listen(b.Context(), mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
		if err != nil {
			b.Fatal(err)
		}
		nodes[i] = &node{m, rpc.NewServer(slog.New(slog.DiscardHandler)), rpc.NewMuxClient(m)}
		nodes[i].server.ServeMux(b.Context(), m)
		defer nodes[i].stop()
	}
	nodes[1].server.Handle("greet", handleGreet)
	for b.Loop() {
		if err := nodes[0].client.Call(b.Context(), nodes[1].address(), "greet", greeting{"hello"}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
