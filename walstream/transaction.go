package walstream

import (
	"iter"
	"time"
)

// Kind says what a transaction does to the copy that applies it.
type Kind uint8

// The kinds. Their numbers are part of the log's and the wire's format.
const (
	// KindPages changes pages: the ordinary one.
	KindPages Kind = 1
	// KindEpoch is an epoch record: a new primary's first, without pages. TXID
	// and checksum stay, the epoch grows.
	KindEpoch Kind = 2
	// KindBase starts a database's log anew at a position without saying how the
	// content came to be (adopted, seeded, repaired). It has no pages and is
	// never shipped.
	KindBase Kind = 3
)

// Place says where in a primary's WAL a transaction ends. Only the node that
// captured it can use it: to resume with proof that nothing was missed. It is
// logged with the transaction. The zero value means "not captured here".
type Place struct {
	BootID  [16]byte // the host's boot
	Device  uint64   // of the database file
	Inode   uint64   // of the database file
	Salt    [2]uint32
	Frame   uint32    // the last frame of the transaction, 1-based; 0: WAL empty
	FrameCk [2]uint32 // that frame's running checksum
}

// Header is all of a transaction but its pages.
type Header struct {
	Database  string
	Kind      Kind
	PageSize  uint32
	PageCount uint32    // database size after it, in pages
	Time      time.Time // of the newest commit in it as the primary saw it, to the millisecond
	Pre       Position  // position before it; zero for KindBase
	Post      Position  // position after it; Post.TXID is its MaxTXID
	Place     Place
}

// MinTXID is the first commit that the transaction holds. Under load it
// coalesces several: MinTXID..Post.TXID.
func (h *Header) MinTXID() TXID { return h.Pre.TXID + 1 }

// Page is the newest image of one page. Page 1 is normalised (byte 18 is 2).
type Page struct {
	No   uint32
	Data []byte // as long as the page size
}

// Pages walks over the pages of a transaction in ascending order of their
// numbers. Data is valid until the next step only. After an error the walk
// ends. It may be walked more than once.
type Pages = iter.Seq2[Page, error]

// Txn is one shipped step: whole pages and the size of the database after it.
// A large one is not held in memory: its pages are read from the WAL or the log
// as they are walked over.
type Txn struct {
	Header
	Pages Pages
}

// NoPages is the walk over nothing.
func NoPages(func(Page, error) bool) {}
