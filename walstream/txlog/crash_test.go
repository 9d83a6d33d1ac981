package txlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

// crasher appends to a log whose disk crashes, and knows which states each
// database may be in afterwards.
type crasher struct {
	rnd *rand.Rand
	fs  *memFS
	log *Log
	dbs map[string]*history
}

// history is the states of one database: those since the last sync that was
// waited for, of which the first must not be lost.
type history struct {
	states []past
}

// past is one state: a line from its beginning, of which the log may have
// dropped what lies before maxBase.
type past struct {
	begin   walstream.Position
	txns    []*walstream.Txn
	maxBase walstream.Position
}

func (h *history) now() past { return h.states[len(h.states)-1] }

func (h *history) push(p past) { h.states = append(h.states, p) }

func (p past) last() walstream.Position {
	if len(p.txns) == 0 {
		return p.begin
	}
	return p.txns[len(p.txns)-1].Post
}

// TestCrash crashes a log at random operations of its disk, hundreds of times.
// What was synced must be there, and of the rest a beginning.
func TestCrash(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	rnd := newRand(t, seed)
	c := &crasher{rnd: rnd, fs: newMemFS(rnd), dbs: map[string]*history{}}
	for _, name := range []string{"a", "bb"} {
		c.dbs[name] = &history{states: []past{{}}}
	}
	crashes := 150
	if testing.Short() {
		crashes = 30
	}
	for i := range crashes {
		c.open(t)
		if t.Failed() {
			t.Fatalf("after crash %d", i)
		}
		c.fs.mu.Lock()
		c.fs.countdown, c.fs.crashed = 1+rnd.IntN(60), nil
		c.fs.mu.Unlock()
		for c.crashed() == nil {
			c.step(t)
		}
		old := c.log
		c.fs = c.crashed()
		_ = old.Close() // on the disk as it would be without the crash
	}
}

func (c *crasher) crashed() *memFS {
	c.fs.mu.Lock()
	defer c.fs.mu.Unlock()
	return c.fs.crashed
}

// open opens the log as the crash left it, and finds out in which of the
// possible states each database is.
func (c *crasher) open(t *testing.T) {
	l, err := Open(t.TempDir(), Options{SegmentSize: 4 << 10, fs: c.fs})
	if err != nil {
		t.Fatal(err)
	}
	c.log = l
	for name, h := range c.dbs {
		i := slices.IndexFunc(h.states, func(p past) bool { return c.matches(name, p) == nil })
		if i < 0 {
			for i, p := range h.states {
				t.Errorf("%s is not in state %d of %d: %v", name, i, len(h.states), c.matches(name, p))
			}
			return
		}
		p := h.states[i]
		p.maxBase = l.First(name)
		h.states = []past{p}
		if got := l.Durable(name); got != p.last() {
			t.Errorf("%s is durable up to %v, last is %v", name, got, p.last())
		}
	}
}

// matches tells whether the log has a database in this state.
func (c *crasher) matches(name string, p past) error {
	if got := c.log.Last(name); got != p.last() {
		return errors.New("last is " + got.String() + ", not " + p.last().String())
	}
	first := c.log.First(name)
	if first.Compare(p.maxBase) > 0 {
		return errors.New("first is " + first.String() + ", at most " + p.maxBase.String())
	}
	want := p.txns
	if first != p.begin {
		i := slices.IndexFunc(want, func(x *walstream.Txn) bool { return x.Post == first })
		if i < 0 {
			return errors.New("first is " + first.String())
		}
		want = want[i+1:]
	}
	i := 0
	for x, err := range c.log.Since(name, first) {
		if err != nil {
			return err
		}
		if i == len(want) {
			return errors.New("too many transactions")
		}
		if err := same(x, want[i]); err != nil {
			return err
		}
		i++
	}
	if i < len(want) {
		return errors.New("transactions are missing")
	}
	return nil
}

func (c *crasher) step(t *testing.T) {
	name := []string{"a", "bb"}[c.rnd.IntN(2)]
	h := c.dbs[name]
	p := h.now()
	switch n := c.rnd.IntN(100); {
	case n < 60:
		c.append(t, name, 1+c.rnd.IntN(3))
	case n < 66:
		c.append(t, name, 300)
	case n < 70:
		c.breakOff(t, name)
	case n < 74:
		pos := walstream.Position{Epoch: p.last().Epoch + 1, TXID: p.last().TXID, Checksum: walstream.ChecksumFlag | walstream.Checksum(c.rnd.Uint64())}
		h.push(past{begin: pos, maxBase: pos})
		c.must(t, c.log.Base(base(name, pos)))
	case n < 82:
		c.void(t, name)
	case n < 86:
		c.trim(t)
	default:
		c.sync(t)
	}
}

func (c *crasher) must(t *testing.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (c *crasher) append(t *testing.T, name string, n int) {
	h := c.dbs[name]
	p := h.now()
	x := txn(c.rnd, name, p.last(), n)
	p.txns = append(slices.Clip(p.txns), x)
	h.push(p)
	c.must(t, c.log.Append(x, nil))
}

func (c *crasher) breakOff(t *testing.T, name string) {
	x := txn(c.rnd, name, c.dbs[name].now().last(), 600)
	_, err := c.log.AppendStream(&x.Header, func(yield func(walstream.Page, error) bool) {
		for p, err := range x.Pages {
			if p.No == 300 && c.rnd.IntN(2) == 0 {
				c.sync(t)
			}
			if p.No == 590 {
				yield(walstream.Page{}, errBroken)
				return
			}
			if !yield(p, err) {
				return
			}
		}
	})
	if !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
}

func (c *crasher) void(t *testing.T, name string) {
	h := c.dbs[name]
	p := h.now()
	var on []walstream.Position // what the log has
	if p.maxBase.Compare(p.begin) <= 0 {
		on = append(on, p.begin)
	}
	for _, x := range p.txns {
		if x.Post.Compare(p.maxBase) >= 0 {
			on = append(on, x.Post)
		}
	}
	to := on[c.rnd.IntN(len(on))]
	p.txns = p.txns[:slices.IndexFunc(p.txns, func(x *walstream.Txn) bool { return x.Post == to })+1]
	h.push(p)
	c.must(t, c.log.Void(name, to))
	c.settle()
}

func (c *crasher) trim(t *testing.T) {
	dropped, err := c.log.Trim(func(db string) walstream.Position { return c.log.Last(db) }, 0)
	c.must(t, err)
	for _, d := range dropped {
		h := c.dbs[d.Database]
		p := h.now()
		p.maxBase = d.To
		h.push(p)
	}
	// Trim syncs when it drops something; not counting on it allows more states.
	for _, h := range c.dbs {
		for i := range h.states {
			h.states[i].maxBase = maxPosition(h.states[i].maxBase, h.now().maxBase)
		}
	}
}

func maxPosition(a, b walstream.Position) walstream.Position {
	if a.Compare(b) > 0 {
		return a
	}
	return b
}

func (c *crasher) sync(t *testing.T) {
	c.must(t, c.log.Sync(context.Background()))
	c.settle()
}

// settle forgets the states that a sync has left behind, unless the crash came
// before it had ended.
func (c *crasher) settle() {
	if c.crashed() != nil {
		return
	}
	for _, h := range c.dbs {
		h.states = []past{h.now()}
	}
}
