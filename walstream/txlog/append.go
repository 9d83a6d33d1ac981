package txlog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/lsnode/lsnode/walstream"
)

// Append appends a transaction or epoch record. encoded are its records as
// [walstream.Encode] made them; with none it is encoded here. It is written when
// Append returns, and durable after [Log.Sync].
//
// A transaction that does not follow the last one is refused with [ErrGap].
// After any other error, a full disk for one, nothing of it is visible and
// Append may be called again; but see [ErrFailed].
func (l *Log) Append(t *walstream.Txn, encoded [][]byte) error {
	if t.Kind == walstream.KindBase {
		return l.Base(&t.Header)
	}
	defer l.lockWriter(t.Database).Unlock()
	if err := l.follows(&t.Header); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	s := stream{log: l, name: t.Database}
	var err error
	if len(encoded) > 0 {
		for _, record := range encoded {
			if err = s.add(record); err != nil {
				break
			}
		}
	} else {
		err = walstream.Encode(t, s.add)
	}
	if err = s.finish(err); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// AppendStream appends a large transaction record by record as its pages are
// walked over, with bounded memory. Others append in between. The walk may set
// h.Post.Checksum. It returns the position after it; for errors see
// [Log.Append]: all of it is appended or nothing.
func (l *Log) AppendStream(h *walstream.Header, pages walstream.Pages) (walstream.Position, error) {
	t := &walstream.Txn{Header: *h}
	t.Pages = func(yield func(walstream.Page, error) bool) {
		for p, err := range pages {
			if !yield(p, err) {
				return
			}
		}
		t.Post.Checksum = h.Post.Checksum
	}
	if err := l.Append(t, nil); err != nil {
		return walstream.Position{}, err
	}
	return t.Post, nil
}

// AppendRecords appends one transaction that comes as raw records, as
// [Log.Records] of another log gives them: each is checked and written as it
// comes, and need not stay valid. For the rest see [Log.AppendStream].
func (l *Log) AppendRecords(records iter.Seq2[[]byte, error]) (walstream.Position, error) {
	s := stream{log: l}
	var unlock func()
	var err error
	for b, e := range records {
		if err = e; err != nil {
			break
		}
		if s.name == "" {
			var r *walstream.Record
			if r, err = walstream.DecodeRecord(b); err != nil {
				break
			}
			s.name, unlock = r.Database, l.lockWriter(r.Database).Unlock
			if err = l.follows(&r.Header); err != nil {
				break
			}
		}
		if err = s.add(b); err != nil || s.done {
			break
		}
	}
	err = s.finish(err)
	if unlock != nil {
		unlock()
	}
	if err != nil {
		return walstream.Position{}, fmt.Errorf("append records to log: %w", err)
	}
	return s.post, nil
}

// follows checks that a transaction may be appended.
func (l *Log) follows(h *walstream.Header) error {
	if err := h.Validate(); err != nil {
		return err
	}
	if h.Kind == walstream.KindBase {
		return fmt.Errorf("%w: a base record is no transaction", walstream.ErrHeader)
	}
	if last := l.Last(h.Database); h.Pre != last {
		return fmt.Errorf("%w: %s is at %v, transaction begins at %v", ErrGap, h.Database, last, h.Pre)
	}
	return nil
}

// Base starts the log of a database anew at h.Post: what was before is void for
// this database. h.Kind must be KindBase. It is durable after [Log.Sync].
func (l *Log) Base(h *walstream.Header) error {
	record, _, err := walstream.EncodeOne(&walstream.Txn{Header: *h, Pages: walstream.NoPages}, walstream.MaxRecordSize)
	if err != nil {
		return fmt.Errorf("append base to log: %w", err)
	}
	if h.Kind != walstream.KindBase {
		return fmt.Errorf("append base to log: %w: kind %d", walstream.ErrHeader, h.Kind)
	}
	stored, err := walstream.Decode(record)
	if err != nil {
		return fmt.Errorf("append base to log: %w", err)
	}
	defer l.lockWriter(h.Database).Unlock()
	l.write.Lock()
	defer l.write.Unlock()
	err = l.put(record, func(at, end location) {
		l.mu.index.rebase(&stored.Header, at, end)
		l.changedLocked(h.Database)
	})
	if err != nil {
		return fmt.Errorf("append base to log: %w", err)
	}
	return nil
}

// Void removes everything of one database after a position, which the log must
// have ([ErrNotOnLine], [ErrTruncated]). Others are untouched. It is durable on
// return.
func (l *Log) Void(db string, after walstream.Position) error {
	defer l.lockWriter(db).Unlock()
	if l.Last(db) != after {
		v, err := l.tailAfter(db, after)
		if err == nil {
			err = l.putVoid(v)
		}
		if err != nil {
			return fmt.Errorf("void log of %s after %v: %w", db, after, err)
		}
	}
	return l.Sync(context.Background())
}

// Forget removes everything of one database. It is durable on return.
func (l *Log) Forget(db string) error {
	defer l.lockWriter(db).Unlock()
	err := l.putVoid(&void{database: db, forget: true})
	if err == nil {
		err = l.Sync(context.Background())
	}
	if err != nil {
		return fmt.Errorf("forget log of %s: %w", db, err)
	}
	return nil
}

func (l *Log) putVoid(v *void) error {
	if !walstream.ValidName(v.database) {
		return fmt.Errorf("%w: database name %q", walstream.ErrHeader, v.database)
	}
	l.write.Lock()
	defer l.write.Unlock()
	return l.put(appendVoid(nil, v), func(at, end location) {
		l.mu.index.void(v, at, end)
		l.changedLocked(v.database)
	})
}

// stream is a transaction on its way into the log. Its owner holds the
// database's writer lock.
type stream struct {
	log     *Log
	name    string
	seq     walstream.Sequence
	start   location // of the first record; zero: none is written
	written uint64   // records written
	before  uint64   // Log.write.count before the first
	done    bool     // the last record is written
	post    walstream.Position
}

// add checks and writes the next record.
func (s *stream) add(record []byte) error {
	r, err := walstream.DecodeRecord(record)
	if err != nil {
		return err
	}
	if r.Database != s.name || s.done {
		return fmt.Errorf("%w: it is not of this transaction", walstream.ErrCorrupt)
	}
	if r.First {
		if err := s.log.follows(&r.Header); err != nil {
			return err
		}
	}
	if s.done, err = s.seq.Add(r); err != nil {
		return err
	}
	l := s.log
	l.write.Lock()
	defer l.write.Unlock()
	if r.First {
		s.before = l.write.count
	}
	return l.put(record, func(at, end location) {
		s.written++
		if r.First {
			s.start = at
		}
		if r.Last {
			s.post = r.Post
			l.mu.index.add(&r.Header, s.start, at, end)
			l.changedLocked(s.name)
			delete(l.mu.streams, s.name)
		} else {
			l.mu.streams[s.name] = partial{s.start, uint32(s.written)}
		}
	})
}

// finish ends the transaction: what has been written of an incomplete one is
// taken back if possible, so that it takes no room; it is void anyway.
func (s *stream) finish(err error) error {
	if err == nil && s.done {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: the last record is missing", walstream.ErrTorn)
	}
	if s.written == 0 {
		return err
	}
	l := s.log
	l.write.Lock()
	defer l.write.Unlock()
	l.mu.Lock()
	delete(l.mu.streams, s.name)
	l.mu.Unlock()
	if l.write.count == s.before+s.written {
		return errors.Join(err, l.rollback(s.start))
	}
	return err
}
