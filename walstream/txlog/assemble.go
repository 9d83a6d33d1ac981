package txlog

import (
	"io"
	"iter"

	"github.com/lsnode/lsnode/walstream"
)

// piece is where one record of a transaction is.
type piece struct {
	at   location
	size int
}

// entryAt is a complete transaction of the log.
type entryAt struct {
	header walstream.Header
	start  location // of its first record
	last   location // of its last record
	end    location // after that
	parts  []piece  // nil where one record holds all
	only   raw      // that record
}

// raw is a record, encoded and decoded.
type raw struct {
	bytes  []byte
	record *walstream.Record
}

// assembler puts the records of one database together to transactions. A
// transaction whose last record is missing is void: the next one's first record,
// or the end, shows it.
type assembler struct {
	scan  *scanner
	name  string
	hash  uint32
	voids []interval
	parts []piece
}

// next returns the next complete transaction or base record, or io.EOF.
func (a *assembler) next() (*entryAt, error) {
	a.parts = nil
	for {
		f, err := a.scan.next()
		if err != nil {
			return nil, err
		}
		if !f.isRecord() || f.database() != a.hash || a.isVoid(f.at) {
			continue
		}
		if mine, err := a.isMine(f); err != nil {
			return nil, err
		} else if !mine {
			continue
		}
		if e, err := a.add(f); e != nil || err != nil {
			return e, err
		}
	}
}

// isMine tells whether the record is of this database, not of one whose name
// has the same hash. Where that matters a check of the whole record follows.
func (a *assembler) isMine(f frame) (bool, error) {
	at, want := walstream.RecordHeaderSize, walstream.RecordHeaderSize+1+len(a.name)
	if f.size < want {
		return false, nil
	}
	b, err := a.scan.again(f, want)
	if err != nil {
		return false, err
	}
	return int(b[at]) == len(a.name) && string(b[at+1:]) == a.name, nil
}

func (a *assembler) isVoid(at location) bool {
	for _, v := range a.voids {
		if !at.before(v.from) && at.before(v.to) {
			return true
		}
	}
	return false
}

// add takes a record of this database; it returns the transaction that is
// complete with it, if one is.
func (a *assembler) add(f frame) (*entryAt, error) {
	p, n := piece{f.at, f.size}, int(f.part())
	switch {
	case n == 0:
		a.parts = nil
	case n != len(a.parts):
		a.parts = nil
		return nil, nil
	}
	if n > 0 || !f.isLast() {
		a.parts = append(a.parts, p)
	}
	if !f.isLast() {
		return nil, nil
	}
	b, err := a.scan.load(f)
	if err != nil {
		return nil, err
	}
	r, err := walstream.DecodeRecord(b)
	if err != nil {
		return nil, corrupt(f.at, err)
	}
	e := &entryAt{header: r.Header, start: f.at, last: f.at, end: f.end(), parts: a.parts}
	if n == 0 {
		e.only = raw{b, r}
	} else {
		e.start = a.parts[0].at
	}
	a.parts = nil
	return e, nil
}

// records walks over the records of a transaction, each checked. They are valid
// until the next step. segs are consecutive and hold all of it.
func (e *entryAt) records(segs []*segment) iter.Seq2[raw, error] {
	return func(yield func(raw, error) bool) {
		if e.parts == nil {
			yield(e.only, nil)
			return
		}
		var seq walstream.Sequence
		var buf []byte
		for _, p := range e.parts {
			if cap(buf) < p.size {
				buf = make([]byte, p.size)
			}
			buf = buf[:p.size]
			r, err := readPiece(segs, p, buf)
			if err == nil {
				_, err = seq.Add(r)
			}
			if err != nil {
				yield(raw{}, corrupt(p.at, err))
				return
			}
			if !yield(raw{buf, r}, nil) {
				return
			}
		}
	}
}

// readPiece reads and checks one record into buf.
func readPiece(segs []*segment, p piece, buf []byte) (*walstream.Record, error) {
	if p.at.seg < segs[0].no || p.at.seg-segs[0].no >= uint64(len(segs)) {
		return nil, io.ErrUnexpectedEOF
	}
	if err := readFull(segs[p.at.seg-segs[0].no].file, buf, p.at.off); err != nil {
		return nil, err
	}
	return walstream.DecodeRecord(buf)
}

// pages walks over the pages of a transaction, reading them from the log.
func (e *entryAt) pages(segs []*segment) walstream.Pages {
	if e.parts == nil {
		return e.only.record.Pages
	}
	return func(yield func(walstream.Page, error) bool) {
		for r, err := range e.records(segs) {
			if err != nil {
				yield(walstream.Page{}, err)
				return
			}
			for p, err := range r.record.Pages {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}
