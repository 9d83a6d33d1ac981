package sqlitefile_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// The index of a real SQLite must agree with its WAL, frame by frame, across
// several blocks and with a restart in between.
func TestIndexAgreesWithWAL(t *testing.T) {
	for size, rows := range map[string]int{"512": 6000, "4096": 6000, "65536": 300} {
		t.Run(size, func(t *testing.T) {
			f := openFiles(t, size)
			checkWAL(t, f)
			f.exec(t, fmt.Sprintf(`with recursive n(i) as (select 1 union all select i+1 from n where i<%d)
				insert into t select i, zeroblob(%s*3/4) from n`, rows, size))
			checkWAL(t, f)
			f.exec(t, "pragma wal_checkpoint(restart)", "insert into t values(7000,'after restart')")
			checkWAL(t, f)
			if h, _ := f.index.Header(); h.MaxFrame > 10 {
				t.Fatalf("the WAL has not restarted: %+v", h)
			}
		})
	}
}

// checkWAL walks over the whole WAL and compares it with the index.
func checkWAL(t *testing.T, f *files) {
	t.Helper()
	h, ok := f.index.Header()
	if !ok {
		t.Fatal("inconsistent header while no one writes")
	}
	buf := make([]byte, sqlitefile.WALHeaderSize)
	if _, err := f.wal.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	wh, err := sqlitefile.ParseWALHeader(buf)
	if err != nil {
		t.Fatal(err)
	}
	if wh.Salt != h.Salt || wh.PageSize != h.PageSize || wh.BigEndian != h.BigEndian {
		t.Fatalf("WAL header %+v, index header %+v", wh, h)
	}
	again, ck := wh.Append(nil)
	if string(again) != string(buf) || ck != wh.Cksum {
		t.Fatalf("WAL header does not round-trip: %x, %x", buf, again)
	}
	newest := make(map[uint32]uint32)
	prev, frame := wh.Cksum, make([]byte, sqlitefile.FrameHeaderSize+wh.PageSize)
	for i := uint32(1); i <= h.MaxFrame; i++ {
		if _, err := f.wal.ReadAt(frame, sqlitefile.FrameOffset(i, wh.PageSize)); err != nil {
			t.Fatal(err)
		}
		fh := sqlitefile.ParseFrameHeader(frame)
		if want := fh.Next(wh.BigEndian, prev, frame[sqlitefile.FrameHeaderSize:]); want != fh.Cksum || fh.Salt != wh.Salt {
			t.Fatalf("frame %d: %+v, checksum should be %x", i, fh, want)
		}
		if got := f.index.PageNo(i); got != fh.PageNo {
			t.Fatalf("frame %d holds page %d, the index says %d", i, fh.PageNo, got)
		}
		newest[fh.PageNo], prev = i, fh.Cksum
	}
	if prev != h.Cksum {
		t.Fatalf("checksum of the last frame %x, the index says %x", prev, h.Cksum)
	}
	for page := uint32(1); page <= h.PageCount+1; page++ {
		if got, err := f.index.Lookup(page, h.MaxFrame); err != nil || got != newest[page] {
			t.Fatalf("page %d: newest frame %d, looked up %d, %v", page, newest[page], got, err)
		}
	}
}

func TestIndexMarks(t *testing.T) {
	f := openFiles(t, "4096", "insert into t values(1,1)")
	h, _ := f.index.Header()
	if n := f.index.Backfill(); n != 0 {
		t.Fatalf("backfill %d", n)
	}
	f.exec(t, "begin", "select * from t")
	if pid, held, err := sqlitefile.Holder(f.shm, sqlitefile.LockRead(1)); err != nil || !held || pid <= 0 {
		t.Fatalf("a reader must hold a POSIX lock: %d %v %v", pid, held, err)
	}
	if m, ok := f.index.ReadMark(1); !ok || m != h.MaxFrame {
		t.Fatalf("read mark 1 is %d, %v; header %+v", m, ok, h)
	}
	if _, ok := f.index.ReadMark(4); ok {
		t.Fatal("read mark 4 in use")
	}
	f.exec(t, "commit", "pragma wal_checkpoint")
	if n := f.index.Backfill(); n != h.MaxFrame {
		t.Fatalf("backfill %d after a checkpoint of %d", n, h.MaxFrame)
	}
	if _, err := f.conn.ExecContext(context.Background(), "select 1"); err != nil {
		t.Fatal(err)
	}
}

func TestIndexOfEmptyFile(t *testing.T) {
	f := openFiles(t, "512")
	if _, err := f.index.Lookup(1, 1<<30); err == nil {
		t.Fatal("a frame beyond the index was looked up without error")
	}
	if no := f.index.PageNo(1 << 31); no != 0 {
		t.Fatalf("page %d beyond the index", no)
	}
}

// Others read the index while it is mapped further.
func TestIndexGrowsBesideReaders(t *testing.T) {
	f := openFiles(t, "512")
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		var err error
		for {
			select {
			case <-stop:
				done <- err
				return
			default:
			}
			if h, ok := f.index.Header(); ok && h.MaxFrame > 0 && err == nil {
				_, err = f.index.Lookup(1, h.MaxFrame)
			}
		}
	}()
	w := f.writer(t)
	page := make([]byte, 512)
	if err := w.ReadPage(1, page); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for range 4000 {
			if err := w.Page(1, page); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Commit(2, false); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
