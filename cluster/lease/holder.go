package lease

import (
	"math"
	"slices"
	"time"
)

// Forever is the end of a sole voter's lease.
const Forever = time.Duration(math.MaxInt64)

// Holder is the primary's side of the lease in one epoch. The zero time of its
// answers is "never": a new holder holds nothing until a majority has answered.
type Holder struct {
	epoch  uint64
	self   string
	timing Timing
	voters []string                 // of the newest configuration, committed or not
	sent   map[string]time.Duration // by node: send time of its newest answered renewal
	over   bool
}

// NewHolder returns the holder of an epoch's lease on node self.
func NewHolder(epoch uint64, self string, timing Timing) *Holder {
	return &Holder{epoch: epoch, self: self, timing: timing, sent: map[string]time.Duration{}}
}

// Epoch returns the epoch whose lease it is.
func (h *Holder) Epoch() uint64 { return h.epoch }

// SetVoters sets the voters of the newest configuration, also if it is not
// committed yet. Nodes that are about to become voters should have been renewed
// with before, so that the lease goes on.
func (h *Holder) SetVoters(ids []string) { h.voters = slices.Clone(ids) }

// Answered records that a node, voter or not, has promised in answer to a renewal
// sent at a time. The node itself is asked like any other.
func (h *Holder) Answered(node string, sent time.Duration) {
	if old, ok := h.sent[node]; !ok || sent > old {
		h.sent[node] = sent
	}
}

// Fresh tells whether a node's promise holds at a time, margin taken off.
func (h *Holder) Fresh(node string, now time.Duration) bool {
	sent, ok := h.sent[node]
	return ok && now < sent+h.timing.Lease-h.timing.Margin
}

// Resign ends the lease for good.
func (h *Holder) Resign() { h.over = true }

// Sole tells whether the node is the only voter: then nobody else can be
// primary, whatever becomes of its own reign.
func (h *Holder) Sole() bool { return len(h.voters) == 1 && h.voters[0] == h.self }

// Until returns when the lease ends: Lease − Margin after the send time of the
// last renewal that a majority answered; [Forever] for a sole voter; zero if there
// is none.
func (h *Holder) Until() time.Duration {
	if h.over || !slices.Contains(h.voters, h.self) {
		return 0
	}
	if len(h.voters) == 1 {
		return Forever
	}
	times := make([]time.Duration, 0, len(h.voters))
	for _, v := range h.voters {
		if t, ok := h.sent[v]; ok {
			times = append(times, t)
		}
	}
	need := len(h.voters)/2 + 1
	if len(times) < need {
		return 0
	}
	slices.Sort(times)
	return times[len(times)-need] + h.timing.Lease - h.timing.Margin
}

// Valid tells whether the primary may write at a time.
func (h *Holder) Valid(now time.Duration) bool { return now < h.Until() }
