package txlog

import (
	"slices"
	"sort"

	"github.com/lsnode/lsnode/walstream"
)

// anchorEvery is how many bytes of log lie between two anchors of a database,
// so how far a reader has to scan to its position at most.
const anchorEvery = 128 << 10

// recentAnchors is how many of a database's last transactions have an anchor
// each, at least.
const recentAnchors = 64

// index says where the transactions of each database are. It is pure memory,
// kept by the log under its lock and rebuilt at the start: from the footers of
// sealed segments, from the records of the others. Reopening must give what
// there was before; the same methods are called for both.
type index struct {
	dbs   map[string]*state
	spans map[uint64]map[string]*span // by segment
}

// state is what the log knows of one database.
type state struct {
	name   string
	base   walstream.Header // Post is the position before the oldest transaction kept; Kind may be 0
	baseAt location         // what lies before it does not count
	last   walstream.Header // of the last transaction; Kind is 0 if there is none
	end    location         // after the last frame that counts
	voids  []interval       // replaced, never changed, so that readers can keep it
	line   uint64           // changes when what was readable is no longer
	recent []anchor         // of the last transactions: most readers are near the end
	// durable is the position that a finished sync has covered; pending the one
	// that the sync under way does.
	durable, pending walstream.Position
}

// interval is a stretch of the log in which nothing of a database counts.
type interval struct {
	from, to location
	last     walstream.Header // the one before it
}

// span is what one segment holds of one database: transactions that end in it.
type span struct {
	// anchors are the beginnings of some of them, the first among them. The
	// first may lie in an earlier segment; straddle is its header then.
	anchors  []anchor
	straddle walstream.Header
}

// anchor is where the first record of a transaction is.
type anchor struct {
	pre walstream.Position
	at  location
}

func newIndex() *index {
	return &index{dbs: map[string]*state{}, spans: map[uint64]map[string]*span{}}
}

// add takes a complete transaction: its first record is at start, its last one
// at last and ends at end.
func (x *index) add(h *walstream.Header, start, last, end location) *state {
	st := x.dbs[h.Database]
	if st == nil {
		st = &state{name: h.Database, baseAt: start}
		st.base.Database, st.base.Post = h.Database, h.Pre
		st.durable = h.Pre
		x.dbs[h.Database] = st
	}
	st.last, st.end = *h, end
	if len(st.recent) == 2*recentAnchors {
		st.recent = append(st.recent[:0], st.recent[recentAnchors:]...)
	}
	st.recent = append(st.recent, anchor{h.Pre, start})
	sp := x.span(last.seg, h.Database)
	if start.seg < last.seg {
		sp.straddle = *h
	}
	if n := len(sp.anchors); n > 0 {
		prev := sp.anchors[n-1].at
		if prev.seg == start.seg && start.off-prev.off < anchorEvery {
			return st
		}
	}
	sp.anchors = append(sp.anchors, anchor{h.Pre, start})
	return st
}

func (x *index) span(seg uint64, name string) *span {
	spans := x.spans[seg]
	if spans == nil {
		spans = map[string]*span{}
		x.spans[seg] = spans
	}
	sp := spans[name]
	if sp == nil {
		sp = &span{}
		spans[name] = sp
	}
	return sp
}

// rebase starts a database anew after the position of h, of which no pages are
// here. Nothing before at counts any more.
func (x *index) rebase(h *walstream.Header, at, end location) *state {
	st := x.dbs[h.Database]
	if st == nil {
		st = &state{name: h.Database}
		x.dbs[h.Database] = st
	}
	x.prune(h.Database, location{})
	st.base, st.last, st.baseAt, st.end, st.voids = *h, *h, at, end, nil
	st.line++
	st.durable, st.pending = walstream.Position{}, walstream.Position{}
	return st
}

// void takes a void frame at the given location, which ends at end.
func (x *index) void(v *void, at, end location) *state {
	st := x.dbs[v.database]
	if v.forget {
		x.prune(v.database, location{})
		delete(x.dbs, v.database)
		if st != nil {
			st.line++
		}
		return nil
	}
	if st == nil {
		st = &state{name: v.database, baseAt: at}
		x.dbs[v.database] = st
	}
	x.prune(v.database, v.from)
	if v.from.before(st.baseAt) { // what it leaves has been trimmed since
		st.base, st.baseAt = v.last, at
		st.base.Database = v.database
	}
	st.last, st.end = v.last, end
	st.voids = append(slices.Clip(st.voids), interval{v.from, at, v.last})
	st.line++
	if v.last.Post.Compare(st.durable) < 0 {
		st.durable = v.last.Post
	}
	if v.last.Post.Compare(st.pending) < 0 {
		st.pending = v.last.Post
	}
	return st
}

// prune forgets the anchors of a database from a location on.
func (x *index) prune(name string, from location) {
	for _, spans := range x.spans {
		sp := spans[name]
		if sp == nil {
			continue
		}
		n := sort.Search(len(sp.anchors), func(i int) bool { return !sp.anchors[i].at.before(from) })
		if sp.anchors = sp.anchors[:n]; n == 0 {
			delete(spans, name)
		}
	}
	if st := x.dbs[name]; st != nil {
		st.recent = slices.DeleteFunc(st.recent, func(a anchor) bool { return !a.at.before(from) })
	}
}

// dropBefore forgets all segments before seg. roster has the last headers of
// the databases as they were where seg begins.
func (x *index) dropBefore(seg uint64, roster map[string]walstream.Header) {
	for no := range x.spans {
		if no < seg {
			delete(x.spans, no)
		}
	}
	for name, st := range x.dbs {
		if st.baseAt.seg >= seg {
			continue
		}
		h, in := x.baseAfterDrop(st, seg, roster)
		st.base, st.baseAt = h, location{in, 0}
		st.base.Database = name
		st.voids = slices.DeleteFunc(slices.Clone(st.voids), func(v interval) bool { return v.to.seg < seg })
		st.recent = slices.DeleteFunc(st.recent, func(a anchor) bool { return a.at.seg < seg })
		x.cutStraddle(name, seg)
	}
}

// baseAfterDrop returns the header of the last transaction of which nothing
// complete is left once the segments before seg are gone, and the segment from
// which on that is so: a later one, if it ends there.
func (x *index) baseAfterDrop(st *state, seg uint64, roster map[string]walstream.Header) (walstream.Header, uint64) {
	edge := location{seg, 0}
	for no, spans := range x.spans {
		if sp := spans[st.name]; no >= seg && sp != nil && sp.anchors[0].at.before(edge) {
			return sp.straddle, no
		}
	}
	// A void that reaches back over the edge: the roster's is void too.
	var over *interval
	for i, v := range st.voids {
		if v.from.before(edge) && !v.to.before(edge) && (over == nil || v.from.before(over.from)) {
			over = &st.voids[i]
		}
	}
	if over != nil {
		return over.last, seg
	}
	return roster[st.name], seg
}

// cutStraddle forgets the anchor of a transaction whose beginning is gone.
func (x *index) cutStraddle(name string, seg uint64) {
	for _, spans := range x.spans {
		sp := spans[name]
		if sp == nil || sp.anchors[0].at.seg >= seg {
			continue
		}
		if sp.anchors = sp.anchors[1:]; len(sp.anchors) == 0 {
			delete(spans, name)
		}
	}
}

// orphan takes a transaction that ends at end and whose beginning is gone.
func (x *index) orphan(h *walstream.Header, end location) {
	st := x.dbs[h.Database]
	if st == nil {
		st = &state{name: h.Database}
		x.dbs[h.Database] = st
	}
	st.base, st.last, st.end, st.baseAt = *h, *h, end, location{end.seg, 0}
}

// anchor returns from where to scan for the transaction after pos, or, if
// strict, for the one that ends there. False if there is no such place: then
// nothing is kept after pos, or before it.
func (x *index) anchor(name string, pos walstream.Position, strict bool) (location, bool) {
	limit := 1
	if strict {
		limit = 0
	}
	if st := x.dbs[name]; st != nil {
		if at, ok := anchorBefore(st.recent, pos, limit); ok {
			return at, true
		}
	}
	var best location
	for _, spans := range x.spans {
		if sp := spans[name]; sp != nil {
			if at, ok := anchorBefore(sp.anchors, pos, limit); ok && best.before(at) {
				best = at
			}
		}
	}
	return best, best != location{}
}

// anchorBefore returns the last of ascending anchors whose position compares
// with pos as less than limit.
func anchorBefore(anchors []anchor, pos walstream.Position, limit int) (location, bool) {
	i := sort.Search(len(anchors), func(i int) bool { return anchors[i].pre.Compare(pos) >= limit })
	if i == 0 {
		return location{}, false
	}
	return anchors[i-1].at, true
}

// lastAnchor returns the most advanced position of an anchor within a limit;
// zero if there is none.
func (x *index) lastAnchor(name string, within func(walstream.Position) bool) walstream.Position {
	var best walstream.Position
	for _, spans := range x.spans {
		sp := spans[name]
		if sp == nil {
			continue
		}
		i := sort.Search(len(sp.anchors), func(i int) bool { return !within(sp.anchors[i].pre) })
		if i > 0 && sp.anchors[i-1].pre.Compare(best) > 0 {
			best = sp.anchors[i-1].pre
		}
	}
	return best
}

// names returns the names of all databases, sorted.
func (x *index) names() []string {
	names := make([]string, 0, len(x.dbs))
	for name := range x.dbs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
