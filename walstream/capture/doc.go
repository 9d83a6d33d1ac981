// Package capture reads the commits of a primary's database out of its WAL, and
// ships them as transactions: whole pages, the newest image of each.
//
//	application ──▶ -wal, -shm ──▶ Capture ──▶ Txn ──▶ Sink
//	                    ▲             │ wakes: inotify (Watcher), 1 s poll
//	                    │             ├─ hands         which read holds the WAL
//	                    │             ├─ reader, batch frames ─▶ newest pages
//	                    └─────────────┴─ checkpointer  keeps the WAL short
//
//	New ─▶ Resume ─────────────▶ Run … Run ─▶ Close
//	         └─ discontinuous: Rebase ─┘  ├─ Drain     everything shipped, writers held
//	                                      └─ Snapshot  a position, its pages, its table
//
// Invariants:
//
//   - No commit is missed. Capture always holds one of two kinds of read: on a
//     mark, so that the WAL can't restart; or on lock 0, begun when every frame
//     was copied, so that the WAL may restart once but none of its new frames can
//     be copied, so that it can't restart again. The newer read begins, everything
//     up to the MaxFrame seen after that is shipped, and only then the older one
//     ends.
//   - Nothing counts as committed that the wal-index does not say is: a commit
//     frame beyond its MaxFrame may never count.
//   - If the Sink fails, position, place and table stand where they stood.
//   - A start proves that the WAL continues where the log ends, or finds the
//     difference with the page checksums. Where neither is possible it is an error.
//   - A checkpoint of the application is not kept waiting: capture moves on to
//     lock 0 as soon as all is copied.
//
// What was found out about SQLite and shaped this:
//
//   - The wal-index moves after the last write to a file, so after the last
//     notification: by the fsync of the WAL (synchronous=FULL), or of the database
//     (checkpoints). Rather than to look for commit frames beyond MaxFrame, capture
//     asks who holds the write lock or the checkpoint lock (F_OFD_GETLK costs no
//     one anything), and looks again soon as long as somebody does.
//   - When a checkpoint has copied everything, it still has lock 0 for a moment,
//     and a read that begins then gets a mark. So lock 0 is taken with an OFD lock
//     first, and the read after that is on lock 0 for sure.
//   - A FULL, RESTART or TRUNCATE checkpoint looks at the mark of a read lock once,
//     and then waits for this lock, even when by then it belongs to a read at the
//     newest frame; and a newer read takes the same lock again. It would wait until
//     its busy timeout. Then capture keeps the WAL with a read lock that nobody
//     uses, and its read ends (hands.aside).
//   - Those checkpoints hold the write lock while they wait for readers. So nobody
//     who waits for the write lock may hold a read lock, or else has to go on
//     handing over meanwhile (holdWritersLocked).
//   - Beside an application that commits without a pause its own checkpoints never
//     come to their end, since capture's mark is always a commit behind, and from
//     1,000 frames on each of its commits tries one. So a restart is forced below
//     that, with writers held for a bounded share of the time. The sync of the last
//     few frames has to happen while they are: a WAL may only restart when the
//     database file is durable. All others happen before.
//   - An empty WAL proves nothing: after the last connection is gone, every
//     database has one, and its salts are 0.
//
// Content that is changed past SQLite while capture runs is noticed if page 1
// changes; at a start, if a sample of pages does. It does not open or close the
// database, decide what a difference means, write a mark, or know of other nodes.
package capture
