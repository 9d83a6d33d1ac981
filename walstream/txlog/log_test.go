package txlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/lsnode/lsnode/walstream"
)

func TestGapIsRefused(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{})
	want := fill(t, l, rnd, "a", 3)
	for _, pre := range []walstream.Position{{}, want[0].Post, {Epoch: 1, TXID: 99, Checksum: 5}} {
		if err := l.Append(txn(rnd, "a", pre, 1), nil); !errors.Is(err, ErrGap) {
			t.Errorf("after %v: %v", pre, err)
		}
		if _, err := l.AppendRecords(withNil(records(txn(rnd, "a", pre, 1)))); !errors.Is(err, ErrGap) {
			t.Errorf("records after %v: %v", pre, err)
		}
	}
	expect(t, l, "a", walstream.Position{}, want)
}

func TestAppendChecksWhatItIsGiven(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{})
	x, y := txn(rnd, "a", walstream.Position{}, 600), txn(rnd, "b", walstream.Position{}, 1)
	parts := [][]byte{}
	for b := range records(x) {
		parts = append(parts, b)
	}
	bad := append([]byte(nil), parts[0]...)
	bad[len(bad)-1]++
	for name, encoded := range map[string][][]byte{
		"damaged":      {bad, parts[1], parts[2]},
		"last missing": parts[:2],
		"out of order": {parts[0], parts[2]},
		"no first":     parts[1:],
	} {
		if err := l.Append(x, encoded); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for b := range records(y) {
		if err := l.Append(x, [][]byte{b}); err == nil {
			t.Error("another database's record: no error")
		}
	}
	if got := l.Databases(); len(got) != 0 {
		t.Errorf("databases %v", got)
	}
	if err := l.Append(x, parts); err != nil {
		t.Error(err)
	}
	expect(t, l, "a", walstream.Position{}, []*walstream.Txn{x})
}

func TestChecksumIsKnownAfterTheWalk(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{})
	for _, n := range []int{1, 700} {
		x := txn(rnd, "a", l.Last("a"), n)
		want := x.Post
		h := x.Header
		h.Post.Checksum = 0
		got, err := l.AppendStream(&h, func(yield func(walstream.Page, error) bool) {
			x.Pages(yield)
			h.Post.Checksum = want.Checksum
		})
		if err != nil || got != want || l.Last("a") != want {
			t.Errorf("%d pages: %v, %v, want %v", n, got, err, want)
		}
	}
}

func TestNotifyAndDurable(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{})
	ch, other := l.Notify("a"), l.Notify("b")
	select {
	case <-ch:
		t.Error("notified of nothing")
	default:
	}
	x := fill(t, l, rnd, "a", 1)[0]
	<-ch
	select {
	case <-other:
		t.Error("notified of another database")
	default:
	}
	if got := l.Durable("a"); !got.IsZero() {
		t.Errorf("durable before a sync: %v", got)
	}
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.Durable("a"); got != x.Post {
		t.Errorf("durable is %v, want %v", got, x.Post)
	}
	ch = l.Notify("a")
	if err := l.Void("a", walstream.Position{}); err != nil {
		t.Fatal(err)
	}
	<-ch
	if got := l.Durable("a"); !got.IsZero() {
		t.Errorf("durable after a void: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fill(t, l, rnd, "a", 1)
	if err := l.Sync(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Writers of several databases, readers and syncs at the same time.
func TestConcurrent(t *testing.T) {
	const writers, each = 4, 150
	l := openLog(t, t.TempDir(), Options{SegmentSize: 40 << 10})
	var all sync.WaitGroup
	var g errgroup.Group
	for w := range writers {
		name := fmt.Sprint("db", w)
		rnd := newRand(t, uint64(w))
		all.Add(1)
		g.Go(func() error {
			defer all.Done()
			var pre walstream.Position
			for i := range each {
				n := 1
				if i%50 == 49 {
					n = 600
				}
				x := txn(rnd, name, pre, n)
				if err := l.Append(x, nil); err != nil {
					return err
				}
				pre = x.Post
				if i%20 == 0 {
					if err := l.Sync(t.Context()); err != nil {
						return err
					}
					if got := l.Durable(name); got != pre {
						return fmt.Errorf("%s: durable %v, want %v", name, got, pre)
					}
				}
			}
			return nil
		})
		g.Go(func() error { return follow(l, name, each) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// follow reads n transactions as they come.
func follow(l *Log, name string, n int) error {
	var at walstream.Position
	for n > 0 {
		changed := l.Notify(name)
		for x, err := range l.Since(name, at) {
			if err != nil {
				return err
			}
			for _, err := range x.Pages {
				if err != nil {
					return err
				}
			}
			if x.Pre != at {
				return fmt.Errorf("%s: %v follows %v", name, x.Pre, at)
			}
			at = x.Post
			n--
		}
		if n > 0 {
			<-changed
		}
	}
	return nil
}

// A reader in the middle of what is voided ends with an error; one before it
// sees the new line.
func TestVoidUnderReaders(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{SegmentSize: 3 << 10})
	old := fill(t, l, rnd, "a", 10)
	n := 0
	var last error
	for x, err := range l.Since("a", walstream.Position{}) {
		if last = err; err != nil {
			break
		}
		if n++; n == 6 {
			if x.Post != old[5].Post {
				t.Fatal("wrong transaction")
			}
			if err := l.Void("a", old[2].Post); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 6 || !errors.Is(last, ErrNotOnLine) {
		t.Errorf("after %d: %v", n, last)
	}
	n = 0
	var got []walstream.Position
	for x, err := range l.Since("a", walstream.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, x.Post); n == 0 {
			if err := l.Void("a", old[1].Post); err != nil {
				t.Fatal(err)
			}
			old = append(old[:2:2], fill(t, l, rnd, "a", 2)...)
		}
		n++
	}
	if len(got) != 4 || got[1] != old[1].Post || got[3] != old[3].Post {
		t.Errorf("reader before the void saw %v", got)
	}
}

// A reader goes on over segments that are trimmed under it.
func TestTrimUnderReaders(t *testing.T) {
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{SegmentSize: 3 << 10})
	all := fill(t, l, rnd, "a", 20)
	n := 0
	for x, err := range l.Since("a", walstream.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := same(x, all[n]); err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			if _, err := l.Trim(l.Last, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n != 20 || l.First("a") == (walstream.Position{}) {
		t.Errorf("%d read, first is %v", n, l.First("a"))
	}
}

func TestTrim(t *testing.T) {
	rnd := newRand(t, 1)
	dir := t.TempDir()
	o := Options{SegmentSize: 3 << 10}
	l := openLog(t, dir, o)
	quiet := fill(t, l, rnd, "quiet", 1)[0]
	all := fill(t, l, rnd, "a", 20)
	none := func(string) walstream.Position { return walstream.Position{} }
	if d, err := l.Trim(none, 0); len(d) > 0 || err != nil {
		t.Errorf("trimmed %v, %v", d, err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	d, err := l.Trim(none, 10<<10)
	if err != nil || len(d) != 2 || !d[0].Early || !d[1].Early || d[0].Database != "a" || d[0].To != l.First("a") {
		t.Errorf("bound dropped %+v, %v", d, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	size := int64(0)
	for _, name := range left {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 12<<10 || len(left) >= len(files) || len(left) < 2 {
		t.Errorf("%d of %d files left, %d bytes", len(left), len(files), size)
	}
	for range 2 { // a database of which nothing is left keeps its position
		if l.Last("quiet") != quiet.Post || l.First("quiet") != quiet.Post {
			t.Errorf("quiet: %v to %v", l.First("quiet"), l.Last("quiet"))
		}
		if h, ok := l.LastHeader("quiet"); !ok || h != quiet.Header {
			t.Errorf("last header %+v", h)
		}
		for _, err := range l.Since("quiet", walstream.Position{}) {
			if !errors.Is(err, ErrTruncated) {
				t.Error(err)
			}
		}
		l = reopen(t, l, dir, o)
	}
	if d, err := l.Trim(func(string) walstream.Position { return all[17].Post }, 0); err != nil || len(d) != 1 || d[0].Early {
		t.Errorf("trimmed %+v, %v", d, err)
	}
	if l.First("a").Compare(all[17].Post) > 0 {
		t.Errorf("first is %v, kept from %v", l.First("a"), all[17].Post)
	}
}

// Two databases whose names have the same hash are told apart.
func TestSameHash(t *testing.T) {
	rnd := newRand(t, 1)
	seen := map[uint32]string{}
	var one, two string
	for i := 0; two == ""; i++ {
		name := fmt.Sprintf("%x", rnd.Uint64())
		if h := walstream.NameHash(name); seen[h] != "" {
			one, two = seen[h], name
		} else {
			seen[h] = name
		}
	}
	dir := t.TempDir()
	l := openLog(t, dir, Options{SegmentSize: 5 << 10})
	var a, b []*walstream.Txn
	for range 5 {
		a = append(a, fill(t, l, rnd, one, 1)...)
		b = append(b, fill(t, l, rnd, two, 1)...)
	}
	for range 2 {
		expect(t, l, one, walstream.Position{}, a)
		expect(t, l, two, walstream.Position{}, b)
		l = reopen(t, l, dir, Options{SegmentSize: 5 << 10})
	}
}

// A large transaction is neither written nor read through memory.
func TestLargeTransactionInLittleMemory(t *testing.T) {
	const n = 24 << 10 // pages: 24 MiB
	rnd := newRand(t, 1)
	l := openLog(t, t.TempDir(), Options{SegmentSize: 4 << 20})
	x := txn(rnd, "a", walstream.Position{}, n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := l.AppendStream(&x.Header, x.Pages); err != nil {
		t.Fatal(err)
	}
	pages := 0
	for x, err := range l.Since("a", walstream.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range x.Pages {
			if err != nil {
				t.Fatal(err)
			}
			pages++
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > n*pageSize/2 || pages != n {
		t.Errorf("%d bytes allocated for %d pages of %d", got, pages, n)
	}
}
