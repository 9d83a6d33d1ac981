package stream

import (
	"context"
	"fmt"
	"iter"

	"github.com/lsnode/lsnode/walstream"
)

// Since says what to pull from a node's log.
type Since struct {
	Database string
	// After is the position that the caller has. Zero: from the beginning.
	After walstream.Position
	// Until is the position to stop at, compared by epoch and TXID, or beyond if
	// that is within a transaction. Default: the end of the node's log.
	Until walstream.Position
	// Follow stays until Until is reached, or for good, and gets what the node
	// appends as it does. Default: what it has now.
	Follow bool
}

// Pulled is one transaction pulled from a log. Each follows on the one before:
// its Pre is that one's Post. It is valid until the next one is asked for.
type Pulled struct {
	// Txn is the transaction. Unless Record is set, its pages come from the
	// connection: either they or Records can be walked over, once, and
	// Post.Checksum is known after that.
	Txn *walstream.Txn
	// Record is the encoded transaction if it is one record, as in the log.
	Record []byte

	parts *parts // of one that is several records
}

// Records walks over the encoded transaction, for a log. A record is valid until
// the next step.
func (p *Pulled) Records() iter.Seq2[[]byte, error] {
	if p.parts != nil {
		return p.parts.records
	}
	return func(yield func([]byte, error) bool) { yield(p.Record, nil) }
}

// Since walks over the transactions that the node's log has after a position.
// It ends without an error when the caller has all that was asked for. Errors,
// after which the walk ends: txlog.ErrTruncated (the node no longer has what
// follows on After), txlog.ErrNotOnLine (After is on another line),
// [ErrUnknownDatabase], [ErrPeer]; what the network says; a context's cause.
// Whatever was yielded is good. Memory is bounded whatever a transaction's size.
// A consumer that takes longer than a minute over a transaction may lose the
// connection.
func (c *Client) Since(ctx context.Context, q Since) iter.Seq2[*Pulled, error] {
	return func(yield func(*Pulled, error) bool) {
		request := sinceRequest{database: q.Database, after: q.After, until: q.Until, follow: q.Follow}
		err := c.request(ctx, frameSince, request.encode(), func(l *link) error {
			p := &puller{l: l, at: q.After}
			return p.run(func(x *Pulled) bool { return yield(x, nil) })
		})
		if err != nil && err != errStopped {
			yield(nil, fmt.Errorf("pull %s after %v: %w", q.Database, q.After, err))
		}
	}
}

// puller reads the answer to one since request.
type puller struct {
	l  *link
	at walstream.Position // after the last complete transaction
}

func (p *puller) run(yield func(*Pulled) bool) error {
	for {
		rec, raw, err := p.record()
		if err != nil || rec == nil {
			return err
		}
		if err := p.follows(&rec.Header); err != nil {
			return err
		}
		if rec.First && rec.Last {
			p.at = rec.Post
			if !yield(&Pulled{Txn: &walstream.Txn{Header: rec.Header, Pages: rec.Pages}, Record: raw}) {
				return errStopped
			}
			continue
		}
		if err := p.large(rec, raw, yield); err != nil {
			return err
		}
	}
}

// follows tells whether a transaction joins up with the one before.
func (p *puller) follows(h *walstream.Header) error {
	if h.Kind == walstream.KindBase || h.Pre != p.at {
		return fmt.Errorf("%w: transaction from %v to %v follows %v", ErrProtocol, h.Pre, h.Post, p.at)
	}
	return nil
}

// record returns the next record, or nil at the end. It answers pings.
func (p *puller) record() (*walstream.Record, []byte, error) {
	for {
		t, payload, err := p.l.receive(maxMessage)
		if err != nil {
			return nil, nil, err
		}
		switch t {
		case framePing:
			if err := p.l.sendNow(framePong, nil); err != nil {
				return nil, nil, err
			}
		case frameEnd:
			return nil, nil, p.ended(payload)
		case frameError:
			return nil, nil, decodeError(payload)
		case frameRecord:
			rec, err := walstream.DecodeRecord(payload)
			return rec, payload, err
		default:
			return nil, nil, fmt.Errorf("%w: frame of type %d among records", ErrProtocol, t)
		}
	}
}

// ended checks that the node thinks we have what we have.
func (p *puller) ended(payload []byte) error {
	r := &reader{b: payload}
	at := r.position()
	if err := r.end(); err != nil {
		return err
	}
	if at != p.at {
		return fmt.Errorf("%w: node ended at %v, received up to %v", ErrProtocol, at, p.at)
	}
	return nil
}

// large yields a transaction of several records, which are read from the
// connection while the consumer walks over them. What it leaves is skipped.
func (p *puller) large(first *walstream.Record, raw []byte, yield func(*Pulled) bool) error {
	s := &parts{p: p, rec: first, raw: raw, txn: &walstream.Txn{Header: first.Header}}
	if _, err := s.seq.Add(first); err != nil {
		return err
	}
	s.txn.Pages = s.pages
	if !yield(&Pulled{Txn: s.txn, parts: s}) {
		return errStopped
	}
	return s.finish()
}

// parts is a large transaction on its way in.
type parts struct {
	p      *puller
	txn    *walstream.Txn
	seq    walstream.Sequence
	rec    *walstream.Record // the part received last
	raw    []byte            // it, encoded
	walked bool
	err    error // why no more parts come
}

// pages is the transaction's Pages.
func (s *parts) pages(yield func(walstream.Page, error) bool) {
	err := s.each(func() bool {
		for page, err := range s.rec.Pages {
			if err != nil {
				s.err = err // reported by each
				return true
			}
			if !yield(page, nil) {
				return false
			}
		}
		return true
	})
	if err != nil {
		yield(walstream.Page{}, err)
	}
}

// records is the transaction's Records.
func (s *parts) records(yield func([]byte, error) bool) {
	if err := s.each(func() bool { return yield(s.raw, nil) }); err != nil {
		yield(nil, err)
	}
}

// each receives one part after another and calls f for it, until f wants no more.
func (s *parts) each(f func() bool) error {
	if s.walked {
		return fmt.Errorf("walk over %s at %v: it was already taken from the connection", s.txn.Database, s.txn.Post)
	}
	s.walked = true
	for f() {
		switch {
		case s.err != nil:
			return s.err
		case s.rec.Last:
			s.txn.Post = s.rec.Post
			return nil
		}
		if s.next(); s.err != nil {
			return s.err
		}
	}
	return nil
}

// next receives the next part.
func (s *parts) next() {
	rec, raw, err := s.p.record()
	switch {
	case err != nil:
		s.err = err
		return
	case rec == nil:
		s.err = fmt.Errorf("%w: the end within a transaction", ErrProtocol)
		return
	}
	if _, err := s.seq.Add(rec); err != nil {
		s.err = err
		return
	}
	s.rec, s.raw = rec, raw
}

// finish skips what the consumer left.
func (s *parts) finish() error {
	s.walked = true
	for s.err == nil && !s.rec.Last {
		s.next()
	}
	if s.err != nil {
		return s.err
	}
	s.p.at = s.rec.Post
	return nil
}
