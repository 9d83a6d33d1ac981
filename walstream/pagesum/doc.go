// Package pagesum keeps the checksum of every page of a database, 8 bytes each,
// in memory with a file behind it. With it the checksum of the whole database
// after a step costs only the pages of the step, and two databases are compared
// without moving their content.
//
//	       Begin ─▶ Update: Set, Checksum ─▶ Commit ─▶ Table (memory)
//	                └─ dropped: nothing happened        │ Flush(position)
//	                                                   ▼
//	file:  slot 0 │ slot 1 │ entry of page 1, 2, 3 …   (slots: position, size, CRC)
//
// Durable order of a flush: the changed blocks of entries, fsync, then the slot
// that is not the newest one, fsync. So the newest valid slot always names a
// position at which the entries were, as a whole, on disk. After a crash
// entries of pages that changed after this position may already be newer. That
// is made good by replaying the log from the position on: it sets exactly those
// entries. (A log that starts anew at a position, without pages, breaks this:
// flush at once after it.) Therefore flush only positions that the log has on
// disk. Whether
// table and log agree is then told by comparing [Table.Checksum] with the log's
// last checksum; if they differ, throw the table away and scan.
//
// The checksum of a database, as LTX defines it, is the XOR of its pages'
// checksums. CRC is linear: the same change of the same bytes in two pages
// cancels out in it. So it is a check against mishaps, and comparing two
// databases goes by the entries: [Table.Ranges] hashes them with SHA-256.
//
// Nothing here reads a database; nothing is shared between processes.
package pagesum
