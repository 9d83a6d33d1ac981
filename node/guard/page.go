package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The page, in words of 8 bytes of this machine's order:
//
//	 0  magic
//	 1  version
//	 2  turn: slot turn%2 holds
//	 8  slot 0: epoch, deadline, leaving, group, and the table's offset, length, CRC32
//	16  slot 1
//	24  the guard's: the epoch it has fenced, its last sign of life
//
// Tables lie behind the page in the same file, at places that take turns too.
const (
	pageMagic   = 0x4452_4155_474e_534c // "LSNGUARD"
	pageVersion = 1
	pageSize    = 4096
	pageWords   = pageSize / 8

	wordTurn   = 2
	wordSlots  = 8
	slotWords  = 8
	wordFenced = 24
	wordBeat   = 25

	// maxTable bounds a table, in bytes.
	maxTable = 64 << 20
)

// forever is the deadline of a node that is the only voter.
const forever = time.Duration(math.MaxInt64)

// errPage is wrapped when what was handed over is no page of this version.
var errPage = errors.New("not a page that this program knows")

// slot is what changes often.
type slot struct {
	epoch    uint64
	deadline time.Duration // on CLOCK_BOOTTIME; forever: an only voter
	leaving  bool          // an orderly end: nothing is left to be done
	group    int           // process group of the application that lives with the node; 0: none
	offset   int64         // of the table in the file
	length   int
	sum      uint32
}

// page is the shared memory. Its words are read and written whole.
type page struct {
	file  *os.File
	data  []byte
	words *[pageWords]uint64 // data
}

// newPage makes one in memory that has no name.
func newPage() (*page, error) {
	fd, err := unix.MemfdCreate("lsnode-guard", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd:lsnode-guard")
	if err := f.Truncate(pageSize); err != nil {
		return nil, errors.Join(fmt.Errorf("make shared memory: %w", err), f.Close())
	}
	p, err := mapPage(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	atomic.StoreUint64(&p.words[1], pageVersion)
	atomic.StoreUint64(&p.words[0], pageMagic)
	return p, nil
}

// openPage takes one that was handed over.
func openPage(f *os.File) (*page, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open shared memory: %w", err)
	}
	if st.Size() < pageSize {
		return nil, fmt.Errorf("open shared memory: %w: %d bytes", errPage, st.Size())
	}
	p, err := mapPage(f)
	if err != nil {
		return nil, err
	}
	if magic, version := atomic.LoadUint64(&p.words[0]), atomic.LoadUint64(&p.words[1]); magic != pageMagic || version != pageVersion {
		return nil, errors.Join(fmt.Errorf("open shared memory: %w: magic %x, version %d", errPage, magic, version), unix.Munmap(p.data))
	}
	return p, nil
}

func mapPage(f *os.File) (*page, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	return &page{file: f, data: data, words: (*[pageWords]uint64)(unsafe.Pointer(&data[0]))}, nil
}

// close takes the memory away: nobody uses the page any more.
func (p *page) close() error {
	p.words = nil
	return errors.Join(unix.Munmap(p.data), p.file.Close())
}

func (p *page) load(i int) uint64     { return atomic.LoadUint64(&p.words[i]) }
func (p *page) store(i int, v uint64) { atomic.StoreUint64(&p.words[i], v) }

// put makes s the slot that holds. Only one goroutine of the node does.
func (p *page) put(s slot) {
	turn := p.load(wordTurn) + 1
	at := wordSlots + slotWords*int(turn%2)
	var leaving uint64
	if s.leaving {
		leaving = 1
	}
	for i, v := range [...]uint64{s.epoch, uint64(s.deadline), leaving, uint64(s.group), uint64(s.offset), uint64(s.length), uint64(s.sum)} {
		p.store(at+i, v)
	}
	p.store(wordTurn, turn)
}

// get returns the slot that holds.
func (p *page) get() slot {
	for {
		turn := p.load(wordTurn)
		at := wordSlots + slotWords*int(turn%2)
		s := slot{
			epoch: p.load(at), deadline: time.Duration(p.load(at + 1)), leaving: p.load(at+2) != 0, group: int(p.load(at + 3)),
			offset: int64(p.load(at + 4)), length: int(p.load(at + 5)), sum: uint32(p.load(at + 6)),
		}
		if p.load(wordTurn) == turn { // the next one to be written is the other
			return s
		}
	}
}

// fenced returns the epoch that a guard has fenced, or 0; it never goes back.
func (p *page) fenced() uint64 { return p.load(wordFenced) }

func (p *page) setFenced(epoch uint64) {
	if epoch > p.fenced() {
		p.store(wordFenced, epoch)
	}
}

// beat returns when a guard has last shown life, on CLOCK_BOOTTIME.
func (p *page) beat() time.Duration      { return time.Duration(p.load(wordBeat)) }
func (p *page) setBeat(at time.Duration) { p.store(wordBeat, uint64(at)) }
func (p *page) readTable(s slot) ([]byte, error) {
	if s.length < 0 || s.length > maxTable {
		return nil, fmt.Errorf("read table of databases: %w: %d bytes", errPage, s.length)
	}
	b := make([]byte, s.length)
	if _, err := p.file.ReadAt(b, s.offset); err != nil {
		return nil, fmt.Errorf("read table of databases: %w", err)
	}
	if crc32.ChecksumIEEE(b) != s.sum {
		return nil, fmt.Errorf("read table of databases: %w: its checksum differs", errPage)
	}
	return b, nil
}

// view is all that the page says at one moment.
type view struct {
	slot
	table table
}

// read returns what the node has said last.
func (p *page) read() (view, error) {
	for {
		turn := p.load(wordTurn)
		s := p.get()
		v := view{slot: s}
		if s.length == 0 {
			return v, nil // nothing was said yet
		}
		b, err := p.readTable(s)
		if err == nil {
			err = json.Unmarshal(b, &v.table)
		}
		if err == nil {
			return v, nil
		}
		if p.load(wordTurn) == turn { // it was not written over meanwhile
			return view{slot: s}, err
		}
	}
}

// tables writes tables to places that take turns.
type tables struct {
	places [2]struct{ offset, size int64 }
	end    int64 // of the file
	turn   int
}

// write puts a table where the one that holds is not, and says in s where.
func (t *tables) write(p *page, s *slot, v table) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write table of databases: %w", err)
	}
	if len(b) > maxTable {
		return fmt.Errorf("write table of databases: %d bytes are too many", len(b))
	}
	t.turn = 1 - t.turn
	place := &t.places[t.turn]
	if int64(len(b)) > place.size {
		t.end = max(t.end, pageSize)
		place.offset, place.size = t.end, int64(2*len(b))
		t.end += place.size
	}
	if _, err := p.file.WriteAt(b, place.offset); err != nil {
		return fmt.Errorf("write table of databases: %w", err)
	}
	s.offset, s.length, s.sum = place.offset, len(b), crc32.ChecksumIEEE(b)
	return nil
}

// bootTime reads the clock of leases.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("guard: read CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
