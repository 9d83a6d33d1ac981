package txlog

import (
	"sync"
	"testing"

	"github.com/lsnode/lsnode/walstream"
)

// BenchmarkAppend appends transactions of one page as a primary does: encoded
// already, not synced.
func BenchmarkAppend(b *testing.B) {
	rnd := newRand(b, 1)
	l := openLog(b, b.TempDir(), Options{})
	x := txn(rnd, "a", walstream.Position{}, 1)
	b.ReportAllocs()
	for b.Loop() {
		record, _, err := walstream.EncodeOne(x, walstream.MaxRecordSize)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Append(x, [][]byte{record}); err != nil {
			b.Fatal(err)
		}
		x.Pre = x.Post
		x.Post.TXID++
	}
}

// BenchmarkSince reads transactions of one page.
func BenchmarkSince(b *testing.B) {
	rnd := newRand(b, 1)
	l := openLog(b, b.TempDir(), Options{})
	fill(b, l, rnd, "a", 5000)
	b.ReportAllocs()
	n := 0
	for n < b.N {
		for x, err := range l.Since("a", walstream.Position{}) {
			if err != nil || x.Post.TXID == 0 {
				b.Fatal(err)
			}
			if n++; n == b.N {
				break
			}
		}
	}
}

// BenchmarkSyncShared has many callers that append and wait.
func BenchmarkSyncShared(b *testing.B) {
	l := openLog(b, b.TempDir(), Options{})
	rnd := newRand(b, 1)
	x := txn(rnd, "a", walstream.Position{}, 1)
	b.SetParallelism(16)
	var mu sync.Mutex
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			err := l.Append(x, nil)
			x.Pre = x.Post
			x.Post.TXID++
			mu.Unlock()
			if err != nil {
				b.Error(err)
				return
			}
			if err := l.Sync(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
