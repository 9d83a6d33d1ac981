package rpc

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// link is the caller's end of one connection. Once lost it is never used again.
type link struct {
	conn  net.Conn
	queue chan []byte // frames to be written
	ctx   context.Context
	lose  context.CancelCauseFunc // ends ctx, and with it everything

	mu    sync.Mutex
	last  uint64                // the newest call's number; guarded by mu
	calls map[uint64]chan frame // that wait for their response; guarded by mu
}

// newLink uses conn until ctx ends. Its reader, writer and closer are counted in
// wg.
func newLink(ctx context.Context, wg *sync.WaitGroup, conn net.Conn) *link {
	l := &link{conn: conn, queue: make(chan []byte, 64), calls: make(map[uint64]chan frame)}
	l.ctx, l.lose = context.WithCancelCause(ctx)
	wg.Go(func() { l.lose(l.readLoop()) })
	wg.Go(func() { l.lose(l.writeLoop()) })
	wg.Go(func() {
		<-l.ctx.Done()
		_ = conn.Close() // ends both loops
	})
	return l
}

// isLost tells whether the connection has ended.
func (l *link) isLost() bool { return l.ctx.Err() != nil }

// call sends a request and waits for the response.
func (l *link) call(ctx context.Context, request frame) (frame, error) {
	answer := make(chan frame, 1)
	l.mu.Lock()
	l.last++
	request.call = l.last
	l.calls[request.call] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.calls, request.call)
		l.mu.Unlock()
	}()

	data, err := appendFrame(nil, request)
	if err != nil {
		return frame{}, err
	}
	select {
	case l.queue <- data:
	case <-ctx.Done():
		return frame{}, ctx.Err()
	case <-l.ctx.Done():
		return frame{}, fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(l.ctx))
	}
	select {
	case response := <-answer:
		return response, nil
	case <-ctx.Done():
		return frame{}, ctx.Err()
	case <-l.ctx.Done():
	}
	// The response may have come just before the end.
	select {
	case response := <-answer:
		return response, nil
	default:
		return frame{}, fmt.Errorf("%w: %w", ErrLost, context.Cause(l.ctx))
	}
}

func (l *link) readLoop() error {
	r := bufio.NewReader(l.conn)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		if f.kind == kindRequest {
			return fmt.Errorf("%w: request sent to a client", ErrFrame)
		}
		l.mu.Lock()
		answer := l.calls[f.call]
		delete(l.calls, f.call)
		l.mu.Unlock()
		if answer != nil { // else its caller waits no longer
			answer <- f
		}
	}
}

func (l *link) writeLoop() error {
	for {
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case data := <-l.queue:
			if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
			if _, err := l.conn.Write(data); err != nil {
				return err
			}
		}
	}
}
