package stream

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/txlog"
)

var _ Log = (*txlog.Log)(nil)

func openLog(t testing.TB) *txlog.Log {
	t.Helper()
	l, err := txlog.Open(t.TempDir(), txlog.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// One node's log becomes another's, through connections that break, while it
// grows.
func TestLogIsCopiedToAnotherNode(t *testing.T) {
	r := seeded(t)
	from, to := openLog(t), openLog(t)
	const n = 300
	base := walstream.Header{Database: "db", Kind: walstream.KindBase, PageSize: 4096, PageCount: 10, Post: at(1, 1)}
	for _, l := range []*txlog.Log{from, to} {
		if err := l.Base(&base); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]uint32, 400)
	for i := range all {
		all[i] = uint32(i + 1)
	}
	ctx := soon(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	end := walstream.Position{Epoch: 2, TXID: n}
	wg.Go(func() {
		pre := base.Post
		for i := walstream.TXID(2); i <= n; i++ {
			pages := []uint32{1, 2, 1 + uint32(i)}[:1+i%3]
			if i%50 == 0 {
				pages = all // several records
			}
			x := txn(r, "db", i, 4096, pages...)
			x.PageCount, x.Pre, x.Post = 1000, pre, at(pre.Epoch, i)
			if err := from.Append(x, nil); err != nil {
				t.Error(err)
				return
			}
			pre = x.Post
			if i == n/2 {
				x = &walstream.Txn{Header: x.Header, Pages: walstream.NoPages}
				x.Kind, x.Pre, x.Post.Epoch = walstream.KindEpoch, pre, 2
				pre = x.Post
				if err := from.Append(x, nil); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})

	breakAt := seeded(t) // the other source belongs to the writer
	port, _ := serve(t, ServerConfig{Log: from})
	m := &meter{limit: func() int64 { return 10_000 + breakAt.Int64N(1<<20) }}
	c := NewClient(ClientConfig{Dial: m.dialer(port.dial)})
	breaks := 0
	for to.Last("db").Compare(end) < 0 {
		for x, err := range c.Since(ctx, Since{Database: "db", After: to.Last("db"), Until: end, Follow: true}) {
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			if err != nil {
				breaks++
				break
			}
			if x.Txn.Post.TXID%2 == 0 {
				_, err = to.AppendRecords(x.Records())
			} else {
				_, err = to.AppendStream(&x.Txn.Header, x.Txn.Pages)
			}
			if err != nil {
				t.Logf("append: %v", err) // the connection broke within
			}
		}
	}
	t.Logf("copied over %d connections that broke", breaks)
	if to.Last("db") != from.Last("db") {
		t.Errorf("copied up to %v of %v", to.Last("db"), from.Last("db"))
	}
	if _, err := pull(ctx, NewClient(ClientConfig{Dial: port.dial}), Since{Database: "db"}); !errors.Is(err, txlog.ErrTruncated) {
		t.Errorf("from before the base: %v, want ErrTruncated", err)
	}
	compareLogs(t, from, to, base.Post)
}

func compareLogs(t *testing.T, a, b *txlog.Log, after walstream.Position) {
	t.Helper()
	var theirs [][]byte
	for rec, err := range b.Records("db", after) {
		if err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, append([]byte(nil), rec...))
	}
	n := 0
	for rec, err := range a.Records("db", after) {
		if err != nil {
			t.Fatal(err)
		}
		if n >= len(theirs) || string(rec) != string(theirs[n]) {
			t.Fatalf("record %d differs", n)
		}
		n++
	}
	if n != len(theirs) {
		t.Errorf("%d records, want %d", len(theirs), n)
	}
}

// The announced transaction is pulled once it is in the log, also if the
// announcement comes first.
func TestAnnouncedBeforeItIsLogged(t *testing.T) {
	r := seeded(t)
	log := openLog(t)
	if err := log.Append(txn(r, "db", 1, 4096, 1), nil); err != nil {
		t.Fatal(err)
	}
	_, c := serve(t, ServerConfig{Log: log})
	got := make(chan error, 1)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	go func() {
		all, err := pull(ctx, c, Since{Database: "db", After: at(1, 1), Until: at(1, 2), Follow: true})
		if err == nil && (len(all) != 1 || all[0] != at(1, 2)) {
			err = errors.New("got something else")
		}
		got <- err
	}()
	if err := log.Append(txn(r, "db", 2, 4096, 1, 2), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}
