// Package sqlitefile speaks SQLite's file formats, the layout of its wal-index
// and its locks, as SQLite's own documents "Database File Format" and "WAL-mode
// File Format" give them, and as wal.c does where they are silent. It imports
// none of ours.
//
//	page 1 of the database   ParseDBHeader, Mark, SetMark, Normalise
//	-wal                     WALHeader, FrameHeader, Checksum, FrameOffset
//	-shm: content            Index: header, marks, page numbers, lookup (read-only)
//	-shm: locks              TryLock, Lock, Unlock, Holder
//	-wal and -shm: writing   Writer: one commit, as SQLite's own writer does it
//
// It works on files that somebody else opened and will close. That owner keeps
// the rule on which all locking rests: closing any descriptor of a file drops
// every POSIX lock that SQLite holds on this file in the process, so the three
// files of a database are opened outside SQLite once, and closed after the last
// SQLite connection.
//
// Locks here are OFD locks: they belong to the open file, not to the process.
// Two users of the same *os.File never conflict with each other; both conflict
// with SQLite's POSIX locks, those of this process included.
//
// Integers in the database file and in the -wal are big-endian; the wal-index
// is in the byte order of the host. Nothing that is read from a file makes this
// package panic, loop without end or allocate by its size.
package sqlitefile
