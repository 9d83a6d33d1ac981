package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/txlog"
)

// memLog is a log in memory, of one database.
type memLog struct {
	mu       sync.Mutex
	db       string
	first    walstream.Position
	txns     []memTxn
	appended chan struct{}
}

type memTxn struct {
	walstream.Header
	records [][]byte
}

func newMemLog(db string) *memLog { return &memLog{db: db, appended: make(chan struct{})} }

func (l *memLog) append(t testing.TB, x *walstream.Txn) {
	t.Helper()
	recs := records(t, x)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txns = append(l.txns, memTxn{x.Header, recs})
	close(l.appended)
	l.appended = make(chan struct{})
}

// drop drops the oldest n transactions.
func (l *memLog) drop(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = l.txns[n-1].Post
	l.txns = l.txns[n:]
}

func (l *memLog) Databases() []string { return []string{l.db} }

func (l *memLog) First(string) walstream.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

func (l *memLog) Last(db string) walstream.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if db != l.db || len(l.txns) == 0 {
		return walstream.Position{}
	}
	return l.txns[len(l.txns)-1].Post
}

func (l *memLog) Durable(db string) walstream.Position { return l.Last(db) }

func (l *memLog) Notify(string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appended
}

func (l *memLog) Records(_ string, after walstream.Position) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		rest, err := l.after(after)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, x := range rest {
			for _, b := range x.records {
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

func (l *memLog) after(p walstream.Position) ([]memTxn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p == l.first {
		return slices.Clone(l.txns), nil
	}
	if p.TXID < l.first.TXID {
		return nil, fmt.Errorf("%w: the oldest is %v", txlog.ErrTruncated, l.first)
	}
	for i, x := range l.txns {
		if x.Post == p {
			return slices.Clone(l.txns[i+1:]), nil
		}
	}
	return nil, fmt.Errorf("%w: %v", txlog.ErrNotOnLine, p)
}

// memDB is a database in memory that gives snapshots. Its content is made from
// a seed for each page, so that large ones take no room.
type memDB struct {
	mu       sync.Mutex
	pageSize uint32
	position walstream.Position
	seeds    []uint64 // of page i+1
	table    *pagesum.Table
	opened   atomic.Int64 // snapshots now
	rotten   uint32       // a page whose content isn't what the table says
}

func newMemDB(r *mathrand.Rand, pageSize uint32, pages int) *memDB {
	d := &memDB{pageSize: pageSize, table: pagesum.New(pageSize)}
	d.seeds = make([]uint64, pages)
	for i := range d.seeds {
		d.seeds[i] = r.Uint64()
		d.table.Set(uint32(i+1), d.sum(uint32(i+1), d.seeds[i]))
	}
	d.position = walstream.Position{Epoch: 1, TXID: 1, Checksum: d.table.Checksum()}
	return d
}

func (d *memDB) sum(no uint32, seed uint64) walstream.Checksum {
	buf := make([]byte, d.pageSize)
	fill(buf, seed)
	return pagesum.Page(no, buf)
}

// fill makes a page from a seed. Some can't be compressed, most can.
func fill(buf []byte, seed uint64) {
	n := 16
	if seed%8 == 0 {
		n = len(buf)
	}
	clear(buf)
	for i := 0; i < n; i += 8 {
		seed = seed*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(buf[i:], seed^seed>>29)
	}
}

// change writes some pages, as one transaction.
func (d *memDB) change(r *mathrand.Rand, pages ...uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, no := range pages {
		d.seeds[no-1] = r.Uint64()
		d.table.Set(no, d.sum(no, d.seeds[no-1]))
	}
	d.position.TXID++
	d.position.Checksum = d.table.Checksum()
}

func (d *memDB) resize(pages int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seeds = d.seeds[:pages]
	d.table.Resize(uint32(pages))
	d.position.TXID++
	d.position.Checksum = d.table.Checksum()
}

func (d *memDB) snapshot(_ context.Context, db string) (*Snapshot, error) {
	if db != "db" {
		return nil, fmt.Errorf("%w: %s", ErrUnknownDatabase, db)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seeds := slices.Clone(d.seeds)
	d.opened.Add(1)
	return &Snapshot{
		Position: d.position, PageSize: d.pageSize, PageCount: uint32(len(seeds)), Sums: d.table.Clone(),
		ReadPage: func(no uint32, buf []byte) error {
			fill(buf, seeds[no-1])
			if no == d.rotten {
				buf[100] ^= 1
			}
			if no == 1 {
				buf[18] = 76 // a fenced copy: it must be normalised
			}
			return nil
		},
		Close: func() error { d.opened.Add(-1); return nil },
	}, nil
}

// check compares what a copy becomes with the database as it is now: own pages,
// with those of the transaction put in.
func (d *memDB) check(t testing.TB, own *pagesum.Table, x *walstream.Txn) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.Post != d.position || x.PageSize != d.pageSize || int(x.PageCount) != len(d.seeds) {
		t.Fatalf("repaired to %v, %d pages of %d; want %v, %d", x.Post, x.PageCount, x.PageSize, d.position, len(d.seeds))
	}
	result := own.Clone()
	result.Resize(x.PageCount)
	want := make([]byte, d.pageSize)
	for p, err := range x.Pages {
		if err != nil {
			t.Fatal(err)
		}
		fill(want, d.seeds[p.No-1])
		if p.No == 1 {
			want[18] = 2
		}
		if string(p.Data) != string(want) {
			t.Fatalf("page %d differs", p.No)
		}
		result.Set(p.No, pagesum.Page(p.No, p.Data))
	}
	if result.Checksum() != d.position.Checksum {
		t.Fatalf("checksum %v, want %v", result.Checksum(), d.position.Checksum)
	}
}

// puller serves log and db behind a port with TLS and returns a client of it.
func serve(t testing.TB, cfg ServerConfig) (*port, *Client) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = newMemLog("db")
	}
	if cfg.Snapshot == nil {
		cfg.Snapshot = func(_ context.Context, db string) (*Snapshot, error) {
			return nil, fmt.Errorf("%w: %s", ErrUnknownDatabase, db)
		}
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := listen(t)
	p.serve(t, s.Serve)
	return p, NewClient(ClientConfig{Dial: p.dial, Stall: cfg.Stall})
}

// meter counts the bytes of connections and can break them.
type meter struct {
	in, out atomic.Int64
	limit   func() int64 // of bytes in for the next connection; nil: none
}

func (m *meter) dialer(d Dialer) Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := d(ctx)
		if err != nil {
			return nil, err
		}
		mc := &metered{Conn: c, m: m, left: -1}
		if m.limit != nil {
			mc.left = m.limit()
		}
		return mc, nil
	}
}

type metered struct {
	net.Conn
	m    *meter
	left int64 // bytes until it breaks; below 0: never. Used by the reader alone
}

func (c *metered) Read(b []byte) (int, error) {
	if c.left == 0 {
		c.Close()
		return 0, net.ErrClosed
	}
	if c.left > 0 && int64(len(b)) > c.left {
		b = b[:c.left]
	}
	n, err := c.Conn.Read(b)
	c.m.in.Add(int64(n))
	if c.left > 0 {
		c.left -= int64(n)
	}
	return n, err
}

func (c *metered) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.out.Add(int64(n))
	return n, err
}

func spool(t testing.TB, dir string) *Spool {
	t.Helper()
	s, err := OpenSpool(dir, "db")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// soon bounds what a test waits for.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}
