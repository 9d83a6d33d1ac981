package stream

import "sync"

// sendQueue holds messages for a NATS server outside the process, whose writes
// may block, and drops what would make it hold too many bytes. It owns one
// goroutine, which newSendQueue starts and close ends.
type sendQueue struct {
	limit int
	hand  func(subject string, data []byte) error // called by the goroutine alone

	mu struct {
		sync.Mutex
		waiting []queued
		bytes   int // of waiting
		closed  bool
	}
	wake chan struct{} // holds one token when waiting or closed changed
	done chan struct{} // closed when the goroutine has ended
}

type queued struct {
	subject string
	data    []byte
}

func newSendQueue(limit int, hand func(string, []byte) error) *sendQueue {
	q := &sendQueue{limit: limit, hand: hand, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.loop() // close waits for done
	return q
}

// put takes a message, or says that the queue is full or closed. It never waits.
func (q *sendQueue) put(subject string, data []byte) bool {
	q.mu.Lock()
	if q.mu.closed || q.mu.bytes+len(data) > q.limit {
		q.mu.Unlock()
		return false
	}
	q.mu.waiting = append(q.mu.waiting, queued{subject, data})
	q.mu.bytes += len(data)
	q.mu.Unlock()
	q.signal()
	return true
}

// close hands on what waits and ends the goroutine.
func (q *sendQueue) close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	q.signal()
	<-q.done
}

func (q *sendQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *sendQueue) loop() {
	defer close(q.done)
	for range q.wake {
		batch, closed := q.take()
		for _, m := range batch {
			// The publisher counts what NATS refuses; followers pull it.
			_ = q.hand(m.subject, m.data)
			q.sent(len(m.data))
		}
		if closed {
			return
		}
	}
}

func (q *sendQueue) take() ([]queued, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.mu.waiting
	q.mu.waiting = nil
	return batch, q.mu.closed
}

func (q *sendQueue) sent(n int) {
	q.mu.Lock()
	q.mu.bytes -= n
	q.mu.Unlock()
}
