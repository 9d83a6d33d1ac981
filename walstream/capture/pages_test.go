package capture_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// writer is one of our own, which can commit what SQLite hardly ever does.
func newWriter(w *world) *sqlitefile.Writer {
	return sqlitefile.NewWriter(sqlitefile.Files{
		Main: w.db.Main(), Wal: w.db.Wal(), Shm: w.db.Shm(), Index: w.db.Index(), PageSize: w.db.PageSize(),
	})
}

// commitSizes commits page 1 as it is, with one size of the database after the
// other.
func commitSizes(t *testing.T, w *world, sizes ...uint32) {
	t.Helper()
	s, err := w.db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, w.db.PageSize())
	if err := errors.Join(s.ReadPage(1, page), s.Close()); err != nil {
		t.Fatal(err)
	}
	wr := newWriter(w)
	if err := wr.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, size := range sizes {
		if err := wr.Page(1, page); err != nil {
			t.Fatal(err)
		}
		if _, err := wr.Commit(size, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := wr.Release(); err != nil {
		t.Fatal(err)
	}
}

// Pages that are cut off and come back within one capture, without a frame of
// their own, are shipped as SQLite reads them: from older frames, from the file,
// or as zeros. The oracle wants every page of growth, and compares all bytes.
func TestShrinkAndGrow(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes func(n uint32) []uint32
	}{
		{"cut and back", func(n uint32) []uint32 { return []uint32{3, n} }},
		{"cut and back twice", func(n uint32) []uint32 { return []uint32{2, n - 1, 4, n} }},
		{"grown by pages without frames", func(n uint32) []uint32 { return []uint32{n + 5} }},
		{"cut and grown beyond", func(n uint32) []uint32 { return []uint32{4, n + 3} }},
	} {
		for _, where := range []string{"in the WAL", "in the file"} {
			t.Run(c.name+", "+where, func(t *testing.T) {
				w := newWorld(t, newDatabase(t))
				w.begin(nil)
				shell(t, w.path, "insert into t(v) values(randomblob(40000))")
				if where == "in the file" {
					shell(t, w.path, "pragma wal_checkpoint(truncate)", "insert into log values(1)")
				}
				w.settle()
				if err := w.stop(); err != nil {
					t.Fatal(err)
				}
				n := w.table.PageCount()
				commitSizes(t, w, c.sizes(n)...)
				w.make(nil)
				if err := w.c.Resume(t.Context()); err != nil {
					t.Fatal(err)
				}
				// As SQLite sees it: a snapshot of the same moment.
				s, err := w.db.Snapshot(t.Context(), false)
				if err != nil {
					t.Fatal(err)
				}
				if int(s.PageCount()) != len(w.oracle.pages)/w.oracle.size {
					t.Fatalf("%d pages, the copy has %d", s.PageCount(), len(w.oracle.pages)/w.oracle.size)
				}
				d, err := capture.Scan(t.Context(), s, w.table)
				if err != nil || !d.Empty() {
					t.Errorf("%d pages differ from the table, %v", d.Len(), err)
				}
				if got := w.oracle.checksum(); got != w.oracle.pos.Checksum {
					t.Errorf("copy has checksum %s, position %s", got, w.oracle.pos)
				}
				if err := errors.Join(s.Close(), w.c.Close()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// Where the application was the last one out, the WAL is gone, and the next one
// is empty as well: that is no proof of anything.
func TestEmptyWALProvesNothing(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	if err := errors.Join(w.stop(), w.db.Close()); err != nil {
		t.Fatal(err)
	}
	shell(t, w.path, "insert into log values(1)")
	if st, err := os.Stat(w.path + "-wal"); err == nil && st.Size() > 0 {
		t.Fatalf("the WAL has %d bytes: this test is about one that is gone", st.Size())
	}
	w.openDB()
	w.make(nil)
	if err := w.c.Resume(t.Context()); !errors.Is(err, capture.ErrDiscontinuous) {
		t.Fatalf("resume: %v", err)
	}
	if n, err := w.c.Rebase(t.Context()); err != nil || n == 0 {
		t.Fatalf("rebase: %d pages, %v", n, err)
	}
	w.run()
	w.finish([]int64{1})
}

// A Rebase that finds nothing ships nothing.
func TestRebaseWithoutDifference(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	before := w.oracle.position()
	w.make(nil)
	if n, err := w.c.Rebase(t.Context()); n != 0 || err != nil || w.c.Position() != before {
		t.Fatalf("%d pages, %v, at %s", n, err, w.c.Position())
	}
	w.run()
	shell(t, w.path, "insert into log values(1)")
	w.finish([]int64{1})
}

// A writer that dies while it changes the wal-index leaves a torn header. SQLite
// makes it good, and capture goes on.
func TestTornIndex(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	shell(t, w.path, "insert into log values(1)")
	w.settle()
	for off := range int64(4) {
		var b [1]byte
		if _, err := w.db.Shm().ReadAt(b[:], 16+off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x55
		if _, err := w.db.Shm().WriteAt(b[:], 16+off); err != nil {
			t.Fatal(err)
		}
		shell(t, w.path, "insert into t(v) values(1)")
		w.settle()
	}
	w.finish([]int64{1})
}

// A database beyond 1 GiB has a page in which SQLite keeps its locks, and no
// content: it is never shipped and never counted.
func TestLockBytePage(t *testing.T) {
	if !long() {
		t.Skip("writes more than 1 GiB: LSNODE_LONG=1 runs it")
	}
	w := newWorld(t, newDatabase(t, "pragma page_size=65536"))
	lock := sqlitefile.LockBytePage(w.db.PageSize())
	seen := false
	w.begin(func(c *capture.Config) {
		c.Sink = sinkFunc(func(x *walstream.Txn) error {
			seen = seen || x.PageCount > lock
			for p, err := range x.Pages {
				if err != nil || p.No == lock {
					return fmt.Errorf("page %d: %w", p.No, err)
				}
			}
			return nil
		})
	})
	for range 3 {
		shell(t, w.path, "insert into t(v) values(zeroblob(400000000))")
	}
	shell(t, w.path, "insert into t(v) values(1)")
	w.settle()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if !seen || w.table.Get(lock) != 0 || w.table.Get(lock+1) == 0 {
		t.Errorf("%d pages, lock-byte page is %d", w.table.PageCount(), lock)
	}
	s, err := w.db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := capture.Scan(t.Context(), s, w.table); err != nil || !d.Empty() {
		t.Errorf("%d pages differ, %v", d.Len(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

type sinkFunc func(*walstream.Txn) error

func (f sinkFunc) Ship(_ context.Context, t *walstream.Txn) error { return f(t) }
