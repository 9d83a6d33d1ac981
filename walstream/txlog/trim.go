package txlog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lsnode/lsnode/walstream"
)

// Dropped says what [Log.Trim] has taken from the log of one database.
type Dropped struct {
	Database string
	From, To walstream.Position // First before and after
	Keep     walstream.Position // what the caller had asked to keep from
	Early    bool               // the bound on bytes forced out what was to be kept
}

// Trim drops whole old segments. A segment goes if each database's transactions
// in it end at or before keep of that database (zero keeps all); and, with a
// maxBytes above zero, in any case while the log is longer than that: such drops
// are marked as early. The last segment always stays, and so does one in which a
// large transaction under way began. No database loses its last position, even
// if no transaction of it is left. keep is called without locks held.
func (l *Log) Trim(keep func(db string) walstream.Position, maxBytes int64) ([]Dropped, error) {
	dropped := map[string]*Dropped{}
	var err error
	for more := true; more && err == nil; {
		more, err = l.trimOne(keep, maxBytes, dropped)
	}
	out := make([]Dropped, 0, len(dropped))
	for _, d := range dropped {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Dropped) int { return strings.Compare(a.Database, b.Database) })
	if err != nil {
		return out, fmt.Errorf("trim log: %w", err)
	}
	return out, nil
}

// trimOne drops the oldest segment, if it may go.
func (l *Log) trimOne(keep func(string) walstream.Position, maxBytes int64, dropped map[string]*Dropped) (bool, error) {
	oldest, next, size, err := l.oldest()
	if err != nil || oldest == nil {
		return false, err
	}
	defer func() { _ = next.release() }() // it was only read
	roster, err := next.roster()
	if err != nil {
		return false, err
	}
	kept := map[string]walstream.Position{}
	for _, db := range l.Databases() {
		kept[db] = keep(db)
	}
	early := maxBytes > 0 && size > maxBytes
	if !early && !l.mayGo(next.no, roster, kept) {
		return false, nil
	}
	// What the dropped segment says of the databases the next one must hold.
	if err := l.Sync(context.Background()); err != nil {
		return false, err
	}
	return l.drop(oldest, roster, kept, dropped)
}

// oldest returns the oldest segment and the next, which the caller releases, and
// the bytes of the whole log; nil if the oldest must stay.
func (l *Log) oldest() (oldest, next *segment, size int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.mu.segs
	if l.mu.failed != nil || len(segs) < 2 {
		return nil, nil, 0, l.mu.failed
	}
	for _, p := range l.mu.streams {
		if p.start.seg <= segs[0].no {
			return nil, nil, 0, nil
		}
	}
	for _, s := range segs {
		size += s.end + s.footerSize
	}
	segs[1].acquire()
	return segs[0], segs[1], size, nil
}

// roster reads the headers with which the segment begins, by database.
func (s *segment) roster() (map[string]walstream.Header, error) {
	scan := &scanner{segs: []*segment{s}, ends: []int64{s.begin}, at: location{s.no, segmentHeader}}
	headers, err := readRoster(scan, s.head.rosters)
	if err != nil {
		return nil, err
	}
	m := make(map[string]walstream.Header, len(headers))
	for _, h := range headers {
		m[h.Database] = h
	}
	return m, nil
}

// mayGo tells whether all that lies before segment no may be dropped.
func (l *Log) mayGo(no uint64, roster map[string]walstream.Header, kept map[string]walstream.Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, st := range l.mu.index.dbs {
		if st.baseAt.seg >= no {
			continue
		}
		h, _ := l.mu.index.baseAfterDrop(st, no, roster)
		if h.Post.Compare(st.base.Post) > 0 && h.Post.Compare(kept[name]) > 0 {
			return false
		}
	}
	return true
}

// drop removes the oldest segment, and notes what each database lost.
func (l *Log) drop(oldest *segment, roster map[string]walstream.Header, kept map[string]walstream.Position, dropped map[string]*Dropped) (bool, error) {
	l.files.Lock()
	defer l.files.Unlock()
	l.mu.Lock()
	ok := len(l.mu.segs) > 1 && l.mu.segs[0] == oldest && l.mu.failed == nil
	l.mu.Unlock()
	if !ok {
		return false, nil
	}
	if err := l.removeFile(oldest.no); err != nil {
		return false, err
	}
	l.mu.Lock()
	before := map[string]walstream.Position{}
	for name, st := range l.mu.index.dbs {
		before[name] = st.base.Post
	}
	l.mu.segs = l.mu.segs[1:]
	l.mu.index.dropBefore(l.mu.segs[0].no, roster)
	for name, st := range l.mu.index.dbs {
		from, to := before[name], st.base.Post
		if from == to {
			continue
		}
		if dropped[name] == nil {
			dropped[name] = &Dropped{Database: name, From: from}
		}
		d := dropped[name]
		d.To, d.Keep = to, kept[name]
		d.Early = to.Compare(d.Keep) > 0
	}
	l.mu.Unlock()
	return true, oldest.release()
}
