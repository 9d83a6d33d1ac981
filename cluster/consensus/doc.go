// Package consensus keeps the cluster's small replicated state with Raft, and
// says which node leads. It is a thin wrapper of hashicorp/raft: it gives it the
// node's port, files in the data dir, timing, and typed errors.
//
//	Apply ──▶ raft log (bbolt) ──▶ majority ──▶ Machine, on every node in the same order
//	                                  │
//	             over the node's port, ALPN "lsnode-raft/1", each peer by its node ID
//
// On disk, below the directory that it is given:
//
//	raft.db      log, term and vote (bbolt, fsync on every write)
//	snapshots/   the state, now and then, so that the log stays short
//
// # What leading means, and what it does not
//
// The leader of Raft is who may propose changes of the state, no more. It is not
// the primary, and its leader lease protects nothing here: who may write is
// decided by a lease of our own. [Consensus.Lead] gives a context that ends with
// the leadership, so that no loss goes unseen however short it was.
//
// Raft's pre-vote stays on. A node that comes back from a partition or a pause
// asks whether it would be elected before it raises the term, and so does not
// depose a leader that all others hear. It means that a node can only become
// leader while a majority has not heard from a leader for the election timeout,
// or when the leader itself hands over.
//
// # Differences from the library's defaults
//
//   - Peers are dialled by node ID at the address that a resolver knows now, and
//     the handshake proves the ID. The addresses in Raft's configuration are only
//     the fallback.
//   - After failures the library waits longer and longer before it replicates to
//     a peer again, up to ten seconds after one that was down for a while. Here a
//     failed request waits instead until the peer's heartbeats are answered (see
//     patientTransport), so that a node that comes back has the log at once.
//   - A node that is removed does not shut its Raft down by itself: what that
//     means is its owner's decision.
//
// No page of any database goes through here.
package consensus
