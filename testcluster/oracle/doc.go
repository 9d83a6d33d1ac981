// Package oracle remembers outside the database what was committed to it.
//
// A writer notes its intent before a transaction, and after COMMIT has returned
// that it holds. A note is one write to a file opened for appending, so it
// survives the writer's death by SIGKILL at any instant:
//
//	I seq crc    about to commit the row (worker, seq) whose payload has this CRC-32
//	C seq        COMMIT has returned without error
//	A seq        it did not happen: rolled back
//
// An intent without an end is in doubt: the row may be there or not. Afterwards
// every database is compared with the record row by row. What a check like
// integrity_check can't see is found here: a commit that is missing, one that
// nobody made, one with other content.
package oracle
