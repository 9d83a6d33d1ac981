package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// dialTimeout bounds one attempt to connect. Callers may wait less; who comes
// later shares the attempt. It is short because an attempt that was begun while
// the network was cut would otherwise outlive the cut: TCP repeats a lost SYN
// after one second, then two, then four.
const dialTimeout = time.Second

// peer is a node that is called: at most one connection, made when needed.
type peer struct {
	address string
	dial    Dialer
	ctx     context.Context // ends with close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // the attempts and the links

	mu      sync.Mutex
	link    *link    // the connection, possibly lost meanwhile; guarded by mu
	attempt *attempt // under way; guarded by mu
}

// attempt is one try to connect, shared by all calls that wait for it.
type attempt struct {
	done chan struct{} // closed when the fields below are set
	link *link
	err  error
}

func newPeer(address string, dial Dialer) *peer {
	p := &peer{address: address, dial: dial}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// connected returns the connection, made if there is none.
func (p *peer) connected(ctx context.Context) (*link, error) {
	p.mu.Lock()
	if p.link != nil && !p.link.isLost() {
		defer p.mu.Unlock()
		return p.link, nil
	}
	a := p.attempt
	if a == nil && p.ctx.Err() == nil {
		a = &attempt{done: make(chan struct{})}
		p.attempt = a
		p.wg.Go(func() { p.connect(a) })
	}
	p.mu.Unlock()
	if a == nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, ErrClosed)
	}
	select {
	case <-a.done:
		return a.link, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, ctx.Err())
	}
}

func (p *peer) connect(a *attempt) {
	ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
	defer cancel()
	conn, err := p.dial(ctx, p.address)

	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempt = nil
	if err != nil {
		a.err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	} else {
		a.link = newLink(p.ctx, &p.wg, conn)
		p.link = a.link
	}
	close(a.done)
}

// close ends the connection and the attempt, and waits for their goroutines.
func (p *peer) close() {
	p.cancel()
	p.wg.Wait()
}
