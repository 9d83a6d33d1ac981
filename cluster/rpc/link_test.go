package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// pipes is a dialer whose connections are pipes; the other ends come out of
// accept.
type pipes struct {
	accept chan net.Conn
}

func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.accept <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestPeerThatReadsNothing(t *testing.T) {
	p := &pipes{accept: make(chan net.Conn, 1)}
	client := NewClient(p.dial)
	defer client.Close()
	var wg sync.WaitGroup
	for range 200 { // more than may wait to be written
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			begin := time.Now()
			err := client.Call(ctx, "b", "x", nil, nil)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call: %v", err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	wg.Wait()
	_ = (<-p.accept).Close()
}

// TestStrangeAnswers: to calls that nobody waits for, and requests, sent to a
// client.
func TestStrangeAnswers(t *testing.T) {
	p := &pipes{accept: make(chan net.Conn)}
	client := NewClient(p.dial)
	defer client.Close()
	result := make(chan error, 1)
	call := func() {
		var out string
		err := client.Call(t.Context(), "b", "x", nil, &out)
		if err == nil && out != "right" {
			err = errors.New("got " + out)
		}
		result <- err
	}
	send := func(conn net.Conn, f frame) {
		if _, err := conn.Write(encode(t, f)); err != nil {
			t.Error(err)
		}
	}

	go call()
	conn := <-p.accept
	request, err := readFrame(conn)
	if err != nil {
		t.Fatal(err)
	}
	send(conn, frame{kind: kindResponse, call: request.call + 1, body: []byte(`"wrong"`)})
	send(conn, frame{kind: kindResponse, call: request.call, body: []byte(`"right"`)})
	send(conn, frame{kind: kindResponse, call: request.call, body: []byte(`"again"`)})
	if err := <-result; err != nil {
		t.Error(err)
	}

	go call()
	if request, err = readFrame(conn); err != nil {
		t.Fatal(err)
	}
	send(conn, frame{kind: kindResponse, call: request.call, body: []byte(`not JSON`)})
	if err := <-result; err == nil {
		t.Error("what is no JSON was accepted")
	}

	go call()
	if request, err = readFrame(conn); err != nil {
		t.Fatal(err)
	}
	send(conn, frame{kind: kindRequest, call: request.call})
	if err := <-result; !errors.Is(err, ErrLost) || !errors.Is(err, ErrFrame) {
		t.Errorf("a request as an answer: %v", err)
	}
}

func TestForget(t *testing.T) {
	p := &pipes{accept: make(chan net.Conn)}
	client := NewClient(p.dial)
	defer client.Close()
	result := make(chan error, 1)
	go func() { result <- client.Call(t.Context(), "b", "x", nil, nil) }()
	conn := <-p.accept
	if _, err := readFrame(conn); err != nil {
		t.Fatal(err)
	}
	client.Forget("b")
	client.Forget("nobody")
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Errorf("call: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection: %v", err)
	}
}

// TestServeEndsWithItsContext: and cancels what it has called.
func TestServeEndsWithItsContext(t *testing.T) {
	here, there := net.Pipe()
	server := NewServer(slog.New(slog.DiscardHandler))
	called := make(chan struct{})
	server.Handle("hold", func(ctx context.Context, _ string, _ []byte) (any, error) {
		close(called)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		server.Serve(ctx, there, "a")
		close(served)
	}()
	if _, err := here.Write(encode(t, frame{kind: kindRequest, name: "hold"})); err != nil {
		t.Fatal(err)
	}
	<-called
	cancel()
	select {
	case <-served:
	case <-time.After(30 * time.Second):
		t.Error("it does not end")
	}
}
