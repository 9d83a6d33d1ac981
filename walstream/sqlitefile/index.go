package sqlitefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of the wal-index, in blocks of 32 KiB: page numbers of 4096 frames,
// then a hash table of 8192 slots of two bytes. The first 136 bytes of the
// first block are the header, so it holds 34 frames less.
const (
	blockSize       = 32768
	blockWords      = blockSize / 4
	blockFrames     = 4096
	blockSlots      = 8192
	indexHeaderSize = 136
	headerWords     = 12 // one copy of the header: 48 bytes
	firstFrames     = blockFrames - indexHeaderSize/4
	hashFactor      = 383

	wordBackfill   = 24 // nBackfill, after two copies of the header
	wordReadMark   = 25 // aReadMark[5]
	wordAttempted  = 32 // nBackfillAttempted, after 8 lock bytes
	indexVersion   = 3007000
	readMarkUnused = 0xffffffff
)

// ReadLocks is the number of read locks, and of read marks.
const ReadLocks = 5

// ErrIndexClosed is returned by uses of an [Index] after its Close.
var ErrIndexClosed = errors.New("wal-index is closed")

// IndexHeader is the header of the wal-index: what is committed. It is
// comparable; two equal headers are the same snapshot of the database.
type IndexHeader struct {
	Version   uint32
	Change    uint32 // counts transactions, modulo 2^32
	Init      bool   // false: the index holds nothing yet
	BigEndian bool   // the WAL's byte order of checksums
	PageSize  uint32 // 0 in an index that has seen no frame yet
	MaxFrame  uint32 // the last committed frame; 0: the WAL is empty
	PageCount uint32 // of the database; valid only if MaxFrame is not 0
	Cksum     Cksum  // of frame MaxFrame
	Salt      Salt   // of the WAL's generation
}

// block is one 32 KiB block of the wal-index, as words of the host.
type block [blockWords]uint32

// Index is a mapping of a -shm file, the wal-index, into memory. It follows the
// file as it grows. It is safe for concurrent use, except for Close.
type Index struct {
	shm    *os.File
	mu     sync.Mutex // held while mapping more
	blocks atomic.Pointer[[]*block]
}

// MapIndex maps the -shm file of a database. The caller keeps shm open, and
// holds a lock on its DMS byte (or keeps a SQLite connection open), for as long
// as the Index is used: otherwise another process may cut the file, and reading
// it would raise SIGBUS.
func MapIndex(shm *os.File) (*Index, error) {
	if size := os.Getpagesize(); size > blockSize {
		return nil, fmt.Errorf("map wal-index: memory pages of %d bytes are not supported", size)
	}
	x := &Index{shm: shm}
	x.blocks.Store(&[]*block{})
	if _, err := x.block(0); err != nil {
		return nil, err
	}
	return x, nil
}

// Close unmaps the index. No other method may run at the same time or after it.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	blocks := x.blocks.Swap(nil)
	if blocks == nil {
		return nil
	}
	var errs []error
	for _, b := range *blocks {
		mem := unsafe.Slice((*byte)(unsafe.Pointer(b)), blockSize)
		if err := unix.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap wal-index: %w", err))
		}
	}
	return errors.Join(errs...)
}

// block returns block n, mapping the file as far as it reaches. It returns nil,
// nil if the file does not reach that far.
func (x *Index) block(n int) (*block, error) {
	p := x.blocks.Load()
	if p == nil {
		return nil, ErrIndexClosed
	}
	if n < len(*p) {
		return (*p)[n], nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if p = x.blocks.Load(); p == nil {
		return nil, ErrIndexClosed
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(x.shm.Fd()), &st); err != nil {
		return nil, fmt.Errorf("map wal-index: stat: %w", err)
	}
	// What was stored is never changed: others read it without a lock.
	for have := *p; len(have) <= n && int64(len(have)+1)*blockSize <= st.Size; {
		mem, err := unix.Mmap(int(x.shm.Fd()), int64(len(have))*blockSize, blockSize,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map wal-index block %d: %w", len(have), err)
		}
		more := append(slices.Clone(have), (*block)(unsafe.Pointer(&mem[0])))
		x.blocks.Store(&more)
		have = more
	}
	if p = x.blocks.Load(); n < len(*p) {
		return (*p)[n], nil
	}
	return nil, nil
}

// Header reads the header. ok is false if its two copies differ, its checksum is
// wrong or nothing is in it: somebody is writing it at this moment, or died while
// doing so. Read it again; if it stays so while the write lock is held, SQLite
// must recover the index.
func (x *Index) Header() (h IndexHeader, ok bool) {
	b, err := x.block(0)
	if b == nil || err != nil {
		return IndexHeader{}, false
	}
	// SQLite writes the second copy first, so the first is read first. Atomic
	// loads are the barriers.
	var one, two [headerWords]uint32
	for i := range one {
		one[i] = atomic.LoadUint32(&b[i])
	}
	for i := range two {
		two[i] = atomic.LoadUint32(&b[headerWords+i])
	}
	if one != two {
		return IndexHeader{}, false
	}
	h, sum := decodeIndexHeader(&one)
	return h, h.Init && sum == (Cksum{one[10], one[11]})
}

// Backfill returns how many frames, from the first on, have been copied into
// the database file. Equal to the header's MaxFrame: all of them.
func (x *Index) Backfill() uint32 { return x.word(wordBackfill) }

// ReadMark returns read mark i, 0 to 4: the MaxFrame of the readers that hold
// read lock i. ok is false if the mark is not in use.
func (x *Index) ReadMark(i int) (mark uint32, ok bool) {
	if i < 0 || i >= ReadLocks {
		return 0, false
	}
	mark = x.word(wordReadMark + i)
	return mark, mark != readMarkUnused
}

func (x *Index) word(i int) uint32 {
	b, err := x.block(0)
	if b == nil || err != nil {
		return 0
	}
	return atomic.LoadUint32(&b[i])
}

// PageNo returns the page that a frame holds, 0 if the index does not reach it.
// It is right for frames up to the MaxFrame of a header for as long as the WAL
// can't restart.
func (x *Index) PageNo(frame uint32) uint32 {
	if frame == 0 {
		return 0
	}
	n, idx := frameBlock(frame)
	b, err := x.block(n)
	if b == nil || err != nil {
		return 0
	}
	return atomic.LoadUint32(&b[pageWord(n, idx)])
}

// Lookup returns the newest frame up to maxFrame that holds a page; 0: none,
// the page is in the database file. The caller holds a read transaction (or the
// write lock), so that the WAL can't restart.
func (x *Index) Lookup(page, maxFrame uint32) (frame uint32, err error) {
	if page == 0 || maxFrame == 0 {
		return 0, nil
	}
	last, _ := frameBlock(maxFrame)
	for n := last; n >= 0; n-- {
		b, err := x.block(n)
		if err != nil {
			return 0, err
		}
		if b == nil {
			return 0, fmt.Errorf("look up page %d: wal-index has no block %d for frame %d", page, n, maxFrame)
		}
		frame, err = lookupBlock(b, n, page, maxFrame)
		if frame != 0 || err != nil {
			return frame, err
		}
	}
	return 0, nil
}

func lookupBlock(b *block, n int, page, maxFrame uint32) (frame uint32, err error) {
	zero := blockZero(n)
	key := page * hashFactor % blockSlots
	for range blockSlots {
		idx := loadSlot(b, key)
		if idx == 0 {
			return frame, nil
		}
		// Slots beyond maxFrame may be of a transaction that is being written, or
		// left over from one that never committed.
		f := zero + uint32(idx)
		if f <= maxFrame && f > frame && idx <= blockFrames && atomic.LoadUint32(&b[pageWord(n, uint32(idx))]) == page {
			frame = f
		}
		key = (key + 1) % blockSlots
	}
	return 0, fmt.Errorf("look up page %d: hash table of wal-index block %d has no end", page, n)
}

// frameBlock returns in which block a frame is, and its number there, from 1.
func frameBlock(frame uint32) (n int, idx uint32) {
	if frame <= firstFrames {
		return 0, frame
	}
	n = int((frame-firstFrames-1)/blockFrames) + 1
	return n, frame - blockZero(n)
}

// blockZero is one less than the first frame of a block.
func blockZero(n int) uint32 {
	if n == 0 {
		return 0
	}
	return firstFrames + uint32(n-1)*blockFrames
}

// pageWord is where in a block the page number of its frame idx is.
func pageWord(n int, idx uint32) uint32 {
	if n == 0 {
		return (indexHeaderSize/4 + idx - 1) % blockWords
	}
	return (idx - 1) % blockWords
}

// slotWord returns in which word of a block a hash slot is, and how far to shift.
func slotWord(slot uint32) (word, shift uint32) {
	shift = slot & 1 * 16
	if NativeBigEndian() {
		shift = 16 - shift
	}
	return blockFrames + slot/2, shift
}

func loadSlot(b *block, slot uint32) uint16 {
	word, shift := slotWord(slot)
	return uint16(atomic.LoadUint32(&b[word]) >> shift)
}

// decodeIndexHeader returns the header and the checksum that it should carry.
func decodeIndexHeader(w *[headerWords]uint32) (IndexHeader, Cksum) {
	var b [headerWords * 4]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	size := uint32(binary.NativeEndian.Uint16(b[14:]))
	if size == 1 {
		size = MaxPageSize
	}
	return IndexHeader{
		Version:   w[0],
		Change:    w[2],
		Init:      b[12] != 0,
		BigEndian: b[13] != 0,
		PageSize:  size,
		MaxFrame:  w[4],
		PageCount: w[5],
		Cksum:     Cksum{w[6], w[7]},
		Salt:      Salt{hostFromBE(w[8]), hostFromBE(w[9])},
	}, Checksum(NativeBigEndian(), Cksum{}, b[:40])
}
