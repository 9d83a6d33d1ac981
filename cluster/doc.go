// Package cluster decides who is primary, and lets the nodes of a cluster find
// and talk to each other. What the databases hold is not its business: it asks
// its [Data].
//
//	┌───────────────── Run: one role at a time, each a stack frame ───────────────────┐
//	│                                                                                 │
//	│  follow ──(Raft leader)──▶ candidate ──(promoted, lease held)──▶ reign ──┐      │
//	│    ▲   Data.Follow           │  Data.Positions, Advance           Data.Reign     │
//	│    └─────────────────────────┴──────────(lease or leadership lost)──────┘       │
//	└──────┬──────────────────────────┬───────────────────────────────┬───────────────┘
//	    consensus (Raft)        voter: promises              keeper: renewals, lease
//	    state (what it          promise.json                 lease (pure)
//	    replicates, pure)       lease (pure)
//	       └────────── rpc, gossip, raft over mux: one port, mutual TLS ─┘
//
// Invariants:
//   - At one instant at most one node may write, and none twice in one epoch.
//     This rests on the lease alone (package lease), never on Raft's own timers.
//   - A reign begins only with positions that a majority of the voters has
//     answered, after each has made durable that it accepts nothing of a lower
//     epoch any more.
//   - Voters change one at a time, and only in a reign whose lease is held: so
//     the majorities of two candidates that follow each other always meet.
//   - "Fenced" is said of an epoch only after [Data] has returned from its reign
//     without an error, or if the epoch's candidate has never been promoted
//     although a majority had answered it.
//
// Times are read from CLOCK_BOOTTIME: a host that was suspended finds its lease
// over when it resumes.
//
// What it does not do: store or send pages; decide what is on a node's disk.
package cluster
