package txlog

import (
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/lsnode/lsnode/walstream"
)

// A sealed segment ends in a footer: the index of the segment, so that the
// segment need not be scanned at the next start. It is written once the records
// are durable and only an optimisation: a torn or missing one is nothing lost.
//
//	┌──────────────────────────────┬───────────┬─────────┬─────────┬─────────┐
//	│ footer body                  │ "LSLGFOOT"│offset (8)│size (4) │CRC of body (4), of the 24 before (4) │
//	└──────────────────────────────┴───────────┴─────────┴─────────┴─────────┘
//
// The body is, for each database of which something ended in the segment, or a
// transaction goes on in the next one:
//
//	name, as a length (1) and bytes; flags (1): the database exists after it
//	base header, last header, straddle header, each with a length (2)
//	location of the base (16), end of the last record (16)
//	a transaction that goes on: location (16), number of records so far (4)
//	number of anchors (4), each: position before (24), location (16)
//	number of voids in the segment (4), each: from (16), to (16), header
const (
	footerMagic = "LSLGFOOT"
	footerTail  = 28
	// maxFooter bounds what a reader makes room for.
	maxFooter = 256 << 20
)

// entry is one database in a footer: its state where the segment ends.
type entry struct {
	name        string
	exists      bool
	base, last  walstream.Header
	baseAt, end location
	span        span
	voids       []interval
	open        partial // zero: none
}

// partial is a transaction of which some records are written.
type partial struct {
	start location // of the first
	parts uint32
}

// entries returns what a segment's footer says, in order of names. touched are
// the databases of which something ended in the segment, open the transactions
// that go on in the next one.
func (x *index) entries(seg uint64, touched map[string]struct{}, open map[string]partial) []entry {
	names := slices.Collect(maps.Keys(touched))
	for name := range open {
		if _, ok := touched[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []entry
	for _, name := range names {
		e := entry{name: name, open: open[name]}
		if st := x.dbs[name]; st != nil {
			e.exists, e.base, e.last, e.baseAt, e.end = true, st.base, st.last, st.baseAt, st.end
			for _, v := range st.voids {
				if v.to.seg == seg {
					e.voids = append(e.voids, v)
				}
			}
		}
		if sp := x.spans[seg][name]; sp != nil {
			e.span = *sp
		}
		out = append(out, e)
	}
	return out
}

// load takes a footer's entry when the log is opened; oldest is the oldest
// segment there is.
func (x *index) load(seg, oldest uint64, e *entry) {
	begin := location{seg, 0}
	if !e.exists {
		x.prune(e.name, location{})
		delete(x.dbs, e.name)
		return
	}
	st := x.dbs[e.name]
	if st == nil || !e.baseAt.before(begin) {
		x.prune(e.name, location{})
		st = &state{name: e.name, base: e.base, baseAt: e.baseAt}
		x.dbs[e.name] = st
	}
	for _, v := range e.voids {
		x.void(&void{database: e.name, from: v.from, last: v.last}, v.to, e.end)
	}
	st.last, st.end = e.last, e.end
	if len(e.span.anchors) == 0 {
		return
	}
	*x.span(seg, e.name) = e.span
	if e.span.anchors[0].at.seg < oldest {
		st.base, st.baseAt = e.span.straddle, begin
		x.cutStraddle(e.name, oldest)
	}
}

// appendFooter appends the footer whose body begins at the given offset of the
// file.
func appendFooter(b []byte, offset int64, entries []entry) []byte {
	start := len(b)
	for i := range entries {
		b = appendEntry(b, &entries[i])
	}
	body := b[start:]
	tail := len(b)
	b = append(b, footerMagic...)
	b = be.AppendUint64(b, uint64(offset))
	b = be.AppendUint32(b, uint32(len(body)))
	b = be.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return be.AppendUint32(b, crc32.Checksum(b[tail:], castagnoli))
}

func appendEntry(b []byte, e *entry) []byte {
	flags := byte(0)
	if e.exists {
		flags = 1
	}
	b = append(b, byte(len(e.name)))
	b = append(b, e.name...)
	b = append(b, flags)
	b = appendOptionalHeader(b, &e.base)
	b = appendOptionalHeader(b, &e.last)
	b = appendOptionalHeader(b, &e.span.straddle)
	b = appendLocation(appendLocation(b, e.baseAt), e.end)
	b = be.AppendUint32(appendLocation(b, e.open.start), e.open.parts)
	b = be.AppendUint32(b, uint32(len(e.span.anchors)))
	for _, a := range e.span.anchors {
		b = be.AppendUint64(b, uint64(a.pre.Epoch))
		b = be.AppendUint64(b, uint64(a.pre.TXID))
		b = be.AppendUint64(b, uint64(a.pre.Checksum))
		b = appendLocation(b, a.at)
	}
	b = be.AppendUint32(b, uint32(len(e.voids)))
	for i := range e.voids {
		b = appendLocation(appendLocation(b, e.voids[i].from), e.voids[i].to)
		b = appendOptionalHeader(b, &e.voids[i].last)
	}
	return b
}

func appendLocation(b []byte, l location) []byte {
	return be.AppendUint64(be.AppendUint64(b, l.seg), uint64(l.off))
}

// parseFooterTail reads the last bytes of a file of the given size and returns
// where the footer's body is.
func parseFooterTail(b []byte, fileSize int64) (offset int64, size int, sum uint32, err error) {
	if len(b) != footerTail || string(b[:8]) != footerMagic ||
		crc32.Checksum(b[:footerTail-4], castagnoli) != be.Uint32(b[footerTail-4:]) {
		return 0, 0, 0, fmt.Errorf("footer: %w", walstream.ErrCorrupt)
	}
	offset, size = int64(be.Uint64(b[8:])), int(be.Uint32(b[16:]))
	if size > maxFooter || offset < segmentHeader || offset+int64(size)+footerTail != fileSize {
		return 0, 0, 0, fmt.Errorf("footer: %w: wrong size", walstream.ErrCorrupt)
	}
	return offset, size, be.Uint32(b[20:]), nil
}

// parseFooter parses a footer's body, whose CRC has been checked.
func parseFooter(b []byte) ([]entry, error) {
	r := footerReader{b: b}
	var out []entry
	for len(r.b) > 0 && r.err == nil {
		out = append(out, r.entry())
	}
	if r.err != nil {
		return nil, fmt.Errorf("footer: %w", r.err)
	}
	return out, nil
}

// footerReader reads fields off b; after an error it returns zeros.
type footerReader struct {
	b   []byte
	err error
}

func (r *footerReader) entry() entry {
	var e entry
	e.name = string(r.take(int(r.take(1)[0])))
	if r.err == nil && !walstream.ValidName(e.name) {
		r.err = walstream.ErrCorrupt
	}
	e.exists = r.take(1)[0] == 1
	e.base, e.last, e.span.straddle = r.header(), r.header(), r.header()
	e.baseAt, e.end = r.location(), r.location()
	e.open.start, e.open.parts = r.location(), be.Uint32(r.take(4))
	for n := r.count(40); n > 0; n-- {
		p := r.take(24)
		pre := walstream.Position{
			Epoch:    walstream.Epoch(be.Uint64(p)),
			TXID:     walstream.TXID(be.Uint64(p[8:])),
			Checksum: walstream.Checksum(be.Uint64(p[16:])),
		}
		e.span.anchors = append(e.span.anchors, anchor{pre, r.location()})
	}
	for n := r.count(34); n > 0; n-- {
		e.voids = append(e.voids, interval{r.location(), r.location(), r.header()})
	}
	return e
}

// take returns the next n bytes.
func (r *footerReader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.err = walstream.ErrCorrupt
		return make([]byte, min(n, 256))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// count returns a number of things of at least size bytes each, all of which
// must still follow.
func (r *footerReader) count(size int) int {
	n := int(be.Uint32(r.take(4)))
	if n > len(r.b)/size {
		r.err = walstream.ErrCorrupt
		return 0
	}
	return n
}

func (r *footerReader) location() location { return parseLocation(r.take(16)) }

func (r *footerReader) header() walstream.Header {
	h, rest, err := parseOptionalHeader(r.b)
	if r.err != nil || err != nil {
		r.err = walstream.ErrCorrupt
		return walstream.Header{}
	}
	r.b = rest
	return h
}
