package txlog

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/lsnode/lsnode/walstream"
)

// Since walks over every transaction of a database after a position, up to the
// end as it was when the walk began; the pages of large ones are read as they
// are walked over. A transaction of one record may be kept; the pages of a
// larger one can be walked over until the next step only.
//
// Errors: [ErrTruncated], [ErrNotOnLine] (also when what comes next is voided
// during the walk), a [CorruptError] that names file and offset, [ErrClosed].
// After an error the walk ends.
func (l *Log) Since(db string, after walstream.Position) iter.Seq2[*walstream.Txn, error] {
	return func(yield func(*walstream.Txn, error) bool) {
		l.walk(db, after, func(e *entryAt, segs []*segment, err error) bool {
			if err != nil {
				yield(nil, err)
				return false
			}
			return yield(&walstream.Txn{Header: e.header, Pages: e.pages(segs)}, nil)
		})
	}
}

// Records walks over the same as [Log.Since] as raw records, for sending. They
// have been checked, and are valid until the next step. It ends with the last
// record of a transaction.
func (l *Log) Records(db string, after walstream.Position) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		l.walk(db, after, func(e *entryAt, segs []*segment, err error) bool {
			if err != nil {
				yield(nil, err)
				return false
			}
			for r, err := range e.records(segs) {
				if !yield(r.bytes, err) || err != nil {
					return false
				}
			}
			return true
		})
	}
}

// At returns the position that the log has after the last transaction whose
// MaxTXID is not above txid: the place to cut it to a branch point. False if the
// log has nothing so old.
func (l *Log) At(db string, txid walstream.TXID) (walstream.Position, bool) {
	return l.floor(db, func(p walstream.Position) bool { return p.TXID <= txid })
}

// Floor returns the last position of the log that is not more advanced than
// limit by (epoch, TXID). Unlike [Log.At] it leaves out the records of later
// epochs. False if the log has nothing so old.
func (l *Log) Floor(db string, limit walstream.Position) (walstream.Position, bool) {
	return l.floor(db, func(p walstream.Position) bool { return p.Compare(limit) <= 0 })
}

// floor returns the last position within a limit; once it is false for a
// position it must be for all later ones.
func (l *Log) floor(db string, within func(walstream.Position) bool) (walstream.Position, bool) {
	l.mu.Lock()
	st := l.mu.index.dbs[db]
	if st == nil || !within(st.base.Post) {
		l.mu.Unlock()
		return walstream.Position{}, false
	}
	best, last := st.base.Post, st.last.Post
	if p := l.mu.index.lastAnchor(db, within); p.Compare(best) > 0 {
		best = p
	}
	l.mu.Unlock()
	if within(last) {
		return last, true
	}
	ok := true
	l.walk(db, best, func(e *entryAt, _ []*segment, err error) bool {
		if ok = err == nil; !ok || !within(e.header.Post) {
			return false
		}
		best = e.header.Post
		return true
	})
	return best, ok
}

// view is what a reader sees: a stretch of the log and what is void in it.
type view struct {
	log  *Log
	segs []*segment
	ends []int64
	st   *state
	line uint64
	asm  assembler
}

// lookLocked returns a view from a location to the end of a database's log. Its
// segments stay open until close.
func (l *Log) lookLocked(st *state, from location) *view {
	v := &view{log: l, st: st, line: st.line}
	for _, s := range l.mu.segs {
		if s.no < from.seg || s.no > st.end.seg {
			continue
		}
		s.acquire()
		end := s.end
		if s.no == st.end.seg {
			end = st.end.off
		}
		v.segs, v.ends = append(v.segs, s), append(v.ends, end)
	}
	if from.off < segmentHeader || len(v.segs) == 0 || v.segs[0].no != from.seg {
		v.close() // only a forged index says so
		v.segs, v.ends = nil, nil
	}
	scan := &scanner{segs: v.segs, ends: v.ends, at: from}
	v.asm = assembler{scan: scan, name: st.name, hash: walstream.NameHash(st.name), voids: st.voids}
	return v
}

func (v *view) close() {
	for _, s := range v.segs {
		_ = s.release() // a file that was only read
	}
}

// changed tells whether something that the view may show has been voided since.
func (v *view) changed() bool {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	return v.st.line != v.line
}

// walk calls visit for each transaction after a position, or once with an
// error. It begins anew where it is when something is voided meanwhile.
func (l *Log) walk(db string, after walstream.Position, visit func(*entryAt, []*segment, error) bool) {
	for {
		v, err := l.viewAfter(db, after)
		if err == nil && v == nil {
			return
		}
		again := false
		if err == nil {
			after, again, err = v.walk(after, visit)
			v.close()
		}
		if err != nil {
			visit(nil, nil, fmt.Errorf("read log of %s after %v: %w", db, after, err))
			return
		}
		if !again {
			return
		}
	}
}

// viewAfter returns a view that begins before or with the transaction after a
// position; nil if there is none.
func (l *Log) viewAfter(db string, after walstream.Position) (*view, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.mu.index.dbs[db]
	switch {
	case errors.Is(l.mu.failed, ErrClosed):
		return nil, ErrClosed
	case st == nil && after.IsZero(), st != nil && after == st.last.Post:
		return nil, nil
	case st == nil || after.Compare(st.last.Post) >= 0:
		return nil, ErrNotOnLine
	case after.Compare(st.base.Post) < 0:
		return nil, fmt.Errorf("%w: it begins after %v", ErrTruncated, st.base.Post)
	}
	from, ok := l.mu.index.anchor(db, after, false)
	if !ok {
		return nil, ErrNotOnLine
	}
	return l.lookLocked(st, from), nil
}

// walk visits what follows a position. It returns the position that it has
// reached, and whether to look again from there.
func (v *view) walk(after walstream.Position, visit func(*entryAt, []*segment, error) bool) (walstream.Position, bool, error) {
	found := false
	for {
		e, err := v.asm.next()
		if v.changed() {
			return after, true, nil
		}
		switch {
		case errors.Is(err, io.EOF) && found:
			return after, false, nil
		case errors.Is(err, io.EOF):
			return after, false, ErrNotOnLine
		case err != nil:
			return after, false, err
		case e.header.Kind == walstream.KindBase:
			continue
		case e.header.Pre != after && found:
			return after, false, corrupt(e.start, fmt.Errorf("%w: transaction begins at %v", walstream.ErrCorrupt, e.header.Pre))
		case e.header.Pre != after && e.header.Pre.Compare(after) >= 0:
			return after, false, ErrNotOnLine
		case e.header.Pre != after:
			continue
		}
		found = true
		if !visit(e, v.segs, nil) {
			return after, false, nil
		}
		after = e.header.Post
	}
}

// tailAfter returns the void that removes what follows a position. The caller
// holds the database's writer lock.
func (l *Log) tailAfter(db string, after walstream.Position) (*void, error) {
	var from location
	var failed error
	l.walk(db, after, func(e *entryAt, _ []*segment, err error) bool {
		if failed = err; err == nil {
			from = e.start
		}
		return false
	})
	if failed != nil {
		return nil, failed
	}
	last, err := l.headerAt(db, after)
	if err != nil {
		return nil, err
	}
	return &void{database: db, from: from, last: last}, nil
}

// headerAt returns the header of the transaction that ends at a position that
// the log has.
func (l *Log) headerAt(db string, pos walstream.Position) (walstream.Header, error) {
	l.mu.Lock()
	st := l.mu.index.dbs[db]
	if st == nil {
		l.mu.Unlock()
		return walstream.Header{}, ErrNotOnLine
	}
	from, ok := l.mu.index.anchor(db, pos, true)
	if base := st.base; base.Post == pos || !ok {
		l.mu.Unlock()
		if base.Post != pos {
			return walstream.Header{}, ErrNotOnLine
		}
		if base.Kind == 0 {
			return walstream.Header{}, nil
		}
		return base, nil
	}
	v := l.lookLocked(st, from)
	l.mu.Unlock()
	defer v.close()
	for {
		e, err := v.asm.next()
		switch {
		case errors.Is(err, io.EOF):
			return walstream.Header{}, ErrNotOnLine
		case err != nil:
			return walstream.Header{}, err
		case e.header.Post == pos:
			return e.header, nil
		}
	}
}
