// Package lease is the time side of "one writer": when a primary may write, and
// when a voter may help to make another one. It is pure: no clock, no lock, no
// goroutine, no I/O. Times are durations since an arbitrary origin on a clock of
// the node's own that never steps; nodes' clocks need the same rate, not the same
// origin.
//
//	primary (Holder)        send ──────────┐                 may write until send + L − margin
//	                                        ▼                │
//	voter (Voter)                       promise ─────────────┼──── L ────▶ may answer a higher epoch
//
// A voter's answer to a renewal is a promise: until L after it, and until L after
// the voter's own start (it may have promised before, and forgotten), it answers
// no position request of a higher epoch. The primary counts from the time at
// which it sent the renewal, which is earlier than the promise, and stops margin
// before: so its time is over before the promises of any majority are, whatever
// Raft's own timers do.
//
// Only the primary's own word "fenced" ends the wait early. A request names the
// newest reign that was committed before its candidacy; no reign can be committed
// between the two any more. So if that reign is fenced, no primary below the
// request's epoch can write, and promises to any of them are void.
//
// What it does not do: make anything durable. A voter's highest answered epoch
// has to be on disk before the answer leaves, which is its caller's part.
package lease
