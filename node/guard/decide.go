package guard

import "time"

// What a guard does next.
type step int

const (
	stepWait  step = iota // look again after decision.wait, or when anything happens
	stepFence             // fence all that is open and tell the voters
	stepLeave             // nothing is left to do
)

const (
	// lookEvery bounds how long a guard does not look at the page: a lease may
	// get shorter when voters are added, which happens after each has promised.
	lookEvery = 100 * time.Millisecond
	// idleEvery is the same while no database is open.
	idleEvery = 250 * time.Millisecond
)

type decision struct {
	step step
	wait time.Duration
}

// decide says what to do at a time, with the databases in v that were not dealt
// with yet.
func decide(now time.Duration, dead bool, v view) decision {
	busy := len(v.table.Databases) > 0 && v.deadline != forever
	switch {
	case v.leaving, dead && !busy:
		return decision{step: stepLeave}
	case dead:
		return decision{step: stepFence}
	case !busy:
		return decision{wait: idleEvery}
	}
	// The node gets a moment to do it itself: it knows the deadline as well, and
	// what it does costs least.
	due := v.deadline + headStart(v.table.Margin)
	if now >= due {
		return decision{step: stepFence}
	}
	return decision{wait: min(due-now, lookEvery)}
}

// headStart is how long after its lease's end a node may still be fencing by
// itself: well within the margin, at whose end others may open their copies.
func headStart(margin time.Duration) time.Duration { return margin / 4 }

// patience is how long after its lease's end a node that is not stopped may keep
// a write lock before it is killed. While it does nobody writes, so this is not
// urgent; a busy machine is the likelier reason.
func (v view) patience() time.Duration { return v.table.Lease }
