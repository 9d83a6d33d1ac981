// Package state is what Raft replicates: who the nodes are, which databases
// there are, and who reigned from where. It is pure: no clock, no lock, no
// goroutine, no I/O. [Apply] takes a state and a command and returns a new
// state, the same on every node; a [State] handed out is never changed again,
// so that readers need no lock.
//
//	candidacy ──▶ Epoch+1, Candidate ──▶ (positions asked, files advanced) ──▶ promote
//	                                                                             │
//	History: [ {epoch 1, n1, starts} {epoch 2, n2, starts} … ] ◀─────────────────┘
//
// Invariants:
//   - The epoch counter only grows; a candidacy raises it by at least one.
//   - Only the newest candidacy can be promoted, once: the history holds at most
//     one reign for each epoch, in ascending order.
//   - The start positions of a reign are on the history's line as it was before.
//
// [Line] is the history as logs see it: which positions are on the line that
// leads to the newest reign, and where a log that left it has to be cut back.
//
// The package knows positions as three numbers; what they count is the data
// path's business.
package state
