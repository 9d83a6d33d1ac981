package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

const bigInsert = `with recursive n(i) as (select 1 union all select i+1 from n where i<2000)
	insert into t select null, hex(randomblob(150)) from n`

// Everything that an application does, for every page size.
func TestApplyPageSizes(t *testing.T) {
	for _, size := range []int{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, first := newSource(t, size, "create table t(k integer primary key, v)")
			c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) { c.CheckpointFrames = 50 })
			c.run(t)
			for i, sql := range []string{
				bigInsert, "update t set v=v||'x' where k%5=0", "create index i on t(v)", "delete from t where k>50",
				"vacuum", bigInsert, "alter table t add column w", "insert into t(v) values(zeroblob(3000000))", "drop index i",
				"delete from t", "vacuum",
			} {
				c.mustApply(t, s.step(t, sql))
				if c.Applied() != s.pos || c.table.Checksum() != s.table.Checksum() {
					t.Fatalf("after step %d the copy is at %s %s, the source at %s", i, c.Applied(), c.table.Checksum(), s.pos)
				}
				if i%3 == 2 {
					c.mustApply(t, s.epoch())
				}
				same(t, s, c.path, "select count(*), sum(length(v)) from t", "select * from t order by k limit 20")
			}
			if err := c.Sync(t.Context()); err != nil || c.Durable() != s.pos {
				t.Fatalf("durable %s, want %s: %v", c.Durable(), s.pos, err)
			}
		})
	}
}

// A transaction that would give another database than it says is not published,
// and the next one is applied as if it had never been there.
func TestApplyChecksum(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k integer primary key, v)")
	c := open(t, create(t, t.TempDir(), first), nil)
	good := s.step(t, bigInsert)
	h, _ := c.db.Index().Header()

	bad := *good
	bad.Post.Checksum ^= 1
	if err := c.Apply(t.Context(), &bad); !errors.Is(err, apply.ErrChecksum) {
		t.Fatalf("got %v", err)
	}
	failing := *good
	failing.Pages = func(yield func(walstream.Page, error) bool) {
		for p, err := range good.Pages {
			if p.No > 100 {
				yield(p, errors.New("torn"))
				return
			}
			if !yield(p, err) {
				return
			}
		}
	}
	if err := c.Apply(t.Context(), &failing); err == nil || !strings.Contains(err.Error(), "torn") {
		t.Fatalf("got %v", err)
	}
	if now, _ := c.db.Index().Header(); now != h || c.Applied() != first.Post || c.table.Checksum() != first.Post.Checksum {
		t.Fatalf("published %+v, was %+v; applied %s", now, h, c.Applied())
	}
	if got := shell(t, c.path, "select count(*) from t"); got != "0" {
		t.Fatalf("%s rows are visible", got)
	}
	c.mustApply(t, good)
	same(t, s, c.path, "select * from t")
}

func TestApplyRefuses(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k integer primary key, v)")
	c := open(t, create(t, t.TempDir(), first), nil)
	one, two := s.step(t, "insert into t values(1,1)"), s.step(t, "insert into t values(2,2)")
	with := func(change func(*walstream.Txn)) *walstream.Txn {
		txn := *one
		change(&txn)
		return &txn
	}
	page := func(no uint32, n int) walstream.Pages {
		return func(yield func(walstream.Page, error) bool) {
			_ = yield(walstream.Page{No: 1, Data: make([]byte, 1024)}, nil) && yield(walstream.Page{No: no, Data: make([]byte, n)}, nil)
		}
	}
	for name, tt := range map[string]struct {
		txn  *walstream.Txn
		want error
	}{
		"gap":           {two, apply.ErrGap},
		"page size":     {with(func(t *walstream.Txn) { t.PageSize = 4096 }), apply.ErrPageSize},
		"no size":       {with(func(t *walstream.Txn) { t.PageCount = 0 }), apply.ErrMalformed},
		"base":          {with(func(t *walstream.Txn) { t.Kind = walstream.KindBase }), apply.ErrMalformed},
		"twice":         {with(func(t *walstream.Txn) { t.Pages = page(1, 1024) }), apply.ErrMalformed},
		"page 0":        {with(func(t *walstream.Txn) { t.Pages = page(0, 1024) }), apply.ErrMalformed},
		"beyond end":    {with(func(t *walstream.Txn) { t.Pages = page(t.PageCount+1, 1024) }), apply.ErrMalformed},
		"short page":    {with(func(t *walstream.Txn) { t.Pages = page(2, 1000) }), apply.ErrMalformed},
		"epoch differs": {&walstream.Txn{Header: walstream.Header{Kind: walstream.KindEpoch, Pre: first.Post, Post: two.Post}}, apply.ErrChecksum},
	} {
		if err := c.Apply(t.Context(), tt.txn); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
	c.mustApply(t, one, two)
	same(t, s, c.path, "select * from t")
}

// Repair takes a copy from one line of history to another.
func TestRepair(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k integer primary key, v)")
	c := open(t, create(t, t.TempDir(), first), nil)
	c.mustApply(t, s.step(t, "insert into t values(1,'here only')"))
	other, _ := newSource(t, 1024, "create table t(k integer primary key, v)", "insert into t values(1,'elsewhere')", "create table u(x)")
	snap, err := other.db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	other.pos = walstream.Position{Epoch: 9, TXID: 3, Checksum: other.table.Checksum()}
	txn := &walstream.Txn{Header: walstream.Header{
		Kind: walstream.KindPages, PageSize: 1024, PageCount: snap.PageCount(), Post: other.pos,
	}, Pages: snap.Pages(1)}
	if err := c.Apply(t.Context(), txn); !errors.Is(err, apply.ErrGap) {
		t.Fatalf("got %v", err)
	}
	if err := c.Repair(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	if c.Applied() != other.pos {
		t.Fatalf("applied %s, want %s", c.Applied(), other.pos)
	}
	same(t, other, c.path, "select * from t")
}

func TestChanged(t *testing.T) {
	s, first := newSource(t, 512, "create table t(k)")
	c := open(t, create(t, t.TempDir(), first), nil)
	changed := c.Changed()
	select {
	case <-changed:
		t.Fatal("nothing has changed")
	default:
	}
	c.mustApply(t, s.step(t, "insert into t values(1)"))
	<-changed
}

// A clean end is known as such; anything else is not.
func TestStart(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k)")
	path := create(t, t.TempDir(), first)
	expect := func(c *copyOf, want apply.Start, pos walstream.Position) {
		t.Helper()
		if c.Start() != want || c.Applied() != pos || c.Durable() != pos {
			t.Fatalf("start %s at %s, durable %s; want %s at %s", c.Start(), c.Applied(), c.Durable(), want, pos)
		}
	}
	c := open(t, path, nil)
	expect(c, apply.StartClean, first.Post)
	one := s.step(t, "insert into t values(1)")
	c.mustApply(t, one)
	c.close(t)

	c = open(t, path, nil)
	expect(c, apply.StartClean, one.Post)
	two := s.step(t, "insert into t values(2)")
	c.mustApply(t, two)
	// As after SIGKILL: nothing is closed in order, the lock is gone.
	c.db.Close()
	c.db = nil
	c.table.Close()

	c = open(t, path, nil)
	expect(c, apply.StartCrashed, one.Post)
	c.mustApply(t, two) // again
	same(t, s, path, "select * from t")
	c.close(t)

	// Another file at the same path: the record is void.
	shell(t, path, ".backup '"+path+".2'")
	shell(t, path, ".shell mv '"+path+".2' '"+path+"'; rm -f '"+path+"-wal' '"+path+"-shm'")
	c = open(t, path, nil)
	expect(c, apply.StartUnknown, walstream.Position{})
	// Nothing is recorded for it either, before somebody knows what it is.
	if err := c.Sync(t.Context()); err != nil || !c.Durable().IsZero() {
		t.Fatalf("recorded %s, %v", c.Durable(), err)
	}
}

func TestApplyNeedsFence(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k)")
	c, err := tryOpen(create(t, t.TempDir(), first), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close(t)
	txn := s.step(t, "insert into t values(1)")
	if err := c.Apply(t.Context(), txn); !errors.Is(err, apply.ErrNotFenced) {
		t.Fatalf("got %v", err)
	}
	if m, err := c.Mark(); err != nil || m != sqlitefile.MarkFenced {
		t.Fatalf("mark %d, %v", m, err)
	}
}
