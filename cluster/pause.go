package cluster

import (
	"context"
	"time"
)

// The pauses between repeated attempts.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// pause is a wait that grows while attempts fail. Its zero value is ready.
type pause struct{ next time.Duration }

// reset says that an attempt has succeeded.
func (p *pause) reset() { p.next = 0 }

// wait waits until the next attempt is due, or ctx ends, or one of the channels
// that say that something has changed is closed.
func (p *pause) wait(ctx context.Context, changed ...<-chan struct{}) {
	p.next = min(max(2*p.next, minPause), maxPause)
	timer := time.NewTimer(p.next)
	defer timer.Stop()
	var any <-chan struct{}
	if len(changed) > 0 {
		any = changed[0]
	}
	select {
	case <-timer.C:
	case <-any:
	case <-ctx.Done():
	}
}
