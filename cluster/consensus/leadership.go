package consensus

import (
	"context"
	"sync"
)

// leadership is whether this node leads, so that no change is lost: whoever
// waits gets a context for each time that it leads.
type leadership struct {
	mu      sync.Mutex
	current context.Context    // ends with the leadership; nil while not leading; guarded by mu
	end     context.CancelFunc // of current; guarded by mu
	changed chan struct{}      // closed at the next change of any node's leadership; guarded by mu
}

func newLeadership() *leadership {
	return &leadership{changed: make(chan struct{})}
}

// set records that this node leads, or not any more, and returns the context of
// a leadership that begins.
func (l *leadership) set(leads bool) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		l.end()
	}
	l.current, l.end = nil, nil
	if leads {
		l.current, l.end = context.WithCancel(context.Background())
	}
	l.notifyLocked()
	return l.current
}

// notify wakes those who wait for a change.
func (l *leadership) notify() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notifyLocked()
}

func (l *leadership) notifyLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// get returns the current leadership, nil if there is none, and what is closed
// at the next change.
func (l *leadership) get() (current context.Context, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, l.changed
}
