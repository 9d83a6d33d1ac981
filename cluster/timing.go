package cluster

import (
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster/lease"
)

// Timing is all that decides how fast a cluster fails over, set together. All
// nodes of a cluster use the same.
type Timing struct {
	lease.Timing
	// Raft is the heartbeat and election timeout of Raft. Default 400 ms.
	Raft time.Duration
}

// TimingLAN is the default: for hosts a few milliseconds apart.
func TimingLAN() Timing {
	return Timing{
		Timing: lease.Timing{Renewal: 100 * time.Millisecond, Lease: 600 * time.Millisecond, Margin: 100 * time.Millisecond},
		Raft:   400 * time.Millisecond,
	}
}

// TimingWAN is for hosts up to a few hundred milliseconds apart.
func TimingWAN() Timing {
	return Timing{
		Timing: lease.Timing{Renewal: 500 * time.Millisecond, Lease: 4 * time.Second, Margin: 500 * time.Millisecond},
		Raft:   2 * time.Second,
	}
}

// ParseTiming returns the timing of a profile: "lan" (also "") or "wan".
func ParseTiming(profile string) (Timing, error) {
	switch profile {
	case "", "lan":
		return TimingLAN(), nil
	case "wan":
		return TimingWAN(), nil
	}
	return Timing{}, fmt.Errorf("parse timing %q: it is lan or wan", profile)
}

// now reads the clock of leases: it never steps, and goes on while the host is
// suspended.
func now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; without any clock no promise can
		// be given.
		panic("cluster: read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// wallTime returns the wall time, with monotonic reading, of an instant on the
// clock of leases.
func wallTime(at time.Duration) time.Time {
	if at == lease.Forever {
		return time.Unix(math.MaxInt32, 0).AddDate(1000, 0, 0)
	}
	return time.Now().Add(at - now())
}
