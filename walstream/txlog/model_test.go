package txlog

import (
	"context"
	"errors"
	"flag"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: another each time")

// model is what a log should hold.
type model struct {
	rnd *rand.Rand
	log *Log
	dir string
	o   Options
	dbs map[string]*line
}

// line is one database of the model.
type line struct {
	base walstream.Position
	head walstream.Header // of the record at base; Kind 0: none
	txns []*walstream.Txn
}

func (n *line) last() walstream.Position {
	if len(n.txns) == 0 {
		return n.base
	}
	return n.txns[len(n.txns)-1].Post
}

// positions returns base and every position after it.
func (n *line) positions() []walstream.Position {
	out := []walstream.Position{n.base}
	for _, x := range n.txns {
		out = append(out, x.Post)
	}
	return out
}

var errBroken = errors.New("broken off")

// TestModel does random things to a log and to a model of it.
func TestModel(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	steps := 400
	if testing.Short() {
		steps = 100
	}
	m := &model{rnd: newRand(t, seed), dir: t.TempDir(), dbs: map[string]*line{}}
	m.o.SegmentSize = []int64{3 << 10, 20 << 10, 600 << 10}[m.rnd.IntN(3)]
	m.log = openLog(t, m.dir, m.o)
	for i := range steps {
		name := []string{"a", "bb", "ccc"}[m.rnd.IntN(3)]
		what := m.step(t, name)
		if testing.Verbose() {
			t.Logf("%d %s %s: %v to %v", i, what, name, m.line(name).base, m.line(name).last())
		}
		if t.Failed() {
			t.Fatalf("step %d: %s %s", i, what, name)
		}
		m.check(t, name)
		if i%20 == 0 || what == "reopen" || what == "trim" {
			for _, name := range []string{"a", "bb", "ccc"} {
				m.check(t, name)
			}
		}
		if t.Failed() {
			t.Fatalf("after step %d: %s %s", i, what, name)
		}
	}
}

func (m *model) line(name string) *line {
	if m.dbs[name] == nil {
		m.dbs[name] = &line{}
	}
	return m.dbs[name]
}

func (m *model) step(t *testing.T, name string) string {
	n := m.rnd.IntN(100)
	switch {
	case n < 45:
		m.append(t, name, 1+m.rnd.IntN(3))
		return "append"
	case n < 52:
		m.append(t, name, 300+m.rnd.IntN(600))
		return "append large"
	case n < 58:
		m.breakOff(t, name)
		return "break off"
	case n < 63:
		m.append(t, name, 0)
		return "epoch"
	case n < 66:
		m.rebase(t, name)
		return "base"
	case n < 74:
		m.void(t, name)
		return "void"
	case n < 76:
		if err := m.log.Forget(name); err != nil {
			t.Error(err)
		}
		delete(m.dbs, name)
		return "forget"
	case n < 84:
		m.trim(t)
		return "trim"
	case n < 90:
		if err := m.log.Sync(context.Background()); err != nil {
			t.Error(err)
		}
		return "sync"
	default:
		m.log = reopen(t, m.log, m.dir, m.o)
		return "reopen"
	}
}

// append appends a transaction of n pages, or an epoch record, in one of the
// ways there are.
func (m *model) append(t *testing.T, name string, n int) {
	l := m.line(name)
	x := txn(m.rnd, name, l.last(), n)
	if n == 0 {
		x = epochRecord(name, l.last())
	}
	var err error
	switch m.rnd.IntN(4) {
	case 0:
		err = m.log.Append(x, nil)
	case 1:
		err = m.log.Append(x, slices.Collect(records(x)))
	case 2:
		_, err = m.log.AppendStream(&x.Header, x.Pages)
	default:
		_, err = m.log.AppendRecords(withNil(records(x)))
	}
	if err != nil {
		t.Error(err)
	}
	l.txns = append(l.txns, x)
}

func records(x *walstream.Txn) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		_ = walstream.Encode(x, func(b []byte) error {
			if !yield(slices.Clone(b)) {
				return errBroken
			}
			return nil
		})
	}
}

func withNil(s iter.Seq[[]byte]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for b := range s {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// breakOff begins a large transaction that does not end; sometimes another
// database appends meanwhile.
func (m *model) breakOff(t *testing.T, name string) {
	x := txn(m.rnd, name, m.line(name).last(), 900)
	other := m.rnd.IntN(2) == 0
	pages := func(yield func(walstream.Page, error) bool) {
		for p, err := range x.Pages {
			if p.No == 400 && other {
				m.append(t, "other", 1)
			}
			if p.No == 700 {
				yield(walstream.Page{}, errBroken)
				return
			}
			if !yield(p, err) {
				return
			}
		}
	}
	if _, err := m.log.AppendStream(&x.Header, pages); !errors.Is(err, errBroken) {
		t.Errorf("broken off: %v", err)
	}
}

func (m *model) rebase(t *testing.T, name string) {
	pos := walstream.Position{Epoch: 3, TXID: walstream.TXID(m.rnd.IntN(100)), Checksum: walstream.ChecksumFlag | 5}
	h := base(name, pos)
	if err := m.log.Base(h); err != nil {
		t.Error(err)
	}
	m.dbs[name] = &line{base: pos, head: *h}
}

func (m *model) void(t *testing.T, name string) {
	l := m.line(name)
	i := m.rnd.IntN(len(l.txns) + 1)
	if err := m.log.Void(name, l.positions()[i]); err != nil {
		t.Error(err)
	}
	l.txns = l.txns[:i]
}

func (m *model) trim(t *testing.T) {
	keep := map[string]walstream.Position{}
	for name, l := range m.dbs {
		all := l.positions()
		keep[name] = all[m.rnd.IntN(len(all))]
	}
	bound := int64(m.rnd.IntN(2)) * (1 << 20)
	dropped, err := m.log.Trim(func(db string) walstream.Position { return keep[db] }, bound)
	if err != nil {
		t.Error(err)
	}
	for _, d := range dropped {
		l := m.dbs[d.Database]
		i := slices.Index(l.positions(), d.To)
		if d.From != l.base || i < 1 || d.Early != (d.To.Compare(keep[d.Database]) > 0) || (d.Early && bound == 0) {
			t.Errorf("dropped %+v, base %v, bound %d", d, l.base, bound)
			continue
		}
		l.base, l.head, l.txns = d.To, l.txns[i-1].Header, l.txns[i:]
	}
}

// check compares log and model of one database.
func (m *model) check(t *testing.T, name string) {
	t.Helper()
	l := m.dbs[name]
	if l == nil {
		l = &line{}
	}
	if got := m.log.Last(name); got != l.last() {
		t.Errorf("%s: last is %v, want %v", name, got, l.last())
	}
	if got := m.log.First(name); got != l.base {
		t.Errorf("%s: first is %v, want %v", name, got, l.base)
	}
	want := l.head
	if n := len(l.txns); n > 0 {
		want = l.txns[n-1].Header
	}
	if got, ok := m.log.LastHeader(name); got != want || ok != (want.Kind != 0) {
		t.Errorf("%s: last header is %+v, %v, want %+v", name, got, ok, want)
	}
	all := l.positions()
	i := m.rnd.IntN(len(all))
	expect(t, m.log, name, all[i], l.txns[i:])
	expect(t, m.log, name, all[0], l.txns)
	m.checkAt(t, name, l)
	wrong := all[i]
	wrong.Checksum ^= 2
	for _, err := range m.log.Since(name, wrong) {
		if !errors.Is(err, ErrNotOnLine) {
			t.Errorf("%s: since %v: %v", name, wrong, err)
		}
	}
	if l.base.TXID > 0 {
		for _, err := range m.log.Since(name, walstream.Position{}) {
			if !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: since nothing: %v", name, err)
			}
		}
	}
}

func (m *model) checkAt(t *testing.T, name string, l *line) {
	t.Helper()
	if m.dbs[name] == nil || (l.base.IsZero() && len(l.txns) == 0) {
		return
	}
	limit := walstream.Position{
		Epoch: l.base.Epoch + walstream.Epoch(m.rnd.IntN(3)),
		TXID:  l.base.TXID + walstream.TXID(m.rnd.IntN(len(l.txns)*2+2)),
	}
	var at, floor walstream.Position
	floorOK := false
	for _, p := range l.positions() {
		if p.TXID <= limit.TXID {
			at = p
		}
		if p.Compare(limit) <= 0 {
			floor, floorOK = p, true
		}
	}
	if got, ok := m.log.At(name, limit.TXID); !ok || got != at {
		t.Errorf("%s: at %v is %v, %v, want %v", name, limit.TXID, got, ok, at)
	}
	if got, ok := m.log.Floor(name, limit); ok != floorOK || got != floor {
		t.Errorf("%s: floor of %v is %v, %v, want %v", name, limit, got, ok, floor)
	}
}
