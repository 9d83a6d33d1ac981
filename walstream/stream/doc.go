// Package stream moves transactions from the node that captured them to the
// nodes that apply them.
//
//	primary                                                   follower
//	Publisher ─▶ Broker (NATS, in process) ─▶ conn ─────────▶ Subscriber ─▶ handler
//	   │                                                          ┊ gap, or announced, or NATS lost
//	   └──────▶ external NATS (every message sealed) ──────────▶  ┊
//	Server (log, snapshots) ◀── conn, ordinary backpressure ───── Client: Since, Repair
//
// There are two ways, and the second alone would do:
//
//   - The live stream is fast and may lose messages. Small transactions travel
//     whole; a large one is announced and then pulled. Nothing that a follower
//     does can slow the publisher: what a slow one can't take is dropped for it,
//     and it finds the gap because a message says what position it follows on.
//   - The pull protocol is complete. A client asks any node for what that node's
//     log has after a position, once or for as long as it likes (so that it
//     replaces the live stream where NATS is lost), and it repairs or seeds a
//     copy by comparing tables of page checksums.
//
// Invariants:
//
//   - Order within one database is kept. A message is delivered once or not at
//     all, unless somebody on an external NATS repeats it: the receiver compares
//     its position with Pre, and refuses lower epochs.
//   - Nothing that a peer sends causes a panic or an allocation beyond a few MiB.
//     Each frame is checked by length and CRC before it is decoded.
//   - A peer that stalls is dropped by a deadline.
//   - Pages that don't match the sender's checksum table are never sent, and
//     pages that don't match the sum the sender gave are never delivered.
//
// The package doesn't know nodes or elections: connections come in as functions
// ([Dialer]) or accepted ones, and are authenticated already. It doesn't decide
// whether a transaction may be applied, and doesn't write a log or a database.
//
// Sealing uses XChaCha20-Poly1305, whose nonces of 192 bits may be random for any
// number of messages; with the 96 bits of AES-GCM a busy database would come
// near the safe bound within days.
package stream
