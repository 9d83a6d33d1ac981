// Package walstream holds the words of the data path: transactions, positions,
// checksums, and the framing in which a transaction is logged and sent. The
// packages below it hold the data path itself, in the order in which data takes
// it:
//
//	            primary                                       followers
//	SQLite -wal ── capture ──▶ Txn ─┬▶ stream (NATS) ──▶ Txn ──▶ txlog ──▶ apply ──▶ SQLite -wal
//	                                └▶ txlog ──▶ archive
//
//	sqlitefile  SQLite's file formats, locks and wal-index; imports none of ours
//	pagesum     the table of page checksums
//	capture     the primary's WAL, read as transactions
//	txlog       the log of every node
//	stream      live messages, and pulling what is missing
//	apply       transactions, written to a live copy; the fence
//
// Nothing here knows of nodes, elections or object storage.
package walstream
