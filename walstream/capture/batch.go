package capture

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// errFrames is wrapped when frames are not what the wal-index says of them.
var errFrames = errors.New("the WAL is not what the wal-index says")

// point is a place between two frames of one generation of the WAL.
type point struct {
	salt  sqlitefile.Salt
	frame uint32           // the last one before it; 0: the beginning
	cksum sqlitefile.Cksum // of that frame; means nothing if frame is 0
}

func pointAt(h sqlitefile.IndexHeader) point { return point{h.Salt, h.MaxFrame, h.Cksum} }

// ref is one page of a batch and where its newest image is.
type ref struct {
	no    uint32
	frame uint32 // 0: in the database file
	sum   walstream.Checksum
}

// batch is what the commits between two points change. It is good for as long
// as the WAL can't restart; if it is in memory, for longer.
type batch struct {
	db        *sqlitedb.DB
	to        point
	commits   int    // those of lsnode's own marks not counted
	pageCount uint32 // after it
	lowest    uint32 // size of the database after the smallest of its commits
	marked    bool   // page 1 says read-only in the end
	refs      []ref  // ascending, one for each page
	images    []byte // of the refs, if inMemory
	inMemory  bool
}

// reader reads batches, and uses its memory again for the next one.
type reader struct {
	db     *sqlitedb.DB
	memory int // most bytes of pages that are kept in memory
	batch  batch
	page   []byte // one, for whatever needs it
}

func newReader(db *sqlitedb.DB, memory int) *reader {
	return &reader{db: db, memory: memory, page: make([]byte, db.PageSize())}
}

// read reads what was committed after from, up to the header h. oldCount is the
// size of the database at from. The batch is valid until the next read. The
// caller holds a read transaction that keeps these frames.
//
// Only the headers of frames are read one by one, and then the newest image of
// each page: under load the same few pages are in the WAL again and again.
func (r *reader) read(from point, oldCount uint32, h sqlitefile.IndexHeader) (*batch, error) {
	b := &r.batch
	*b = batch{
		db: r.db, to: pointAt(h), lowest: math.MaxUint32, pageCount: oldCount,
		refs: b.refs[:0], images: b.images[:0], inMemory: true,
	}
	first := from.frame + 1
	if from.salt != h.Salt {
		first = 1
	}
	if first > h.MaxFrame {
		return b, nil
	}
	if err := r.walk(b, first, h); err != nil {
		return nil, err
	}
	b.newest()
	if err := r.grown(b, oldCount); err != nil {
		return nil, err
	}
	return b, r.load(b)
}

// walk reads the headers of all frames in the order of the WAL.
func (r *reader) walk(b *batch, first uint32, h sqlitefile.IndexHeader) error {
	var s commitScan
	for frame := first; frame <= h.MaxFrame; frame++ {
		f, err := frameHeader(r.db, frame)
		if err != nil {
			return err
		}
		if err := checkFrame(f, frame, h); err != nil {
			return err
		}
		if err := s.add(r.db, f, frame); err != nil {
			return err
		}
		b.refs = append(b.refs, ref{no: f.PageNo, frame: frame})
		if f.IsCommit() {
			b.lowest = min(b.lowest, f.PageCount)
		}
	}
	b.pageCount, b.commits, b.marked = h.PageCount, s.commits, s.marked
	return nil
}

func frameHeader(db *sqlitedb.DB, frame uint32) (sqlitefile.FrameHeader, error) {
	var b [sqlitefile.FrameHeaderSize]byte
	if _, err := db.Wal().ReadAt(b[:], sqlitefile.FrameOffset(frame, db.PageSize())); err != nil {
		return sqlitefile.FrameHeader{}, fmt.Errorf("read frame %d: %w", frame, err)
	}
	return sqlitefile.ParseFrameHeader(b[:]), nil
}

// checkFrame compares a frame with what the wal-index says.
func checkFrame(f sqlitefile.FrameHeader, no uint32, h sqlitefile.IndexHeader) error {
	switch {
	case f.Salt != h.Salt:
		return fmt.Errorf("%w: frame %d has salts %08x, want %08x", errFrames, no, f.Salt, h.Salt)
	case f.PageNo == 0:
		return fmt.Errorf("%w: frame %d has no page", errFrames, no)
	case no == h.MaxFrame && (f.Cksum != h.Cksum || f.PageCount != h.PageCount || !f.IsCommit()):
		return fmt.Errorf("%w: frame %d is not the commit that it names as the last", errFrames, no)
	}
	return nil
}

// commitScan counts commits, and leaves out those that only fence or unfence:
// page 1 alone, marked, or page 1 alone with the mark taken away.
type commitScan struct {
	commits int
	frames  int  // of the transaction that is not complete yet
	marked  bool // the newest page 1 is
}

func (s *commitScan) add(db *sqlitedb.DB, f sqlitefile.FrameHeader, frame uint32) error {
	s.frames++
	mark := false
	if f.PageNo == 1 {
		var head [sqlitefile.DBHeaderSize]byte
		off := sqlitefile.FrameOffset(frame, db.PageSize()) + sqlitefile.FrameHeaderSize
		if _, err := db.Wal().ReadAt(head[:], off); err != nil {
			return fmt.Errorf("read frame %d: %w", frame, err)
		}
		before := s.marked
		s.marked = sqlitefile.Mark(head[:]) > sqlitefile.MarkWAL
		mark = s.marked || before
	}
	if f.IsCommit() {
		if !mark || s.frames != 1 {
			s.commits++
		}
		s.frames = 0
	}
	return nil
}

// newest keeps the last image of each page that the database still has.
func (b *batch) newest() {
	slices.SortFunc(b.refs, func(x, y ref) int {
		return cmp.Or(cmp.Compare(x.no, y.no), cmp.Compare(y.frame, x.frame))
	})
	b.refs = slices.CompactFunc(b.refs, func(x, y ref) bool { return x.no == y.no })
	end, _ := slices.BinarySearchFunc(b.refs, b.pageCount, func(r ref, count uint32) int {
		return cmp.Compare(uint64(r.no), uint64(count)+1)
	})
	b.refs = b.refs[:end]
}

// grown adds the pages by which the database grew that have no frame here. A
// page that was cut off and came back counts as grown: nobody but this rule says
// what is in it.
func (r *reader) grown(b *batch, oldCount uint32) error {
	have := b.refs
	lock := sqlitefile.LockBytePage(r.db.PageSize())
	next := 0
	for no := uint64(min(b.lowest, oldCount)) + 1; no <= uint64(b.pageCount); no++ {
		for next < len(have) && uint64(have[next].no) < no {
			next++
		}
		if no == uint64(lock) || next < len(have) && uint64(have[next].no) == no {
			continue
		}
		frame, err := r.db.Index().Lookup(uint32(no), b.to.frame)
		if err != nil {
			return err
		}
		b.refs = append(b.refs, ref{no: uint32(no), frame: frame})
	}
	if len(b.refs) > len(have) {
		slices.SortFunc(b.refs, func(x, y ref) int { return cmp.Compare(x.no, y.no) })
	}
	return nil
}

// load reads the images for their checksums, and keeps them if they are not too
// many.
func (r *reader) load(b *batch) error {
	size := int(r.db.PageSize())
	b.inMemory = len(b.refs)*size <= r.memory
	if b.inMemory {
		b.images = slices.Grow(b.images, len(b.refs)*size)[:len(b.refs)*size]
	}
	for i := range b.refs {
		e := &b.refs[i]
		buf := r.page
		if b.inMemory {
			buf = b.images[i*size : (i+1)*size]
		}
		if err := readImage(r.db, *e, buf); err != nil {
			return err
		}
		if e.no == 1 {
			sqlitefile.Normalise(buf)
		}
		e.sum = pagesum.Page(e.no, buf)
	}
	return nil
}

// readImage reads a page from its frame, or from the database file: what is
// beyond its end is zeros.
func readImage(db *sqlitedb.DB, e ref, buf []byte) error {
	if e.frame > 0 {
		off := sqlitefile.FrameOffset(e.frame, db.PageSize()) + sqlitefile.FrameHeaderSize
		if _, err := db.Wal().ReadAt(buf, off); err != nil {
			return fmt.Errorf("read frame %d: %w", e.frame, err)
		}
		return nil
	}
	n, err := db.Main().ReadAt(buf, int64(e.no-1)*int64(db.PageSize()))
	if err != nil && err != io.EOF {
		return fmt.Errorf("read page %d: %w", e.no, err)
	}
	clear(buf[n:])
	return nil
}

// pages walks over the newest images.
func (b *batch) pages(yield func(walstream.Page, error) bool) {
	size := int(b.db.PageSize())
	var page []byte
	if !b.inMemory {
		page = make([]byte, size)
	}
	for i, e := range b.refs {
		data := page
		if b.inMemory {
			data = b.images[i*size : (i+1)*size : (i+1)*size]
		} else if err := readImage(b.db, e, data); err != nil {
			yield(walstream.Page{}, err)
			return
		} else if e.no == 1 {
			sqlitefile.Normalise(data)
		}
		if !yield(walstream.Page{No: e.no, Data: data}, nil) {
			return
		}
	}
}
