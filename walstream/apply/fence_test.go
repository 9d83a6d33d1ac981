package apply_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

const readonly = "attempt to write a readonly database"

// application makes an ordinary database with a table, as an application does.
func application(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "app.db")
	shell(t, path, "pragma journal_mode=wal; create table t(k integer primary key, v); insert into t values(1,'one')")
	return path
}

// guardOf opens a Replica on a database that was not made by Create.
func guardOf(t testing.TB, path string) *copyOf {
	t.Helper()
	c, err := tryOpen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(t) })
	return c
}

// pythonWriter tries a write whenever a line comes in, on one connection that
// it keeps, and says what happened.
const pythonWriter = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
db.execute('select * from t').fetchall()
print('ready', flush=True)
for line in sys.stdin:
    try:
        db.execute(line)
        print('ok', flush=True)
    except Exception as e:
        print(e, flush=True)
`

type writer struct {
	*process
	stdin func(string)
}

func newWriter(t testing.TB, path string) *writer {
	t.Helper()
	p := start(t, "writer", python(t, pythonWriter, path))
	in := p.in.(interface{ Write([]byte) (int, error) })
	return &writer{p, func(s string) { in.Write([]byte(s + "\n")) }}
}

func (w *writer) try(t testing.TB, sql string) string {
	t.Helper()
	w.stdin(sql)
	line, err := w.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%v: %s", err, w.err)
	}
	return strings.TrimSpace(line)
}

// A connection that could write a moment ago cannot any more: while fenced,
// after lsnode has stopped, and until it is reopened after unfencing.
func TestFenceRefusesWrites(t *testing.T) {
	path := application(t)
	old := newWriter(t, path)
	if got := old.try(t, "insert into t values(2,'two')"); got != "ok" {
		t.Fatal(got)
	}
	c := guardOf(t, path)
	if err := c.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		if got := old.try(t, "insert into t values(3,'three')"); got != readonly {
			t.Fatalf("%s, an old connection: %s", when, got)
		}
		if got, err := tryShell(path, "insert into t values(4,'four')"); err == nil || !strings.Contains(got, readonly) {
			t.Fatalf("%s, a new connection: %v %s", when, err, got)
		}
		if got := shell(t, path, "pragma integrity_check; select count(*) from t"); got != "ok\n2" {
			t.Fatalf("%s: %s", when, got)
		}
	}
	refused("fenced")
	if m, err := c.Mark(); err != nil || m != sqlitefile.MarkFenced || !c.Fenced() {
		t.Fatalf("mark %d %v", m, err)
	}
	if err := c.Fence(t.Context()); err != nil { // again: nothing
		t.Fatal(err)
	}
	c.close(t)
	refused("after lsnode has stopped")

	c = guardOf(t, path)
	if err := c.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	place, err := c.Unfence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, _ := c.db.Index().Header()
	id := c.db.Identity()
	if place.Frame != h.MaxFrame || place.Salt != h.Salt || place.FrameCk != h.Cksum || place.Inode != id.Inode || place.BootID != id.BootID {
		t.Fatalf("place %+v, index %+v", place, h)
	}
	if got := newWriter(t, path).try(t, "insert into t values(5,'five')"); got != "ok" {
		t.Fatalf("after unfencing: %s", got)
	}
	if m, err := c.Mark(); err != nil || m != sqlitefile.MarkWAL || c.Fenced() {
		t.Fatalf("mark %d %v", m, err)
	}
	if _, err := c.Unfence(t.Context()); !errors.Is(err, apply.ErrNotFenced) {
		t.Fatalf("unfenced twice: %v", err)
	}
}

// A write transaction that has begun may finish; the fence waits for it, as long
// as it may.
func TestFenceWaitsForWriter(t *testing.T) {
	path := application(t)
	w := newWriter(t, path)
	w.try(t, "begin immediate")
	w.try(t, "insert into t values(2,'two')")
	c := guardOf(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := c.Fence(ctx); !errors.Is(err, context.DeadlineExceeded) || c.Fenced() {
		t.Fatalf("got %v", err)
	}
	fenced := make(chan error)
	go func() { fenced <- c.Fence(context.Background()) }()
	select {
	case err := <-fenced:
		t.Fatalf("fenced in the middle of a transaction: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if got := w.try(t, "commit"); got != "ok" {
		t.Fatalf("commit: %s", got)
	}
	if err := <-fenced; err != nil {
		t.Fatal(err)
	}
	if got := w.try(t, "begin immediate"); got != readonly {
		t.Fatal(got)
	}
	if got := shell(t, path, "select count(*) from t"); got != "2" {
		t.Fatal(got)
	}
}

// One database that is busy does not keep the others from being fenced.
func TestFenceAll(t *testing.T) {
	var all []*apply.Replica
	var copies []*copyOf
	var busy *writer
	for i := range 5 {
		path := application(t)
		c := guardOf(t, path)
		all, copies = append(all, c.Replica), append(copies, c)
		if i == 1 {
			busy = newWriter(t, path)
			busy.try(t, "begin immediate")
		}
	}
	done := make(chan error)
	go func() { done <- apply.FenceAll(context.Background(), all) }()
	eventually(t, "the others are fenced", func() bool {
		n := 0
		for _, c := range copies {
			if m, err := c.Mark(); err == nil && m == sqlitefile.MarkFenced {
				n++
			}
		}
		return n == 4
	})
	if copies[1].Fenced() {
		t.Fatal("the busy one is fenced")
	}
	busy.try(t, "rollback")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// The write lock goes from the one who drains to the Replica without a gap.
func TestFenceHeld(t *testing.T) {
	path := application(t)
	c := guardOf(t, path)
	lock, err := c.db.LockWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.FenceHeld(t.Context(), lock); err != nil {
		t.Fatal(err)
	}
	// It is this process's: a snapshot that takes it for a moment must wait.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.db.Snapshot(ctx, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the lock was given twice: %v", err)
	}
	if _, err := c.Unfence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, held, err := sqlitefile.Holder(c.db.Shm(), sqlitefile.LockWrite); held || err != nil {
		t.Fatalf("still locked: %v", err)
	}
	if lock, err = c.db.LockWrite(t.Context()); err != nil {
		t.Fatal(err)
	}
	lock.Release()
}

// A wal-index that a dying writer left torn is recovered before fencing.
func TestFenceTornIndex(t *testing.T) {
	path := application(t)
	c := guardOf(t, path)
	if _, err := c.db.Shm().WriteAt([]byte{1, 2, 3, 4}, 48+16); err != nil {
		t.Fatal(err)
	}
	if err := c.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, path, "pragma integrity_check; select count(*) from t"); got != "ok\n1" {
		t.Fatal(got)
	}
}

func TestRelease(t *testing.T) {
	s, first := newSource(t, 4096, "create table t(k integer primary key, v)")
	path := create(t, t.TempDir(), first)
	c := open(t, path, nil)
	c.mustApply(t, s.step(t, "insert into t values(1,'one')"))
	if err := releaseElsewhere(t, path); err == nil || !strings.Contains(err.Error(), apply.ErrInUse.Error()) {
		t.Fatalf("released under a running lsnode: %v", err)
	}
	// A backup carries the mark.
	backup := filepath.Join(t.TempDir(), "backup.db")
	shell(t, path, ".backup '"+backup+"'")
	c.close(t)

	for _, p := range []string{path, backup} {
		if got, err := tryShell(p, "insert into t values(2,'two')"); err == nil || !strings.Contains(got, readonly) {
			t.Fatalf("%v %s", err, got)
		}
		for range 2 { // the second time there is nothing to do
			if err := apply.Release(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if got := shell(t, p, "insert into t values(2,'two'); pragma integrity_check; select count(*) from t"); got != "ok\n2" {
			t.Fatal(got)
		}
	}
}

// releaseElsewhere releases in another process, as `lsnode release` is one.
func releaseElsewhere(t testing.TB, path string) error {
	t.Helper()
	out, err := roleCommand("release", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s", out)
	}
	return nil
}

// A released file is whole without its -wal.
func TestReleaseEmptiesWAL(t *testing.T) {
	s, first := newSource(t, 4096, "create table t(k integer primary key, v)")
	path := create(t, t.TempDir(), first)
	c := open(t, path, nil)
	c.mustApply(t, s.step(t, "insert into t values(1,'one')"))
	c.close(t)
	if err := apply.Release(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	db, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if n, err := db.WALBytes(); err != nil || n != 0 {
		t.Fatalf("WAL of %d bytes, %v", n, err)
	}
	buf := make([]byte, 4096)
	if _, err := db.Main().ReadAt(buf, 0); err != nil || sqlitefile.Mark(buf) != sqlitefile.MarkWAL {
		t.Fatalf("mark %d, %v", sqlitefile.Mark(buf), err)
	}
	if pagesum.Page(1, buf) != s.table.Get(1) {
		t.Fatal("page 1 is another one than the source's")
	}
}

// After having been unfenced a copy is nothing that transactions follow on,
// until somebody says or makes what it holds: at once, and after a restart.
func TestUnfencedIsUnsettled(t *testing.T) {
	s, first := newSource(t, 1024, "create table t(k integer primary key, v)")
	path := create(t, t.TempDir(), first)
	c := open(t, path, nil)
	if _, err := c.Unfence(t.Context()); err != nil {
		t.Fatal(err)
	}
	shell(t, path, "insert into t values(1,'never captured')")
	txn := s.step(t, "insert into t values(2,'two')")
	refused := func(want apply.Start) {
		t.Helper()
		if err := c.Fence(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), txn); !errors.Is(err, apply.ErrUnsettled) || c.Start() != want {
			t.Fatalf("start %s: %v", c.Start(), err)
		}
		if err := c.Sync(t.Context()); err != nil { // records nothing
			t.Fatal(err)
		}
	}
	refused(apply.StartClean)
	c.close(t)
	c = open(t, path, nil)
	refused(apply.StartUnfenced)

	// A scan would show that pages differ; here all of them come from the source.
	snap, err := s.db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	all := *txn
	all.Pages, all.PageCount = snap.Pages(1), snap.PageCount()
	if err := c.Repair(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	c.mustApply(t, s.step(t, "insert into t values(3,'three')"))
	same(t, s, path, "select * from t")
	c.close(t)
	if c = open(t, path, nil); c.Start() != apply.StartClean || c.Applied() != s.pos {
		t.Fatalf("start %s at %s", c.Start(), c.Applied())
	}
}
