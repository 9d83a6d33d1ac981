package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Spool keeps the pages that a repair has received, in a directory of its own,
// so that a broken connection, another node or a new process goes on where the
// last one stopped. Nothing in it needs to be durable: what a crash damages is
// found by checksum and received again.
//
// Three files: "meta" says of which database and page size; "pages" is sparse,
// page n at (n-1) × page size; "sums" has 8 bytes a page, its checksum, 0 where
// "pages" has nothing. One goroutine uses a Spool at a time, and one process.
type Spool struct {
	dir      string
	database string
	pageSize uint32 // 0: nothing received yet
	pages    *os.File
	sums     *os.File

	// Only what was received takes memory: a peer that names a page far out makes
	// one block.
	blocks map[uint32]*sumBlock
	count  int // pages held
}

const blockPages = 4096

// sumBlock holds the sums of blockPages pages; 0: not held.
type sumBlock [blockPages]walstream.Checksum

const (
	spoolMeta  = "meta"
	spoolPages = "pages"
	spoolSums  = "sums"
	spoolMagic = "lsnode spool 1\n"
)

// OpenSpool opens the spool in dir, making the directory if need be. Of what is
// there, pages of this database that are intact are kept and the rest is
// dropped; this reads all of it.
func OpenSpool(dir, database string) (_ *Spool, err error) {
	if !walstream.ValidName(database) {
		return nil, fmt.Errorf("open spool: database name %q is not valid", database)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &Spool{dir: dir, database: database, blocks: map[uint32]*sumBlock{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open spool %s: %w", dir, err), s.Close())
		}
	}()
	if s.pages, err = os.OpenFile(filepath.Join(dir, spoolPages), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if s.sums, err = os.OpenFile(filepath.Join(dir, spoolSums), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	size, ok := s.readMeta()
	if !ok {
		return s, s.reset(0)
	}
	s.pageSize = size
	return s, s.load()
}

// Held returns how many pages the spool holds.
func (s *Spool) Held() int { return s.count }

// Close closes the files and leaves them for another time.
func (s *Spool) Close() error {
	var err error
	if s.pages != nil {
		err = s.pages.Close()
	}
	if s.sums != nil {
		err = errors.Join(err, s.sums.Close())
	}
	return err
}

// Remove closes the spool and removes it with its directory. Walks over what it
// holds must have ended.
func (s *Spool) Remove() error {
	err := s.Close()
	for _, name := range []string{spoolMeta, spoolPages, spoolSums} {
		if rerr := os.Remove(filepath.Join(s.dir, name)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, os.Remove(s.dir))
}

// readMeta returns the page size, if the spool is of this database.
func (s *Spool) readMeta() (uint32, bool) {
	b, err := os.ReadFile(filepath.Join(s.dir, spoolMeta))
	if err != nil || len(b) < 4 || len(b) > 256 || crc(b[:len(b)-4]) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return 0, false
	}
	r := &reader{b: b[:len(b)-4]}
	magic := string(r.take(len(spoolMagic)))
	database, size := r.database(), r.u32()
	ok := r.end() == nil && magic == spoolMagic && database == s.database && sqlitefile.ValidPageSize(size)
	return size, ok
}

// reset empties the spool for pages of another size; 0: not known yet.
func (s *Spool) reset(pageSize uint32) error {
	meta := filepath.Join(s.dir, spoolMeta)
	if err := os.Remove(meta); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.blocks, s.count, s.pageSize = map[uint32]*sumBlock{}, 0, pageSize
	if err := errors.Join(s.pages.Truncate(0), s.sums.Truncate(0)); err != nil {
		return err
	}
	if pageSize == 0 {
		return nil
	}
	b := appendName([]byte(spoolMagic), s.database)
	b = binary.BigEndian.AppendUint32(b, pageSize)
	b = binary.BigEndian.AppendUint32(b, crc(b))
	return os.WriteFile(meta, b, 0o600)
}

// load reads the sums and checks the pages against them. It skips holes, so
// that it takes as long as there is content.
func (s *Spool) load() error {
	buf := make([]byte, blockPages*8)
	page := make([]byte, s.pageSize)
	for off := int64(0); ; off += int64(len(buf)) {
		at, err := unix.Seek(int(s.sums.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only holes follow, or the end
		}
		if err != nil {
			return fmt.Errorf("read sums: %w", err)
		}
		off = at - at%int64(len(buf))
		n, err := s.sums.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read sums: %w", err)
		}
		if err := s.loadBlock(uint64(off)/8, buf[:n-n%8], page); err != nil {
			return err
		}
	}
}

// loadBlock takes over those sums whose pages are there; the first is of page
// first+1.
func (s *Spool) loadBlock(first uint64, sums, page []byte) error {
	for i := 0; i < len(sums); i += 8 {
		sum := walstream.Checksum(binary.BigEndian.Uint64(sums[i:]))
		no := first + uint64(i)/8 + 1
		if sum == 0 || no > pagesum.MaxPages {
			continue
		}
		_, err := s.pages.ReadAt(page, int64(no-1)*int64(s.pageSize))
		if err != nil && err != io.EOF {
			return fmt.Errorf("read page %d: %w", no, err)
		}
		if err == nil && pagesum.Page(uint32(no), page) == sum {
			s.hold(uint32(no), sum)
		}
	}
	return nil
}

// put stores a page. If that fails, an older image of it is not held either.
func (s *Spool) put(no uint32, data []byte) error {
	sum := pagesum.Page(no, data)
	s.hold(no, 0)
	if _, err := s.pages.WriteAt(data, int64(no-1)*int64(s.pageSize)); err != nil {
		return fmt.Errorf("keep page %d: %w", no, err)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(sum))
	if _, err := s.sums.WriteAt(b[:], int64(no-1)*8); err != nil {
		return fmt.Errorf("keep page %d: %w", no, err)
	}
	s.hold(no, sum)
	return nil
}

// hold notes the checksum of a page that is held; 0: it is not.
func (s *Spool) hold(no uint32, sum walstream.Checksum) {
	n, i := (no-1)/blockPages, (no-1)%blockPages
	b := s.blocks[n]
	if b == nil {
		if sum == 0 {
			return
		}
		b = new(sumBlock)
		s.blocks[n] = b
	}
	if b[i] != 0 {
		s.count--
	}
	if sum != 0 {
		s.count++
	}
	b[i] = sum
}

// walk yields the pages held, up to the given number, in ascending order. Each
// is checked. It may be walked more than once, until Close.
func (s *Spool) walk(upTo uint32) walstream.Pages {
	return func(yield func(walstream.Page, error) bool) {
		buf := make([]byte, s.pageSize)
		for n := uint32(0); uint64(n)*blockPages < uint64(upTo); n++ {
			b := s.blocks[n]
			if b == nil {
				continue
			}
			for i, sum := range b {
				no := n*blockPages + uint32(i) + 1
				if sum == 0 || no > upTo {
					continue
				}
				err := s.read(no, sum, buf)
				if !yield(walstream.Page{No: no, Data: buf}, err) || err != nil {
					return
				}
			}
		}
	}
}

func (s *Spool) read(no uint32, sum walstream.Checksum, buf []byte) error {
	if _, err := s.pages.ReadAt(buf, int64(no-1)*int64(s.pageSize)); err != nil {
		return fmt.Errorf("read page %d received before: %w", no, err)
	}
	if pagesum.Page(no, buf) != sum {
		return fmt.Errorf("read page %d received before: %w: its checksum differs", no, walstream.ErrCorrupt)
	}
	return nil
}

// overlay is a table of page checksums in which the pages held count instead of
// the caller's.
type overlay struct {
	Sums
	spool *Spool
	count uint32
}

// over returns the sums of a database of so many pages that has the pages held
// in place of its own.
func (s *Spool) over(own Sums, pageCount uint32) overlay {
	return overlay{own, s, pageCount}
}

// PageCount implements Sums.
func (o overlay) PageCount() uint32 { return o.count }

// Entries implements Sums.
func (o overlay) Entries(first uint32, sums []walstream.Checksum) int {
	if first == 0 || first > o.count {
		return 0
	}
	n := int(min(uint64(len(sums)), uint64(o.count)-uint64(first)+1))
	clear(sums[:n])
	o.Sums.Entries(first, sums[:n])
	for i := range sums[:n] {
		no := first + uint32(i)
		if b := o.spool.blocks[(no-1)/blockPages]; b != nil && b[(no-1)%blockPages] != 0 {
			sums[i] = b[(no-1)%blockPages]
		}
	}
	return n
}
