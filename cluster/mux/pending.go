package mux

import (
	"container/list"
	"net"
	"sync"
)

// pending are the accepted connections whose handshake is not done, oldest
// first, bounded in number.
type pending struct {
	limit int

	mu    sync.Mutex
	conns *list.List // of net.Conn; guarded by mu
}

func newPending(limit int) *pending {
	return &pending{limit: limit, conns: list.New()}
}

// add puts a connection on the list. If there are too many the oldest is
// dropped. done takes it off again.
func (p *pending) add(conn net.Conn) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns.Len() >= p.limit {
		oldest := p.conns.Front()
		p.conns.Remove(oldest)
		_ = oldest.Value.(net.Conn).Close() // its handshake ends with an error
	}
	element := p.conns.PushBack(conn)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns.Remove(element) // does nothing if it was dropped
	}
}

// closeAll drops all of them.
func (p *pending) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.conns.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close()
	}
}
