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
	// Until is the TXID to stop at. Default: the end of the node's log.
	Until walstream.TXID
	// Follow stays until Until is reached, or for good, and gets what the node
	// appends as it does. Default: what it has now.
	Follow bool
}

// Pulled is one transaction pulled from a log. Each follows on the one before:
// its Pre is that one's Post.
type Pulled struct {
	// Txn is walkable as often as one likes if Record is set. Otherwise its pages
	// come from the connection as they are walked over, once, until the next
	// transaction is asked for; and Post.Checksum is known after the walk.
	Txn *walstream.Txn
	// Record is the encoded transaction if it is one record, as in the log. Valid
	// until the next transaction is asked for, as is Txn.
	Record []byte
}

// Since walks over the transactions that the node's log has after a position.
// It ends without an error when the caller has all that was asked for. Errors,
// after which the walk ends: txlog.ErrTruncated (the node no longer has what
// follows on After), txlog.ErrNotOnLine (After is on another line),
// [ErrUnknownDatabase], [ErrPeer]; what the network says; a context's cause.
// Whatever was yielded is good. Memory is bounded whatever a transaction's size.
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
		if err := p.large(rec, yield); err != nil {
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

// large yields a transaction of several records, whose pages are read from the
// connection while the consumer walks over them. What it leaves is skipped.
func (p *puller) large(first *walstream.Record, yield func(*Pulled) bool) error {
	parts := &parts{p: p, rec: first, txn: &walstream.Txn{Header: first.Header}}
	if _, err := parts.seq.Add(first); err != nil {
		return err
	}
	parts.txn.Post.Checksum = 0
	parts.txn.Pages = parts.walk
	if !yield(&Pulled{Txn: parts.txn}) {
		return errStopped
	}
	return parts.finish()
}

// parts is a large transaction on its way in.
type parts struct {
	p      *puller
	txn    *walstream.Txn
	seq    walstream.Sequence
	rec    *walstream.Record // the part received last; nil after an error
	walked bool
	err    error // why no more parts come
}

// walk is the transaction's Pages.
func (s *parts) walk(yield func(walstream.Page, error) bool) {
	if s.walked {
		yield(walstream.Page{}, fmt.Errorf("walk over %s at %v: its pages were already taken from the connection", s.txn.Database, s.txn.Post))
		return
	}
	s.walked = true
	for {
		for page, err := range s.rec.Pages {
			if err != nil {
				s.err = err
			}
			if !yield(page, err) || err != nil {
				return
			}
		}
		if s.rec.Last {
			s.txn.Post = s.rec.Post
			return
		}
		if s.next(); s.err != nil {
			yield(walstream.Page{}, s.err)
			return
		}
	}
}

// next receives the next part.
func (s *parts) next() {
	rec, _, err := s.p.record()
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
	s.rec = rec
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
