// Package gossip tells which nodes are alive and where they are, with
// hashicorp/memberlist over the node's port.
//
//	UDP, the port's number ──┐                                    ┌─▶ Members, Alive
//	                         ├─▶ memberlist ─▶ joined, left, ... ─┤
//	ALPN "lsnode-gossip/1" ──┘   (AES-256,                        └─▶ Changed
//	                              key from the token)
//
// It is for discovery, liveness and showing people what goes on, and nothing
// else: no decision that must be right rests on it. A node that it calls dead
// may live, and one that it calls alive may be gone.
//
// Each start of a process is a member of its own, named "NODE-ID.START", since
// memberlist would take a node that came back at another address for a conflict,
// and one that came back quickly for its former self. Members are shown by node
// ID, the newest start of each. Streams are dialled to the node ID that is meant.
//
// memberlist forgets the dead after a while, and two halves of a cluster that
// were cut apart would stay apart; so nodes that ought to be there (the caller
// says which) and are not alive are called again and again.
//
// What each node says about itself (name, addresses, role) is at most 512 bytes.
// Gossip of other clusters with the same token is ignored.
package gossip
