package txlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/lsnode/lsnode/walstream"
)

// segment is one file of the log.
type segment struct {
	no    uint64
	file  file
	head  segmentHead
	begin int64        // where the roster ends
	refs  atomic.Int32 // the log's own and those of readers; at 0 the file is closed

	// end is where the records end; Log.mu guards it. Bytes before it never
	// change, but where a large transaction is rolled back that no reader knows.
	end int64

	// The rest is guarded by Log.files.
	sealed bool // durable, and has a footer, or none could be written
	named  bool // its name in the directory is durable

	// touched are the databases of which a transaction, base or void ends here.
	// footer is made when the next segment is, and written when the segment is
	// sealed. Log.mu guards these three.
	touched    map[string]struct{}
	footer     []byte
	footerSize int64
}

func segmentName(no uint64) string { return fmt.Sprintf("%016x.log", no) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok || len(digits) != 16 {
		return 0, false
	}
	no, err := strconv.ParseUint(digits, 16, 64)
	return no, err == nil && segmentName(no) == name
}

func newSegment(head segmentHead, f file, end int64) *segment {
	s := &segment{no: head.no, file: f, head: head, begin: end, end: end, touched: map[string]struct{}{}}
	s.refs.Store(1)
	return s
}

// acquire keeps the file open until release.
func (s *segment) acquire() { s.refs.Add(1) }

func (s *segment) release() error {
	if s.refs.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}

// CorruptError says where the log is not what was written, or cannot be read.
type CorruptError struct {
	File   string
	Offset int64
	Err    error // wraps [walstream.ErrCorrupt], ErrVersion, ErrTorn or an I/O error
}

// Error names file and offset.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("read log segment %s at offset %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

func corrupt(at location, err error) error {
	if errors.Is(err, ErrClosed) {
		return err
	}
	return &CorruptError{segmentName(at.seg), at.off, err}
}

// isDamage tells errors of content from errors of reading it.
func isDamage(err error) bool {
	return errors.Is(err, walstream.ErrCorrupt) || errors.Is(err, walstream.ErrTorn) || errors.Is(err, walstream.ErrVersion)
}

// frame is a record or control frame whose length is known, whose content is
// not yet read or checked.
type frame struct {
	at   location
	size int
	head []byte // its first bytes, as many as a record has at least, or all
}

func (f *frame) isRecord() bool   { return string(f.head[:4]) != controlMagic }
func (f *frame) end() location    { return location{f.at.seg, f.at.off + int64(f.size)} }
func (f *frame) part() uint32     { return be.Uint32(f.head[8:]) }
func (f *frame) isLast() bool     { return f.head[5]&2 != 0 }
func (f *frame) database() uint32 { return walstream.RecordDatabase(f.head) }

const readAhead = 64 << 10

// scanner steps through the frames of consecutive segments. It is not safe for
// concurrent use.
type scanner struct {
	segs []*segment
	ends []int64 // where each one's records end, as far as this scan goes
	at   location

	buf    []byte   // a stretch of the file
	bufAt  location // where it begins
	lent   bool     // who got a part of buf may keep it
	failed error
}

// next returns the next frame, or io.EOF after the last.
func (s *scanner) next() (frame, error) {
	if s.failed != nil {
		return frame{}, s.failed
	}
	for len(s.segs) > 0 && s.at.off >= s.ends[0] {
		s.segs, s.ends = s.segs[1:], s.ends[1:]
		if len(s.segs) > 0 {
			s.at = location{s.segs[0].no, segmentHeader}
		}
	}
	if len(s.segs) == 0 {
		return frame{}, io.EOF
	}
	left := s.ends[0] - s.at.off
	head, err := s.peek(int(min(left, walstream.RecordHeaderSize)))
	if err != nil {
		return frame{}, s.fail(err)
	}
	f := frame{at: s.at, head: head}
	if len(head) >= 4 && string(head[:4]) == controlMagic {
		f.size, err = controlSize(head)
	} else {
		f.size, err = walstream.RecordSize(head)
	}
	if err == nil && int64(f.size) > left {
		err = fmt.Errorf("%w: %d of %d bytes", walstream.ErrTorn, left, f.size)
	}
	if err != nil {
		return frame{}, s.fail(err)
	}
	s.at.off += int64(f.size)
	return f, nil
}

func (s *scanner) fail(err error) error {
	s.failed = corrupt(s.at, err)
	return s.failed
}

// load returns all bytes of the frame that next returned last. They are the
// caller's to keep.
func (s *scanner) load(f frame) ([]byte, error) {
	s.at = f.at
	b, err := s.peek(f.size)
	if err != nil {
		return nil, s.fail(err)
	}
	s.at, s.lent = f.end(), true
	return b, nil
}

// again returns the first n bytes of the frame that next returned last.
func (s *scanner) again(f frame, n int) ([]byte, error) {
	after := s.at
	s.at = f.at
	b, err := s.peek(n)
	if err != nil {
		return nil, s.fail(err)
	}
	s.at = after
	return b, nil
}

// peek returns the next n bytes without moving on.
func (s *scanner) peek(n int) ([]byte, error) {
	if from := s.at.off - s.bufAt.off; s.bufAt.seg == s.at.seg && from >= 0 && from+int64(n) <= int64(len(s.buf)) {
		return s.buf[from : from+int64(n) : from+int64(n)], nil
	}
	want := int(min(s.ends[0]-s.at.off, int64(max(n, readAhead))))
	if s.lent || cap(s.buf) < want {
		s.buf, s.lent = make([]byte, want), false
	}
	s.buf, s.bufAt = s.buf[:want], s.at
	if err := readFull(s.segs[0].file, s.buf, s.at.off); err != nil {
		s.buf = nil
		return nil, err
	}
	return s.buf[:n:n], nil
}

// readFull reads exactly len(b) bytes at an offset.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: file ends after %d of %d bytes", walstream.ErrTorn, n, len(b))
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	return err
}
