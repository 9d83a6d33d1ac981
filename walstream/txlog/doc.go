// Package txlog is the log that every node keeps of all its databases: what it
// captured or received, in the order in which it came, on disk.
//
//	Append ─▶ write ─▶ 0000000000000007.log  ◀─ Since, Records ─▶ apply, stream, archive
//	Sync   ─▶ fsync, shared by all who wait
//
//	┌────────────┐ ┌────────────┐ ┌────────────┐
//	│head, roster│ │head, roster│ │head, roster│   roster: the last header of each
//	│records     │ │records     │ │records     │   database before the segment
//	│footer      │ │footer      │ │            │   footer: index of the segment
//	└────────────┘ └────────────┘ └────────────┘
//	  sealed         sealed         written to
//
// All databases share the log, so that one fsync serves them all. The records
// are those of package walstream, as they travel; see [walstream.Encode]. A
// transaction is one record or several, between which others may lie; it counts
// once its last record is written.
//
// # Invariants
//
//   - The transactions of a database form a line: each begins at the position at
//     which the one before it ends. What does not fit is refused.
//   - Nothing that Sync has covered is lost or changed by a crash; what it has
//     not may be missing or torn, from some point on to the end. Open cuts it
//     there. Marks in the log say what had been durable: damage to that is a
//     [CorruptError] and never cut off silently. (Assumed of the disk: bytes that
//     were synced survive a crash while others are appended in the same sector.)
//   - Bytes are only added; a tail is voided by adding a frame that says so.
//     Segments are dropped whole, from the oldest on. The only thing that is ever
//     cut is an incomplete transaction at the very end.
//   - Every record is checked by its CRC whenever it is read.
//   - After a failed write the log is as before it. After a failed fsync nothing
//     can be written until it is opened again, and opening writes everything anew
//     that was not known to be durable.
//   - Opening reads the footers of sealed segments, and the records of the last
//     one only.
//
// Segments are not preallocated. It would spare an fsync the journalling of the
// file's size only where the blocks have been written before, so with recycled
// files; and a full disk would no longer show where a transaction is appended.
// The fsync is not in the way of a commit's visibility, only of its
// acknowledgement. The format allows it later: zeros after the last record read
// as torn.
//
// The package knows nothing of epochs and elections beyond the order of
// positions, and does not apply, send or archive anything.
package txlog
