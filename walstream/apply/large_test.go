package apply_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// A database that grows across the page with SQLite's lock bytes, at 1 GiB, and
// shrinks again.
func TestLockBytePage(t *testing.T) {
	if !long() {
		t.Skip("writes several GiB; set LSNODE_LONG=1")
	}
	for _, size := range []int{4096, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, first := newSource(t, size, "create table t(k integer primary key, v)")
			c := open(t, create(t, t.TempDir(), first), nil)
			c.run(t)
			lockByte := sqlitefile.LockBytePage(uint32(size))
			for i := range 12 {
				c.mustApply(t, s.step(t, fmt.Sprintf("insert into t values(%d, randomblob(100000000))", i)))
			}
			if n := s.table.PageCount(); n <= lockByte {
				t.Fatalf("%d pages do not reach page %d", n, lockByte)
			}
			if got := shell(t, c.path, "pragma integrity_check; select count(*), sum(length(v)) from t"); got != "ok\n12|1200000000" {
				t.Fatal(got)
			}
			seeded, err := s.db.Snapshot(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			defer seeded.Close()
			h := walstream.Header{PageSize: uint32(size), PageCount: seeded.PageCount(), Post: s.pos}
			path := t.TempDir() + "/seeded.db"
			if err := apply.Create(t.Context(), path, &h, seeded.Pages(1), apply.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			if got := shell(t, path, "pragma integrity_check; select count(*) from t"); got != "ok\n12" {
				t.Fatal(got)
			}
			c.mustApply(t, s.step(t, "delete from t where k>2"), s.step(t, "vacuum"))
			eventually(t, "the file is short again", func() bool {
				st, err := c.db.Main().Stat()
				return err == nil && st.Size() < 400e6
			})
			if got := shell(t, c.path, "pragma integrity_check; select count(*) from t"); got != "ok\n3" {
				t.Fatal(got)
			}
		})
	}
}

// A transaction that is larger than anything that is kept in memory: its pages
// are made as they are walked, and nothing is visible before the last one.
func TestApplyLarge(t *testing.T) {
	s, first := newSource(t, 4096, "create table t(k integer primary key, v)")
	c := open(t, create(t, t.TempDir(), first), nil)
	stop := c.run(t)
	txn := s.step(t, "insert into t values(1, randomblob(50000000))")
	walked := 0
	large := *txn
	large.Pages = func(yield func(walstream.Page, error) bool) {
		for p, err := range txn.Pages {
			if walked++; walked%4000 == 0 {
				if got := shell(t, c.path, "select count(*) from t"); got != "0" {
					t.Errorf("after %d pages %s rows are visible", walked, got)
				}
			}
			if !yield(p, err) {
				return
			}
		}
	}
	begin := time.Now()
	c.mustApply(t, &large)
	t.Logf("%d pages in %s", walked, time.Since(begin))
	if got := shell(t, c.path, "pragma integrity_check; select length(v) from t"); got != "ok\n50000000" {
		t.Fatal(got)
	}
	eventually(t, "the WAL is short again", func() bool { n, err := c.db.WALBytes(); return err == nil && n < 40<<20 })
	stop()
}

func BenchmarkApply(b *testing.B) {
	for _, pages := range []int{1, 4, 64} {
		b.Run(fmt.Sprintf("pages=%d", pages), func(b *testing.B) {
			s, first := newSource(b, 4096, "create table t(k integer primary key, v)", bigInsert)
			c := open(b, create(b, b.TempDir(), first), nil)
			c.run(b)
			var txns []*walstream.Txn // from one state to another, and back
			for i := range 2 {
				images := map[uint32][]byte{}
				for no := range pages {
					images[uint32(no+2)] = bytes.Repeat([]byte{byte(i)}, 4096)
				}
				txns = append(txns, s.txn(images, s.table.PageCount()))
			}
			b.ReportAllocs()
			b.SetBytes(int64(pages * 4096))
			for i := 0; b.Loop(); i++ {
				if err := c.Repair(b.Context(), txns[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
