package lease

import (
	"errors"
	"fmt"
	"time"
)

// Timing is the one timing table. All nodes of a cluster use the same.
type Timing struct {
	Renewal time.Duration // how often a primary renews. Default 100 ms.
	Lease   time.Duration // L: how long a promise holds. Default 600 ms.
	Margin  time.Duration // how long before its end a primary stops. Default 100 ms.
}

// ErrTiming is wrapped by what is said of timings that don't fit together.
var ErrTiming = errors.New("timings do not fit together")

// Validate tells whether a primary can hold a lease with these timings: it needs
// two renewals, one of which may be lost, before the margin begins.
func (t Timing) Validate() error {
	if t.Renewal <= 0 || t.Margin < 0 || t.Lease < t.Margin+2*t.Renewal {
		return fmt.Errorf("%w: lease %v must be at least margin %v and two renewals of %v", ErrTiming, t.Lease, t.Margin, t.Renewal)
	}
	return nil
}
