// Package mux owns the one port over which nodes talk to each other: mutual TLS
// 1.3 on TCP, dispatched by ALPN, and the UDP socket of the same number.
//
//	accept ──▶ TLS handshake ──▶ ALPN "lsnode-rpc/1"    ──▶ handler(conn)
//	           (deadline,    ├─▶ ALPN "lsnode-raft/1"   ──▶ Listener ──▶ raft
//	            bounded      ├─▶ ALPN "lsnode-gossip/1" ──▶ Listener ──▶ memberlist
//	            number)      └─▶ anything else: closed
//
// Invariants: a handler only ever sees connections whose peer has proved to
// have the cluster token, and knows which node it is; whoever lacks the token
// gets nothing but a TLS alert, and can't keep others out: connections that
// have not finished the handshake are bounded in time and number, and if there
// are too many the oldest is dropped, since a node's own handshake takes
// milliseconds.
//
// An address may say which node is meant: "ID@host:port" ([At]). Dialling it
// fails with [ErrWrongNode] if another node answers there. Without this, a host
// whose data dir was lost, and which came back at its old address as a new
// node, would be taken for the old one: its promises and acknowledgements would
// count as those of a disk that is gone.
//
// The package knows nothing of what is said on the connections.
package mux
