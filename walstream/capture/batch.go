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

// chunkBytes is how much of the WAL is read at once.
const chunkBytes = 1 << 20

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
// as the WAL can't restart, except if it is in memory.
type batch struct {
	db        *sqlitedb.DB
	to        point
	commits   int    // those of lsnode's own marks not counted
	pageCount uint32 // after it
	lowest    uint32 // size of the database after the smallest of its commits
	marked    bool   // page 1 says read-only in the end
	refs      []ref  // ascending, one for each page

	first  uint32 // the frame that frames begins with
	frames []byte // raw frames from first on, if inMemory
	extra  []byte // images of pages without a frame, if inMemory
}

// reader reads batches, and uses its memory again for the next one.
type reader struct {
	db     *sqlitedb.DB
	memory int // most bytes of frames that are kept in memory
	batch  batch
	chunk  []byte
	page   []byte
}

func newReader(db *sqlitedb.DB, memory int) *reader {
	return &reader{db: db, memory: memory}
}

// read reads what was committed after from, up to the header h. oldCount is the
// size of the database at from. The batch is valid until the next read. The
// caller holds a read transaction that keeps these frames.
func (r *reader) read(from point, oldCount uint32, h sqlitefile.IndexHeader, wasMarked bool) (*batch, error) {
	b := &r.batch
	*b = batch{
		db: r.db, to: pointAt(h), lowest: math.MaxUint32, pageCount: oldCount, marked: wasMarked,
		refs: b.refs[:0], frames: b.frames[:0], extra: b.extra[:0], first: from.frame + 1,
	}
	if from.salt != h.Salt {
		b.first = 1
	}
	if b.first > h.MaxFrame {
		return b, nil
	}
	size := int64(h.MaxFrame-b.first+1) * int64(r.db.PageSize()+sqlitefile.FrameHeaderSize)
	inMemory := size <= int64(r.memory)
	if err := r.walk(b, h, inMemory); err != nil {
		return nil, err
	}
	b.newest()
	if err := r.fill(b, oldCount); err != nil {
		return nil, err
	}
	return b, nil
}

// inMemory tells that the batch needs the WAL no more.
func (b *batch) inMemory() bool { return len(b.refs) == 0 || len(b.frames) > 0 }

// walk reads all frames in the order of the WAL.
func (r *reader) walk(b *batch, h sqlitefile.IndexHeader, inMemory bool) error {
	frameSize := int(r.db.PageSize()) + sqlitefile.FrameHeaderSize
	n := int(h.MaxFrame - b.first + 1)
	step := n
	if !inMemory {
		step = max(chunkBytes/frameSize, 1)
	}
	s := commitScan{marked: b.marked}
	for done := 0; done < n; done += step {
		step = min(step, n-done)
		buf := &r.chunk
		if inMemory {
			buf = &b.frames
		}
		*buf = slices.Grow((*buf)[:0], step*frameSize)[:step*frameSize]
		first := b.first + uint32(done)
		if _, err := r.db.Wal().ReadAt(*buf, sqlitefile.FrameOffset(first, r.db.PageSize())); err != nil {
			return fmt.Errorf("read frames from %d: %w", first, err)
		}
		for i, rest := 0, *buf; i < step; i, rest = i+1, rest[frameSize:] {
			frame := first + uint32(i)
			f := sqlitefile.ParseFrameHeader(rest)
			data := rest[sqlitefile.FrameHeaderSize:frameSize]
			if err := checkFrame(f, frame, h); err != nil {
				return err
			}
			e := ref{no: f.PageNo, frame: frame}
			if !inMemory {
				e.sum = pagesum.Page(f.PageNo, data)
			}
			b.refs = append(b.refs, e)
			if s.add(f, data); f.IsCommit() {
				b.lowest = min(b.lowest, f.PageCount)
			}
			b.pageCount = f.PageCount
		}
	}
	b.commits, b.marked = s.commits, s.marked
	return nil
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

func (s *commitScan) add(f sqlitefile.FrameHeader, data []byte) {
	s.frames++
	mark := false
	if f.PageNo == 1 {
		before := s.marked
		s.marked = sqlitefile.Mark(data) > sqlitefile.MarkWAL
		mark = s.marked || before
	}
	if f.IsCommit() {
		if !(mark && s.frames == 1) {
			s.commits++
		}
		s.frames = 0
	}
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

// fill adds the pages by which the database grew that have no frame here, and
// sees that every page has its checksum. A page that was cut off and came back
// counts as grown: nobody but this rule says what is in it.
func (r *reader) fill(b *batch, oldCount uint32) error {
	size := int(r.db.PageSize())
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
	r.page = slices.Grow(r.page[:0], size)[:size]
	for i := range b.refs {
		e := &b.refs[i]
		if e.sum != 0 {
			continue
		}
		data, err := b.image(*e, r.page)
		if err != nil {
			return err
		}
		e.sum = pagesum.Page(e.no, data)
		if e.frame >= b.first || len(b.frames) == 0 {
			continue
		}
		if b.extra = append(b.extra, data...); len(b.extra) > r.memory {
			b.frames, b.extra = b.frames[:0], b.extra[:0] // too much: read as it is walked
		}
	}
	return nil
}

// image returns the content of a page: from memory, or read into buf.
func (b *batch) image(e ref, buf []byte) ([]byte, error) {
	size := int(b.db.PageSize())
	switch {
	case e.frame >= b.first && len(b.frames) > 0:
		off := int(e.frame-b.first)*(size+sqlitefile.FrameHeaderSize) + sqlitefile.FrameHeaderSize
		return b.frames[off : off+size], nil
	case e.frame > 0:
		off := sqlitefile.FrameOffset(e.frame, uint32(size)) + sqlitefile.FrameHeaderSize
		if _, err := b.db.Wal().ReadAt(buf, off); err != nil {
			return nil, fmt.Errorf("read frame %d: %w", e.frame, err)
		}
		return buf, nil
	}
	n, err := b.db.Main().ReadAt(buf, int64(e.no-1)*int64(size))
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read page %d: %w", e.no, err)
	}
	clear(buf[n:])
	return buf, nil
}

// pages walks over the newest images.
func (b *batch) pages(yield func(walstream.Page, error) bool) {
	size := int(b.db.PageSize())
	buf := make([]byte, 0, size)
	extra := b.extra
	for _, e := range b.refs {
		var data []byte
		var err error
		switch {
		case b.inMemory() && e.frame < b.first:
			data, extra = extra[:size], extra[size:]
		default:
			data, err = b.image(e, buf[:size])
		}
		if err != nil {
			yield(walstream.Page{}, err)
			return
		}
		if e.no == 1 {
			// A copy, because what is in memory may be looked at again.
			data = append(buf[:0], data...)
			sqlitefile.Normalise(data)
		}
		if !yield(walstream.Page{No: e.no, Data: data}, nil) {
			return
		}
	}
}
