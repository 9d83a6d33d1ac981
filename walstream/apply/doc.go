// Package apply keeps a live copy of a database: it writes transactions into the
// copy's WAL as SQLite's own writer would, while any SQLite client on the host
// reads the copy. It also puts up and takes down the fence.
//
//	Create ─▶ a new copy, built aside, fenced
//	                                            ┌─────────── Run ───────────┐
//	Open ─▶ Fence ─▶ Apply, Apply, … ─▶ -wal ─▶ │ checkpoint, restart, record │
//	          ▲                                 └────────────────────────────┘
//	          └── Unfence ─▶ Place from which capture starts
//
// Invariants:
//
//   - A reader sees whole transactions, in order. The checksum of the database
//     after a transaction is compared with the transaction's own before anything
//     of it becomes visible; if it differs, readers keep the last good state.
//   - While a Replica is fenced, it holds the write lock, and page 1 carries the
//     mark that makes every SQLite client treat the copy as read-only. The lock
//     ends with the process; the mark does not.
//   - The WAL restarts only when all of it is in the database file, durably.
//
// # What is durable
//
// Nothing of Apply. Frames reach the disk when the WAL is fsynced: in [Replica.Sync], in
// a checkpoint, and whenever the position is recorded. Recording goes in this
// order, so that each thing that is on disk relies only on what was there before:
//
//  1. the log, up to what is recorded (the caller's SyncLog)
//  2. the WAL, fsynced: with the database file, which was fsynced before the WAL
//     last restarted, it holds everything that is visible
//  3. the page checksums, flushed at this position or a later one
//  4. the state file: this position
//
// So after a crash the copy holds at least the recorded position,
// [Replica.Start], possibly more, and possibly (power loss) more than the log.
// The caller applies everything from there to the log's end as one transaction,
// [Coalesce]: readers that saw something of it already never see an older or a
// mixed state. After power loss it also compares the result with the file.
//
// While it is unfenced, applications write; the record says so, and Start too.
// Then only the log of the node that captured knows what the file holds.
//
// A record is void for another file than the one it was made for: a copy that was restored over
// starts with no position.
//
// # What it does not do
//
// It fetches nothing, decides nothing about roles, and does not keep the log. It
// never replaces a file that others may have open. Transactions of another page
// size are refused: such a database is made anew.
package apply
