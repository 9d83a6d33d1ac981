package txlog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lsnode/lsnode/walstream"
)

// sample returns the files of a log of two segments with all kinds of frames.
func sample(t testing.TB) *memFS {
	rnd := rand.New(rand.NewPCG(1, 1))
	m := newMemFS(rnd)
	l := openLog(t, t.TempDir(), Options{SegmentSize: 4 << 10, fs: m})
	want := fill(t, l, rnd, "a", 2)
	fill(t, l, rnd, "b", 1)
	if err := errors.Join(l.Void("a", want[0].Post), l.Base(base("c", want[1].Post))); err != nil {
		t.Fatal(err)
	}
	fill(t, l, rnd, "a", 2)
	if err := l.Forget("c"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// Whatever the files hold: no panic, no large allocation, no other error than
// those that say what is wrong.
func FuzzOpen(f *testing.F) {
	m := sample(f)
	first, second := m.files[segmentName(1)].data, m.files[segmentName(2)].data
	f.Add(first, second, -1, byte(0))
	f.Add(first, second, 700, byte(1))
	f.Add(second, first, 20, byte(1))
	f.Add(first[:len(first)-5], second[:100], 0, byte(0))
	f.Fuzz(func(t *testing.T, first, second []byte, at int, change byte) {
		m := newMemFS(rand.New(rand.NewPCG(1, 1)))
		for i, b := range [][]byte{first, second} {
			b = slices.Clone(b)
			if at >= 0 && at < len(b) {
				b[at] ^= change
			}
			m.files[segmentName(uint64(i+1))] = newMemFile(m, b)
		}
		l, err := Open(t.TempDir(), Options{SegmentSize: 4 << 10, fs: m})
		if err != nil {
			var damage *CorruptError
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
			return
		}
		for _, db := range l.Databases() {
			for x, err := range l.Since(db, l.First(db)) {
				if err != nil {
					break
				}
				for range x.Pages {
				}
			}
			l.At(db, 2)
			_ = l.Void(db, l.First(db))
		}
		_, _ = l.Trim(l.Last, 1)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// What parses as a footer is written as the same footer again.
func FuzzFooter(f *testing.F) {
	b := sample(f).files[segmentName(1)].data
	offset, size, _, err := parseFooterTail(b[len(b)-footerTail:], int64(len(b)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[offset : offset+int64(size)])
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := parseFooter(b)
		if err != nil {
			if !errors.Is(err, walstream.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := parseFooter(appendFooter(nil, 0, entries)[:len(b)])
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%d entries, then %d: %v", len(entries), len(again), err)
		}
		x := newIndex()
		for i := range entries {
			x.load(3, 2, &entries[i])
		}
		x.dropBefore(4, nil)
	})
}

// Control frames: what parses is written as the same bytes again.
func FuzzControl(f *testing.F) {
	v := &void{database: "a", from: location{1, 2}, last: *base("a", walstream.Position{Epoch: 1, TXID: 2, Checksum: 3})}
	f.Add(appendVoid(nil, v), false)
	f.Add(appendVoid(nil, &void{database: "a", forget: true}), true)
	f.Add(appendMark(nil, location{3, 4}), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if n, err := controlSize(b); fix && err == nil && n <= len(b) {
			b = appendControl(nil, b[5], b[controlHeader:n])
		}
		kind, body, err := parseControl(b)
		if err != nil {
			return
		}
		if kind != controlVoid {
			return
		}
		v, err := parseVoid(body)
		if err != nil {
			return
		}
		w, err := parseVoid(appendVoid(nil, v)[controlHeader:])
		if err != nil || *w != *v {
			t.Fatalf("%+v, then %+v: %v", v, w, err)
		}
	})
}
