package stream

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Tables of page checksums are compared in ranges of rangePages pages, and a
// window of windowRanges ranges at a time: the client sends a hash of each
// range, the server says which differ, the client sends the sums of those. A
// range that is equal costs 16 bytes; what either side holds of the other's
// table is a window's, at most 1 MiB.
const (
	rangePages   = 256
	windowRanges = 512
	hashSize     = 16
)

// Sums is a table of page checksums; *pagesum.Table has it. It must not change
// while it is compared.
type Sums interface {
	// PageCount is how many pages the database has.
	PageCount() uint32
	// Entries copies the checksums of the pages from first on, and returns how
	// many there were. The lock-byte page has 0, and so may a page that is not
	// known.
	Entries(first uint32, sums []walstream.Checksum) int
}

// noSums is the table of nothing.
type noSums struct{}

func (noSums) PageCount() uint32                        { return 0 }
func (noSums) Entries(uint32, []walstream.Checksum) int { return 0 }

// rangeCount returns how many ranges a database of so many pages has.
func rangeCount(pages uint32) uint32 {
	return uint32((uint64(pages) + rangePages - 1) / rangePages)
}

// rangeFirst returns the first page of range n.
func rangeFirst(n uint32) uint32 { return n*rangePages + 1 }

// rangeLast returns the last page of range n in a database of so many pages.
func rangeLast(n, pages uint32) uint32 {
	return uint32(min((uint64(n)+1)*rangePages, uint64(pages)))
}

// rangeSums returns the checksums of those pages of range n that s has.
func rangeSums(s Sums, n uint32) []walstream.Checksum {
	sums := make([]walstream.Checksum, rangePages)
	return sums[:s.Entries(rangeFirst(n), sums)]
}

// rangeHash hashes what rangeSums returned. It is a cryptographic hash because
// tables may differ in ways that an XOR of the sums hides.
func rangeHash(sums []walstream.Checksum) [hashSize]byte {
	b := make([]byte, 0, rangePages*8)
	for _, sum := range sums {
		b = binary.BigEndian.AppendUint64(b, uint64(sum))
	}
	full := sha256.Sum256(b)
	return [hashSize]byte(full[:hashSize])
}

// isLockByte tells whether no is the page that SQLite never uses, which has no
// checksum and isn't sent.
func isLockByte(no, pageSize uint32) bool { return no == sqlitefile.LockBytePage(pageSize) }

// bitmap has one bit for each range of a window.
type bitmap []byte

func newBitmap(n int) bitmap      { return make(bitmap, (n+7)/8) }
func (b bitmap) set(i int)        { b[i/8] |= 1 << (i % 8) }
func (b bitmap) has(i int) bool   { return b[i/8]&(1<<(i%8)) != 0 }
func (b bitmap) valid(n int) bool { return len(b) == (n+7)/8 }
