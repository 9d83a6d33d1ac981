package pagesum

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// MaxPages is the largest size of a database that SQLite has, in pages.
const MaxPages = 0xfffffffe

// ErrPageSize is wrapped by what [Open] returns for a table of a database with
// another page size: the table is of no use then.
var ErrPageSize = errors.New("table has another page size")

// Table is the checksums of all pages of one database. It is safe for
// concurrent use; of several Updates begun at the same state only one may be
// committed.
type Table struct {
	pageSize uint32
	flushing sync.Mutex // held by the one flush that runs; taken before mu
	file     *file      // nil: in memory only; used under flushing

	mu struct {
		sync.RWMutex
		sums     []walstream.Checksum // of page i+1; 0: not known, or the lock-byte page
		checksum walstream.Checksum   // XOR of sums
		position walstream.Position   // of the last flush
		current  walstream.Position   // of the last commit, or of the file when opened
		dirty    map[uint32]struct{}  // blocks changed since the last flush
	}
}

// New returns an empty table that is kept in memory only.
func New(pageSize uint32) *Table {
	t := &Table{pageSize: pageSize}
	t.mu.checksum = walstream.ChecksumFlag
	return t
}

// Open opens the table in the file at path, or makes an empty one there.
// Errors: [ErrPageSize]; [ErrCorrupt] for a file that is no table or has lost
// both of its slots.
func Open(path string, pageSize uint32) (*Table, error) {
	if !sqlitefile.ValidPageSize(pageSize) {
		return nil, fmt.Errorf("open page checksums %s: page size %d is not one of SQLite's", path, pageSize)
	}
	f, slot, sums, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("open page checksums %s: %w", path, err)
	}
	if slot.pageSize != 0 && slot.pageSize != pageSize {
		err := fmt.Errorf("open page checksums %s: %w: %d, want %d", path, ErrPageSize, slot.pageSize, pageSize)
		return nil, errors.Join(err, f.close())
	}
	t := New(pageSize)
	t.file = f
	t.mu.sums = sums
	t.mu.position, t.mu.current = slot.position, slot.position
	t.mu.checksum = xor(sums)
	t.mu.dirty = map[uint32]struct{}{}
	return t, nil
}

// Close closes the file. What was not flushed is not in it. No flush may run.
func (t *Table) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.close()
}

// PageSize returns the page size in bytes.
func (t *Table) PageSize() uint32 { return t.pageSize }

// Position returns the position of the last flush: what the file is good for
// after a crash. It is zero if there was none.
func (t *Table) Position() walstream.Position {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.position
}

// Current returns the position that the last [Update.Commit] named; until there
// was one, that of the file.
func (t *Table) Current() walstream.Position {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.current
}

// PageCount returns the size of the database in pages.
func (t *Table) PageCount() uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return uint32(len(t.mu.sums))
}

// Checksum returns the checksum of the whole database. It costs nothing.
func (t *Table) Checksum() walstream.Checksum {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.checksum
}

// Get returns the checksum of a page; 0 if the page is beyond the end, is the
// lock-byte page, or was never set.
func (t *Table) Get(no uint32) walstream.Checksum {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.getLocked(no)
}

// Entries copies the checksums of the pages from first on into sums and returns
// how many there were: fewer than len(sums) at the end of the database.
func (t *Table) Entries(first uint32, sums []walstream.Checksum) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if first == 0 || int(first) > len(t.mu.sums) {
		return 0
	}
	return copy(sums, t.mu.sums[first-1:])
}

// Set sets the checksum of one page, growing the database to it if need be.
// Pages 1 to MaxPages exist; others are ignored.
func (t *Table) Set(no uint32, sum walstream.Checksum) {
	if no == 0 || no > MaxPages {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(no) > len(t.mu.sums) {
		t.resizeLocked(no)
	}
	t.setLocked(no, sum)
}

// Resize cuts or grows the database. New pages have no checksum until they are
// set.
func (t *Table) Resize(pageCount uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resizeLocked(min(pageCount, MaxPages))
}

// Clone returns a copy in memory, without a file.
func (t *Table) Clone() *Table {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := New(t.pageSize)
	c.mu.sums = append([]walstream.Checksum(nil), t.mu.sums...)
	c.mu.checksum = t.mu.checksum
	c.mu.position, c.mu.current = t.mu.position, t.mu.current
	return c
}

// Reset makes the table empty, as before the first page.
func (t *Table) Reset() { t.Resize(0) }

// Range is a part of a table: pages First to Last, and a hash of their
// checksums.
type Range struct {
	First, Last uint32
	Hash        [16]byte
}

// Ranges divides pages 1 to pageCount into parts of size pages, the last one
// shorter, and hashes each. Pages beyond the end of the table count as having
// no checksum, so that tables of different length can be compared. Equal hashes
// mean equal content.
func (t *Table) Ranges(pageCount, size uint32) []Range {
	size = max(size, 1)
	t.mu.RLock()
	defer t.mu.RUnlock()
	var ranges []Range
	buf := make([]byte, 0, 4096)
	for first := uint64(1); first <= uint64(pageCount); first += uint64(size) {
		last := min(first+uint64(size)-1, uint64(pageCount))
		hash := sha256.New()
		for no := first; no <= last; no++ {
			buf = binary.BigEndian.AppendUint64(buf, uint64(t.getLocked(uint32(no))))
			if len(buf) == cap(buf) || no == last {
				hash.Write(buf)
				buf = buf[:0]
			}
		}
		ranges = append(ranges, Range{uint32(first), uint32(last), [16]byte(hash.Sum(nil)[:16])})
	}
	return ranges
}

func (t *Table) getLocked(no uint32) walstream.Checksum {
	if no == 0 || int(no) > len(t.mu.sums) {
		return 0
	}
	return t.mu.sums[no-1]
}

func (t *Table) setLocked(no uint32, sum walstream.Checksum) {
	old := t.mu.sums[no-1]
	if old == sum {
		return
	}
	t.mu.sums[no-1] = sum
	t.mu.checksum = walstream.ChecksumFlag | (t.mu.checksum ^ old ^ sum)
	if t.file != nil {
		t.mu.dirty[(no-1)/blockEntries] = struct{}{}
	}
}

func (t *Table) resizeLocked(pageCount uint32) {
	for no := uint32(len(t.mu.sums)); no > pageCount; no-- {
		t.setLocked(no, 0)
	}
	if n := int(pageCount); n <= len(t.mu.sums) {
		t.mu.sums = t.mu.sums[:n]
	} else {
		old := len(t.mu.sums)
		t.mu.sums = append(t.mu.sums, make([]walstream.Checksum, n-old)...)
		// The file may hold other entries there, of a time when the database was
		// larger and that a crash kept from being cleared.
		for b := uint32(old) / blockEntries; t.file != nil && b <= uint32(n-1)/blockEntries; b++ {
			t.mu.dirty[b] = struct{}{}
		}
	}
}

func xor(sums []walstream.Checksum) walstream.Checksum {
	c := walstream.ChecksumFlag
	for _, sum := range sums {
		c ^= sum
	}
	return walstream.ChecksumFlag | c
}
