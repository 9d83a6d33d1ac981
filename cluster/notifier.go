package cluster

import "sync"

// notifier wakes everyone who waits for a change. Its zero value is ready. Safe
// for concurrent use.
type notifier struct {
	mu sync.Mutex
	ch chan struct{} // closed at the next change; nil if nobody waits
}

// next returns a channel that is closed at the next change. Take it before
// looking at what may change.
func (n *notifier) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

// notify wakes all that wait.
func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
