package state

import (
	"math"
	"slices"
)

// Reign is one primary's time: from the commit of its promotion until the next
// one's.
type Reign struct {
	Epoch uint64 `json:"epoch"`
	Node  string `json:"node"` // the ID
	// Start is, for each database, the position that the reign goes on from: the
	// last one before its epoch record, so of an earlier epoch. The zero position
	// means that the database begins here, from nothing. A database that is
	// missing was not begun in this reign: its line is where it was.
	Start map[string]Position `json:"start,omitempty"`
}

// Line is the history as the logs see it: the reigns in ascending order of their
// epochs. It is a value to be sent and compared with logs; it is never changed
// in place.
type Line struct {
	Reigns []Reign `json:"reigns,omitempty"`
}

// Segment is a part of the line of one database: the positions of one epoch that
// count.
type Segment struct {
	Epoch uint64
	From  Position // what the epoch went on from; zero at the oldest end
	To    uint64   // the last TXID that counts; math.MaxUint64 while the line is open there
	// End is the position at To; the zero value while the line is open.
	End Position
}

// Newest returns the epoch of the newest reign, zero if there was none.
func (l Line) Newest() uint64 {
	if len(l.Reigns) == 0 {
		return 0
	}
	return l.Reigns[len(l.Reigns)-1].Epoch
}

// Start returns where a reign begins for a database, and whether it does.
func (l Line) Start(db string, epoch uint64) (Position, bool) {
	for i := len(l.Reigns) - 1; i >= 0; i-- {
		if r := l.Reigns[i]; r.Epoch == epoch {
			p, ok := r.Start[db]
			return p, ok
		}
	}
	return Position{}, false
}

// BranchPoint returns where the line left an epoch: the last position of that
// epoch that counts. It reports false if the epoch is not on the line, or if the
// line is still open there.
func (l Line) BranchPoint(db string, epoch uint64) (Position, bool) {
	for _, s := range l.Segments(db) {
		if s.Epoch == epoch && s.To != math.MaxUint64 {
			return s.End, true
		}
	}
	return Position{}, false
}

// Segments returns the line of one database, the newest part first. It is empty
// while no reign has begun the database: then nothing is known against any
// position. A reign from which no later one went on has no part in it, whatever
// it wrote.
func (l Line) Segments(db string) []Segment {
	var out []Segment
	end := Segment{To: math.MaxUint64} // of the part that is looked for
	for i := len(l.Reigns) - 1; i >= 0; i-- {
		r := l.Reigns[i]
		start, ok := r.Start[db]
		if !ok || len(out) > 0 && r.Epoch > end.Epoch {
			continue
		}
		if len(out) > 0 && r.Epoch < end.Epoch {
			break // the epoch gone on from is older than the history that is kept
		}
		out = append(out, Segment{Epoch: r.Epoch, From: start, To: end.To, End: end.End})
		if start.IsZero() {
			return out
		}
		end = Segment{Epoch: start.Epoch, To: start.TXID, End: start}
	}
	if len(out) > 0 {
		out = append(out, end)
	}
	return out
}

// holds tells whether a position of the segment's epoch counts.
func (s Segment) holds(p Position) bool {
	switch {
	case p.Epoch != s.Epoch || p.TXID > s.To || p.TXID < s.From.TXID:
		return false
	case s.To != math.MaxUint64 && p.TXID == s.To && p.Checksum != s.End.Checksum:
		return false
	case !s.From.IsZero() && p.TXID == s.From.TXID && p.Checksum != s.From.Checksum:
		return false
	}
	return true
}

// countable returns the segments with what may count before the line says so. A
// reign can begin a database that it was promoted without, and its positions can
// be met before the line that has it: in the log of a follower, or of a candidate
// whose line is of a moment before. They are there only because it is committed,
// and that can have happened only while the reign was the newest.
func (l Line) countable(db string) []Segment {
	segments := l.Segments(db)
	if newest := l.Newest(); len(segments) > 0 && segments[0].Epoch < newest {
		return slices.Insert(segments, 0, Segment{Epoch: newest, To: math.MaxUint64})
	}
	return segments
}

// OnLine tells whether a log that ends at a position is on the line. Since a log
// is a chain, all before it is then on the line as well. The zero position is.
func (l Line) OnLine(db string, p Position) bool {
	segments := l.countable(db)
	if p.IsZero() || len(segments) == 0 {
		return true
	}
	for _, s := range segments {
		if s.Epoch == p.Epoch {
			return s.holds(p)
		}
	}
	return false
}

// Lookup answers from a log of one database: its most advanced position that is
// at most (epoch, txid) in that order. It reports false if there is none.
type Lookup func(epoch, txid uint64) (Position, bool)

// Cut returns where the log of a database has to be cut back to be on the line:
// the most advanced of its positions that is. It is last itself if nothing has
// to be cut, and zero if nothing can stay. It calls at only for positions that
// are too far.
func (l Line) Cut(db string, last Position, at Lookup) Position {
	segments := l.countable(db)
	if len(segments) == 0 {
		return last
	}
	p, ok := last, !last.IsZero()
	for _, s := range segments {
		// From above the segment down to its end, then past an end with other
		// content, then below a beginning with other content.
		if ok && p.Compare(Position{Epoch: s.Epoch, TXID: s.To}) > 0 {
			p, ok = at(s.Epoch, s.To)
		}
		if ok && p.Epoch == s.Epoch && p.TXID == s.To && !s.holds(p) && s.To > 0 {
			p, ok = at(s.Epoch, s.To-1)
		}
		if !ok {
			return Position{}
		}
		if s.holds(p) {
			return p
		}
		if p.Epoch == s.Epoch && s.Epoch > 0 {
			p, ok = at(s.Epoch-1, math.MaxUint64)
		}
	}
	return Position{}
}
