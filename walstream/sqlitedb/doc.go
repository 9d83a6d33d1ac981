// Package sqlitedb owns everything that this process has open of a SQLite
// database: the three files and the SQLite connections.
//
//	DB ─┬─ Main, Wal, Shm   one descriptor each, opened once, closed last
//	    ├─ Index            the wal-index, mapped
//	    ├─ Conn …           SQLite connections, closed first
//	    └─ Snapshot …       pages as of one wal-index header, read raw
//
// Invariants:
//
//   - Closing any descriptor of a file drops all POSIX locks that SQLite holds
//     on it in the process. So a process has at most one DB for a file, nobody
//     else in it opens the database, its -wal or its -shm, and the descriptors
//     are closed after the last connection.
//   - While a DB is open, nobody is ever "the last one out", in any process: it
//     holds an OFD lock, shared, on the range of the database file that SQLite
//     locks exclusively before it deletes a WAL at the last close. It holds the
//     DMS byte of the -shm likewise. Nor do its own connections checkpoint or
//     delete the WAL when they are closed, or checkpoint at a commit.
//   - The write lock is taken from outside SQLite through DB.Shm(). OFD locks of
//     one descriptor do not exclude each other, so those who share a DB take it
//     with [DB.LockWrite], one after the other.
//
// It changes nothing in a database, except that it puts one in WAL mode when
// told to. It knows nothing of transactions, positions or other nodes.
package sqlitedb
