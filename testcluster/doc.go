// Package testcluster runs real lsnode processes together with real
// applications, and does to them what the world does: kills them, stops them,
// cuts the network between them. It knows lsnode only by its command line and
// its HTTP status, as a user does.
//
//	Cluster ── Start, Kill, Stop ──▶ Node: one lsnode process, its data dir, its log
//	   │                               │
//	   ├─ Network: a namespace a node,  ├─ Status: GET /v1/status
//	   │  a bridge between them, cuts   │
//	   │                               ▼
//	   └─ Compare, Verify ◀── databases ◀── app: writers, readers, probers (processes)
//	                               ▲
//	                            oracle: what was committed, noted outside
//
// Nothing is believed that lsnode says of itself: equal content is shown by the
// raw pages and the rows as another process reads them, and by the record of
// every commit that an application saw succeed. integrity_check alone proves
// nothing, and what was lost at a failover has to be found in quarantine, commit
// by commit.
//
// The package works without the testing package, since the demonstration and
// the benchmark use it too. Every process it starts dies with its own; every
// wait has an end; networks and files are its own and are removed.
//
// Tests run a short selection; LSNODE_LONG=1 in the environment runs the long
// one of the same tests. LSNODE_BIN names a binary to test instead of one built
// from this tree.
package testcluster
