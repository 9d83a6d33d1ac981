// Package rpc carries small requests and responses between nodes, over one
// persistent connection for each peer that is called.
//
//	Client.Call ──▶ peer (one per address) ──▶ writer ──▶ TLS ──▶ Server ──▶ method ──▶ goroutine
//	     ▲                                                                      │
//	     └────────── by call number ◀── reader ◀────────────────────────────────┘
//
// A frame (all numbers big endian):
//
//	 0  4  length of what follows, at most 4 MiB
//	 4  1  version, 1
//	 5  1  kind: 1 request, 2 response, 3 error
//	 6  8  call number, chosen by the caller
//	14  4  request: milliseconds that the caller still waits; otherwise 0
//	18  1  length n of a name
//	19  n  request: the method's name; error: its code; response: empty
//	    …  request and response: the body, JSON; error: its text
//
// Any number of calls may be under way on a connection, and are answered in any
// order; so a request that is held back delays no other. A deadline travels as
// the time that is left, since clocks differ.
//
// A call is sent at most once and never repeated here: whether it may be is its
// method's matter. The errors tell what is known: [ErrUnreachable] means that
// the peer has not got the request; [ErrLost] that it may have; an [Error] is
// the peer's own answer. The next call after a lost connection dials anew.
//
// It is not for bulk data.
package rpc
