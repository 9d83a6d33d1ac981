package capture_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// ended waits for the end of Run, closes the capture, and returns Run's error.
func ended(t *testing.T, c *capture.Capture, run func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := run(ctx)
	if cerr := c.Close(); cerr != nil {
		t.Error(cerr)
	}
	if ctx.Err() != nil {
		t.Fatal("Run did not notice anything")
	}
	return err
}

// started is a world whose capture is resumed, but not running.
func started(t *testing.T, change func(*capture.Config)) *world {
	w := newWorld(t, newDatabase(t))
	w.make(change)
	if _, err := w.c.Rebase(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// When the Sink fails, nothing moves, and the same commits come again.
func TestSinkFails(t *testing.T) {
	w := started(t, nil)
	before, table, broken := w.c.Position(), w.table.Checksum(), errors.New("the disk is full")
	var refused []walstream.Header
	w.oracle.fail = func(x *walstream.Txn) error {
		refused = append(refused, x.Header)
		return broken
	}
	shell(t, w.path, "insert into log values(1)", "create table x(a)")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := w.c.Run(ctx)
		cancel()
		if !errors.Is(err, broken) {
			t.Fatalf("Run: %v", err)
		}
		if w.c.Position() != before || w.table.Checksum() != table {
			t.Fatalf("position %s, was %s; table %s, was %s", w.c.Position(), before, w.table.Checksum(), table)
		}
	}
	shell(t, w.path, "insert into log values(2)")
	w.oracle.fail = nil
	w.run()
	w.finish([]int64{1, 2})
	for _, h := range refused {
		if h.Pre != before || h.Post != refused[0].Post {
			t.Errorf("shipped %s to %s, the first time to %s", h.Pre, h.Post, refused[0].Post)
		}
	}
}

// A Sink that blocks holds nothing up but the WAL: what the application does
// meanwhile, checkpoints included, is all there afterwards.
func TestSinkBlocks(t *testing.T) {
	w := started(t, nil)
	let := make(chan struct{})
	w.oracle.fail = func(*walstream.Txn) error { <-let; return nil }
	w.run()
	r := startApp(t, appSpec{Path: w.path, Workload: "mixed", Txns: 200, Seed: newSeed(t), Auto: 20})()
	close(let)
	w.finish(r.IDs)
}

// Large transactions are read as they are walked over, several times, while the
// application goes on.
func TestLarge(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(func(c *capture.Config) { c.MemoryBytes = 20000 })
	r := startApp(t, appSpec{Path: w.path, Workload: "mixed", Txns: scale(100, 1000), Seed: newSeed(t), Checkpoints: 9})()
	w.finish(r.IDs)
}

// A reader that stays does not keep commits from being captured; writers are not
// held again and again because of it; when it leaves, the WAL becomes short.
func TestForeignReader(t *testing.T) {
	path := newDatabase(t)
	w := newWorld(t, path)
	w.begin(func(c *capture.Config) { c.CheckpointFrames, c.ForceFrames = 50, 200 })
	reader, err := w.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shell(t, path, "insert into t(v) values(1)")
	if err := reader.BeginRead(); err != nil {
		t.Fatal(err)
	}
	r := startApp(t, appSpec{Path: path, Workload: "small", Txns: 2000, Auto: -1})()
	w.settle()
	if n := w.c.Stats().WALFrames; n < 2000 {
		t.Errorf("the WAL has %d frames although a reader holds it", n)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	r2 := startApp(t, appSpec{Path: path, Workload: "small", Txns: 3000, Auto: -1, Writer: 1, PauseMicros: 200})()
	w.settle()
	if s := w.c.Stats(); s.WALFrames > 2000 {
		t.Errorf("the WAL is still long: %+v", s)
	}
	w.finish(append(r.IDs, r2.IDs...))
}

// A file that is renamed over, or disappears, or whose WAL is taken away is
// noticed.
func TestReplaced(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, path string) error
		gone bool
	}{
		{"renamed over", func(t *testing.T, path string) error {
			copyFile(t, newDatabase(t), path+".new")
			return os.Rename(path+".new", path)
		}, false},
		{"removed", func(_ *testing.T, path string) error { return os.Remove(path) }, true},
		{"renamed away", func(_ *testing.T, path string) error { return os.Rename(path, path+".old") }, true},
		{"WAL removed", func(_ *testing.T, path string) error { return os.Remove(path + "-wal") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := started(t, nil)
			err := ended(t, w.c, func(ctx context.Context) error {
				go func() {
					// Whether this is before or after Run has begun: it is noticed.
					if err := c.do(t, w.path); err != nil {
						t.Error(err)
					}
				}()
				return w.c.Run(ctx)
			})
			if !errors.Is(err, capture.ErrReplaced) || errors.Is(err, fs.ErrNotExist) != c.gone {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// Content that gets into the file past SQLite is noticed, and found by Rebase.
func TestRewritten(t *testing.T) {
	w := started(t, func(c *capture.Config) { c.Poll = time.Hour })
	other := newDatabase(t)
	shell(t, other, "create table other(a)", "pragma wal_checkpoint(truncate)")
	err := ended(t, w.c, func(ctx context.Context) error {
		go func() {
			shell(t, w.path, "insert into t(v) values(1)")
			w.settle()
			shell(t, w.path, "pragma wal_checkpoint(truncate)")
			// By another process: closing the file in this one would drop the locks that
			// the test is about.
			if out, err := exec.Command("cp", other, w.path).CombinedOutput(); err != nil {
				t.Errorf("cp: %v: %s", err, out)
			}
		}()
		return w.c.Run(ctx)
	})
	if !errors.Is(err, capture.ErrRewritten) {
		t.Fatalf("Run: %v", err)
	}
	// As long as anybody has it open, SQLite takes the size from the wal-index.
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.openDB()
	w.make(nil)
	if n, err := w.c.Rebase(t.Context()); err != nil || n == 0 {
		t.Fatalf("rebase: %d pages, %v", n, err)
	}
	w.run()
	w.finish(nil)
}

// A mark that capture did not write ends it, and what came with it is not
// shipped.
func TestFenced(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	shell(t, w.path, "insert into t(v) values(1)") // the place in an empty WAL proves nothing
	w.settle()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	before := w.oracle.position()
	w.make(nil)
	if err := w.c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	shell(t, w.path, "insert into log values(1)")
	writeMark(t, w, sqlitefile.MarkFenced)
	err := ended(t, w.c, w.c.Run)
	if !errors.Is(err, capture.ErrFenced) || w.oracle.position() != before {
		t.Fatalf("Run: %v; at %s, was %s", err, w.oracle.position(), before)
	}
	// The commit before the fence counts as not captured, the fence does not.
	check := func(want int) {
		t.Helper()
		n, proven, err := capture.Uncaptured(t.Context(), w.db, w.c.Place())
		if n != want || !proven || err != nil {
			t.Fatalf("%d commits not captured (proven %v, %v), want %d", n, proven, err, want)
		}
	}
	check(1)
	writeMark(t, w, sqlitefile.MarkWAL)
	check(1)
	shell(t, w.path, "insert into log values(2)")
	check(2)
	w.make(nil)
	if err := w.c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.oracle.position().TXID - before.TXID; got != 2 {
		t.Errorf("%d commits shipped, want 2: the marks are none", got)
	}
	w.run()
	w.finish([]int64{1, 2})
}

// writeMark commits page 1 with a mark, as a fence does.
func writeMark(t *testing.T, w *world, mark byte) {
	t.Helper()
	var page []byte
	s, err := w.db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	page = make([]byte, w.db.PageSize())
	if err := s.ReadPage(1, page); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sqlitefile.SetMark(page, mark)
	wr := newWriter(w)
	if err := wr.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := wr.Page(1, page); err != nil {
		t.Fatal(err)
	}
	if _, err := wr.Commit(s.PageCount(), true); err != nil {
		t.Fatal(err)
	}
	if err := wr.Release(); err != nil {
		t.Fatal(err)
	}
}

// Drain: once it has returned, everything that ever succeeded is shipped, and
// nobody can write.
func TestDrain(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	wait := startApp(t, appSpec{Path: w.path, Workload: "mixed", Seed: newSeed(t), Checkpoints: 10})
	for range scale(5, 50) {
		time.Sleep(20 * time.Millisecond) // let the application work: any instant will do
		lock, err := w.c.Drain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := w.behind(); n != 0 {
			t.Errorf("%d commits were not captured (-1: not proven)", n)
		}
		if w.c.Position() != w.oracle.position() {
			t.Errorf("at %s, the sink is at %s", w.c.Position(), w.oracle.position())
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(wait().IDs)
}

// Drain gives up when an application keeps its transaction open.
func TestDrainGivesUp(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	writer, err := w.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Exec("begin immediate; insert into log values(1)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := w.c.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("drain: %v", err)
	}
	if err := writer.Exec("commit"); err != nil {
		t.Fatal(err)
	}
	shell(t, w.path, "insert into log values(2)")
	w.finish([]int64{1, 2})
}

// A snapshot taken while the application writes is the copy at its position.
func TestSnapshot(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	wait := startApp(t, appSpec{Path: w.path, Workload: "mixed", Seed: newSeed(t), Checkpoints: 10})
	for range scale(8, 80) {
		time.Sleep(10 * time.Millisecond) // let the application work: any instant will do
		s, pos, table, err := w.c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sums := pagesum.New(w.db.PageSize())
		for p, err := range s.Pages(1) {
			if err != nil {
				t.Fatal(err)
			}
			sums.Set(p.No, pagesum.Page(p.No, p.Data))
		}
		if sums.Checksum() != pos.Checksum || table.Checksum() != pos.Checksum || s.PageCount() != table.PageCount() {
			t.Errorf("snapshot has checksum %s and %d pages, table %s and %d, position %s",
				sums.Checksum(), s.PageCount(), table.Checksum(), table.PageCount(), pos)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(wait().IDs)
}

// A new reign goes on at its own epoch, without a gap in the TXIDs.
func TestNextEpoch(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.begin(nil)
	shell(t, w.path, "insert into log values(1)")
	w.settle()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	shell(t, w.path, "insert into log values(2)")
	last := w.oracle.position()
	w.begin(func(c *capture.Config) { c.Epoch = 7 })
	w.settle()
	if p := w.oracle.position(); p.Epoch != 7 || p.TXID != last.TXID+1 {
		t.Errorf("at %s after %s", p, last)
	}
	w.finish([]int64{1, 2})
}

// Many databases share one Watcher, and each is captured at once.
func TestManyDatabases(t *testing.T) {
	watcher, err := capture.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- watcher.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var worlds []*world
	for range 20 {
		w := newWorld(t, newDatabase(t))
		w.begin(func(c *capture.Config) { c.Watcher, c.Poll = watcher, time.Hour })
		worlds = append(worlds, w)
	}
	for i := range 3 {
		for _, w := range worlds {
			shell(t, w.path, fmt.Sprintf("insert into log values(%d)", i+1))
		}
	}
	for _, w := range worlds {
		w.finish([]int64{1, 2, 3})
	}
}

// What New and Run refuse.
func TestMisuse(t *testing.T) {
	w := newWorld(t, newDatabase(t))
	w.make(nil)
	if err := w.c.Run(t.Context()); !errors.Is(err, capture.ErrNotResumed) {
		t.Errorf("Run: %v", err)
	}
	good := capture.Config{DB: w.db, Name: "app", Epoch: 1, Table: w.table, Sink: w.oracle}
	for name, change := range map[string]func(*capture.Config){
		"no name":   func(c *capture.Config) { c.Name = "" },
		"no epoch":  func(c *capture.Config) { c.Epoch = 0 },
		"no table":  func(c *capture.Config) { c.Table = nil },
		"page size": func(c *capture.Config) { c.Table = pagesum.New(512) },
	} {
		cfg := good
		change(&cfg)
		if _, err := capture.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A WAL that is not what its index says is an error, whatever is in it.
func TestDamagedFrames(t *testing.T) {
	for _, at := range []int64{0, 4, 8, 16} { // page number, commit, salt, checksum
		w := started(t, nil)
		shell(t, w.path, "insert into log values(1)", "insert into log values(2)")
		h, ok := w.db.Index().Header()
		if !ok {
			t.Fatal("torn header")
		}
		off := sqlitefile.FrameOffset(h.MaxFrame, w.db.PageSize()) + at
		var b [4]byte
		if _, err := w.db.Wal().ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		if at == 0 {
			clear(b[:])
		} else {
			binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+1)
		}
		if _, err := w.db.Wal().WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		err := ended(t, w.c, w.c.Run)
		if err == nil || !strings.Contains(err.Error(), "wal-index says") {
			t.Errorf("byte %d of the frame header changed: Run: %v", at, err)
		}
	}
}
