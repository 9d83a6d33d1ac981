package txlog

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/lsnode/lsnode/walstream"
)

// recovery is the start of a log: it finds out what is there.
type recovery struct {
	log   *Log
	files []*found
	index *index
	open  map[string]partial
	mark  location // up to where the log is known to be durable
}

// found is a segment file.
type found struct {
	no   uint64
	file file
	size int64
	head segmentHead
	bad  error // why the head, or the roster, is not whole
	seg  *segment
}

// recover opens all segments and makes the index: of sealed segments from their
// footers, of the others by reading them. What a crash left torn at the end is
// cut. What is known to be durable already is not written again; the rest is,
// since a page that the kernel has once failed to write may look clean in its
// cache and be lost. Then everything is synced.
func (l *Log) recover() error {
	r := &recovery{log: l, index: newIndex(), open: map[string]partial{}}
	err := r.list()
	for i := 0; err == nil && i < len(r.files); i++ {
		err = r.segment(i)
	}
	if err == nil {
		err = r.ready()
	}
	for _, f := range r.files {
		if f.seg != nil {
			l.mu.segs = append(l.mu.segs, f.seg)
		} else {
			err = errors.Join(err, f.file.Close())
		}
	}
	l.mu.index = r.index
	return err
}

// list opens all segment files and reads their heads.
func (r *recovery) list() error {
	names, err := r.log.fs.List()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		no, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		f, err := r.log.fs.Open(name)
		if err != nil {
			return err
		}
		r.files = append(r.files, &found{no: no, file: f})
		if err := r.files[len(r.files)-1].readHead(); err != nil {
			return corrupt(location{no, 0}, err)
		}
	}
	for i := 1; i < len(r.files); i++ {
		if no := r.files[i-1].no + 1; r.files[i].no != no { // its name was not durable yet
			return r.cutAt(i, location{no, 0}, fmt.Errorf("%w: the file is missing", walstream.ErrCorrupt))
		}
	}
	return nil
}

// readHead reads the head; that it is not whole is no error yet.
func (f *found) readHead() error {
	var err error
	if f.size, err = f.file.Size(); err != nil {
		return err
	}
	var b [segmentHeader]byte
	if err = readFull(f.file, b[:], 0); err == nil {
		f.head, err = parseSegmentHead(b[:])
	}
	switch {
	case err == nil && f.head.no != f.no:
		err = fmt.Errorf("%w: it is of segment %d", walstream.ErrCorrupt, f.head.no)
	case errors.Is(err, walstream.ErrVersion), err != nil && !isDamage(err):
		return err
	}
	f.bad = err
	return nil
}

// segment takes one segment into the index.
func (r *recovery) segment(i int) error {
	f := r.files[i]
	if f.bad != nil {
		return r.cut(i, 0, f.bad)
	}
	f.seg = newSegment(f.head, f.file, f.size)
	end, err := r.roster(f)
	if err != nil {
		return r.damaged(i, 0, err)
	}
	f.seg.begin = end
	if ok, err := r.footer(f); ok || err != nil {
		return err
	}
	limit, next := f.size, i+1 < len(r.files) && r.files[i+1].bad == nil
	if next {
		limit = min(limit, r.files[i+1].head.prevEnd)
	}
	end, err = r.scan(f, limit)
	if err == nil && next && end < r.files[i+1].head.prevEnd {
		err = corrupt(location{f.no, end}, walstream.ErrTorn)
	}
	f.seg.end = end
	if err != nil {
		return r.damaged(i, end, err)
	}
	if i+1 < len(r.files) {
		f.seg.footer = appendFooter(nil, end, r.index.entries(f.no, f.seg.touched, r.open))
	}
	return nil
}

// roster reads the roster, and starts with it if the segment is the oldest. It
// returns where it ends.
func (r *recovery) roster(f *found) (int64, error) {
	s := &scanner{segs: []*segment{f.seg}, ends: []int64{f.size}, at: location{f.no, segmentHeader}}
	headers, err := readRoster(s, f.head.rosters)
	if err != nil || f != r.files[0] {
		return s.at.off, err
	}
	for i := range headers {
		st := r.index.rebase(&headers[i], location{f.no, 0}, s.at)
		st.last, st.base = headers[i], headers[i]
	}
	return s.at.off, nil
}

func readRoster(s *scanner, n uint32) ([]walstream.Header, error) {
	var out []walstream.Header
	for range n {
		kind, body, err := nextControl(s)
		if err != nil {
			return nil, err
		}
		h, rest, err := parseOptionalHeader(body)
		if err != nil || kind != controlRoster || len(rest) > 0 || h.Kind == 0 {
			return nil, s.fail(walstream.ErrCorrupt)
		}
		out = append(out, h)
	}
	return out, nil
}

// nextControl returns the next frame, which must be a control frame.
func nextControl(s *scanner) (byte, []byte, error) {
	f, err := s.next()
	if errors.Is(err, io.EOF) {
		err = s.fail(walstream.ErrTorn)
	}
	if err != nil {
		return 0, nil, err
	}
	b, err := s.load(f)
	if err != nil {
		return 0, nil, err
	}
	kind, body, err := parseControl(b)
	if err != nil {
		return 0, nil, corrupt(f.at, err)
	}
	return kind, body, nil
}

// footer takes a sealed segment into the index; false if it has no whole footer.
func (r *recovery) footer(f *found) (bool, error) {
	if f.size < segmentHeader+footerTail {
		return false, nil
	}
	tail := make([]byte, footerTail)
	if err := readFull(f.file, tail, f.size-footerTail); err != nil {
		return false, corrupt(location{f.no, f.size - footerTail}, err)
	}
	offset, size, sum, err := parseFooterTail(tail, f.size)
	if err != nil {
		return false, nil
	}
	body := make([]byte, size)
	if err := readFull(f.file, body, offset); err != nil {
		return false, corrupt(location{f.no, offset}, err)
	}
	entries, err := parseFooter(body)
	if crcOf(body) != sum || err != nil {
		return false, nil
	}
	clear(r.open)
	for i := range entries {
		e := &entries[i]
		r.index.load(f.no, r.files[0].no, e)
		if e.open.parts > 0 {
			r.open[e.name] = e.open
		}
	}
	f.seg.end, f.seg.sealed, f.seg.footerSize = offset, true, f.size-offset
	r.mark = location{f.no, offset}
	return true, nil
}

// scan reads a segment up to limit and takes it into the index. It returns
// where the frames end that are whole.
func (r *recovery) scan(f *found, limit int64) (int64, error) {
	s := &scanner{segs: []*segment{f.seg}, ends: []int64{limit}, at: location{f.no, f.seg.begin}}
	for {
		at := s.at
		fr, err := s.next()
		if errors.Is(err, io.EOF) {
			return at.off, nil
		}
		if err == nil {
			var b []byte
			if b, err = s.load(fr); err == nil {
				err = r.frame(f.seg, fr, b)
			}
		}
		if err != nil {
			return at.off, err
		}
	}
}

// frame takes one frame into the index.
func (r *recovery) frame(seg *segment, f frame, b []byte) error {
	if f.isRecord() {
		record, err := walstream.DecodeRecord(b)
		if err != nil {
			return corrupt(f.at, err)
		}
		return r.record(seg, f, record)
	}
	kind, body, err := parseControl(b)
	if err != nil {
		return corrupt(f.at, err)
	}
	switch kind {
	case controlMark:
		if len(body) == 16 {
			r.mark = parseLocation(body)
		}
	case controlVoid:
		v, err := parseVoid(body)
		if err != nil {
			return corrupt(f.at, err)
		}
		r.index.void(v, f.at, f.end())
		seg.touched[v.database] = struct{}{}
		delete(r.open, v.database)
	}
	return nil
}

// record takes a record into the index, if it completes a transaction.
func (r *recovery) record(seg *segment, f frame, record *walstream.Record) error {
	name := record.Database
	p, known := r.open[name]
	switch {
	case record.First:
		p = partial{start: f.at}
	case !known && f.at.seg == r.files[0].no:
		p = partial{parts: uint32(record.Part)} // its beginning may have been trimmed
	case !known || int(p.parts) != record.Part:
		delete(r.open, name)
		return nil
	}
	if p.parts++; !record.Last {
		r.open[name] = p
		return nil
	}
	delete(r.open, name)
	seg.touched[name] = struct{}{}
	h := &record.Header
	switch {
	case h.Kind == walstream.KindBase:
		r.index.rebase(h, f.at, f.end())
	case p.start.seg < r.files[0].no:
		r.index.orphan(h, f.end())
	default:
		var last walstream.Position
		if st := r.index.dbs[name]; st != nil {
			last = st.last.Post
		}
		if h.Pre != last {
			return corrupt(f.at, fmt.Errorf("%w: transaction of %s begins at %v, not at %v", errChain, name, h.Pre, last))
		}
		r.index.add(h, p.start, f.at, f.end())
	}
	return nil
}

// errChain is damage that no torn write explains.
var errChain = fmt.Errorf("%w: gap", walstream.ErrCorrupt)
