package txlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
)

const pageSize = 1024

// openLog opens a log that is closed at the end of the test.
func openLog(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// reopen closes a log and opens it again.
func reopen(t testing.TB, l *Log, dir string, o Options) *Log {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return openLog(t, dir, o)
}

// txn returns the transaction that follows pre, of n pages with random content.
func txn(rnd *rand.Rand, db string, pre walstream.Position, n int) *walstream.Txn {
	h := walstream.Header{
		Database: db, Kind: walstream.KindPages, PageSize: pageSize, PageCount: uint32(n) + 5,
		Time: time.UnixMilli(rnd.Int64N(1 << 40)).UTC(), Pre: pre,
		Post: walstream.Position{
			Epoch: max(pre.Epoch, 1), TXID: pre.TXID + 1 + walstream.TXID(rnd.IntN(3)),
			Checksum: walstream.ChecksumFlag | walstream.Checksum(rnd.Uint64()),
		},
		Place: walstream.Place{Inode: rnd.Uint64(), Frame: rnd.Uint32()},
	}
	seed := rnd.Uint64()
	return &walstream.Txn{Header: h, Pages: func(yield func(walstream.Page, error) bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, pageSize)
		for no := range n {
			for i := 0; i < len(data); i += 8 {
				be.PutUint64(data[i:], r.Uint64())
			}
			if !yield(walstream.Page{No: uint32(no) + 2, Data: data}, nil) {
				return
			}
		}
	}}
}

// epochRecord returns the epoch record that follows pre.
func epochRecord(db string, pre walstream.Position) *walstream.Txn {
	post := pre
	post.Epoch++
	return &walstream.Txn{
		Header: walstream.Header{
			Database: db, Kind: walstream.KindEpoch, PageSize: pageSize, Pre: pre, Post: post, Time: time.UnixMilli(5).UTC(),
		},
		Pages: walstream.NoPages,
	}
}

func base(db string, pos walstream.Position) *walstream.Header {
	return &walstream.Header{Database: db, Kind: walstream.KindBase, PageSize: pageSize, PageCount: 9, Post: pos, Time: time.UnixMilli(5).UTC()}
}

// same tells whether two transactions have the same header and pages.
func same(a, b *walstream.Txn) error {
	if a.Header != b.Header {
		return fmt.Errorf("header is\n%+v, want\n%+v", a.Header, b.Header)
	}
	pages := map[uint32][]byte{}
	for p, err := range a.Pages {
		if err != nil {
			return err
		}
		pages[p.No] = bytes.Clone(p.Data)
	}
	n := 0
	for p := range b.Pages {
		n++
		if !bytes.Equal(pages[p.No], p.Data) {
			return fmt.Errorf("page %d differs", p.No)
		}
	}
	if n != len(pages) {
		return fmt.Errorf("%d pages, want %d", len(pages), n)
	}
	return nil
}

// fill appends n transactions of one page and returns them.
func fill(t testing.TB, l *Log, rnd *rand.Rand, db string, n int) []*walstream.Txn {
	t.Helper()
	var out []*walstream.Txn
	for range n {
		x := txn(rnd, db, l.Last(db), 1)
		if err := l.Append(x, nil); err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// expect checks that exactly these transactions follow a position.
func expect(t testing.TB, l *Log, db string, after walstream.Position, want []*walstream.Txn) {
	t.Helper()
	i := 0
	for x, err := range l.Since(db, after) {
		if err != nil {
			t.Fatalf("after %d of %d: %v", i, len(want), err)
		}
		if i >= len(want) {
			t.Fatalf("more than %d transactions", len(want))
		}
		if err := same(x, want[i]); err != nil {
			t.Fatalf("transaction %d of %d: %v", i, len(want), err)
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("%d transactions, want %d", i, len(want))
	}
}

func newRand(t testing.TB, seed uint64) *rand.Rand {
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
