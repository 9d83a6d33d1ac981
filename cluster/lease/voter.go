package lease

import "time"

// Voter is the promising side, on every node, on the primary too. It lives as
// long as its process.
type Voter struct {
	timing   Timing
	promised uint64        // highest epoch of a position request it agreed to answer
	started  time.Duration // of the process
	held     time.Duration // end of the last promise
	fenced   uint64        // highest reign known to be fenced
	reigning uint64        // this node's own reign while it may write; 0: none
}

// NewVoter returns the voter of a process started at a time. promised is the
// highest epoch that it ever answered, kept on disk.
func NewVoter(timing Timing, promised uint64, started time.Duration) *Voter {
	return &Voter{timing: timing, promised: promised, started: started, held: started}
}

// Promised returns the highest epoch that it answered: nothing of a lower epoch
// may be accepted or acknowledged any more.
func (v *Voter) Promised() uint64 { return v.promised }

// Renew answers a primary's renewal and reports whether it promises. It does not
// promise to a lower epoch than it has answered, to one that is fenced, nor for
// longer than it would wait itself after a restart (the primary's lease).
func (v *Voter) Renew(now time.Duration, epoch uint64, lease time.Duration) bool {
	if epoch < v.promised || epoch <= v.fenced || lease > v.timing.Lease {
		return false
	}
	v.held = max(v.held, now+v.timing.Lease)
	return true
}

// Reign says that this node itself is primary in an epoch: until Fenced or
// Deposed it answers no higher epoch, however long that takes.
func (v *Voter) Reign(epoch uint64) { v.reigning = epoch }

// Deposed says that this node's reign is over although not all is fenced: it
// waits like any voter.
func (v *Voter) Deposed(now time.Duration) {
	v.reigning = 0
	v.held = max(v.held, now+v.timing.Lease)
}

// Fenced records the primary's word that it can't write any more in an epoch, nor
// can any primary of a lower one.
func (v *Voter) Fenced(epoch uint64) {
	v.fenced = max(v.fenced, epoch)
	if v.reigning <= epoch {
		v.reigning = 0
	}
}

// Decision is what a voter does with a position request.
type Decision struct {
	Answer bool          // promised now: make it durable, then answer
	Refuse bool          // it has answered a higher epoch: Promised says which
	Wait   time.Duration // otherwise ask again after this, or as soon as anything was fenced
}

// Ask decides on a position request of an epoch, whose candidacy was committed
// when reign was the newest reign (zero: there was none). If it says Answer, the
// promise holds in memory from this moment: no renewal of a lower epoch gets
// another answer.
func (v *Voter) Ask(now time.Duration, epoch, reign uint64) Decision {
	if epoch < v.promised {
		return Decision{Refuse: true}
	}
	if v.reigning != 0 {
		return Decision{Wait: v.timing.Renewal}
	}
	end := max(v.held, v.started+v.timing.Lease)
	if v.fenced < reign && now < end {
		return Decision{Wait: end - now}
	}
	v.promised = epoch
	return Decision{Answer: true}
}
