package apply_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// source is the database of an application, from whose WAL transactions are
// read: a capture as simple as can be, since nothing ever checkpoints here.
type source struct {
	db    *sqlitedb.DB
	app   *sqlitedb.Conn
	table *pagesum.Table
	frame uint32 // the last one that was read
	pos   walstream.Position
}

// newSource makes a database, runs the statements, and takes what there is then
// as transaction 1.
func newSource(t testing.TB, pageSize int, statements ...string) (*source, *walstream.Txn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.db")
	script := fmt.Sprintf("pragma page_size=%d; pragma journal_mode=wal; create table first(x);", pageSize)
	shell(t, path, script)
	db, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &source{db: db, table: pagesum.New(db.PageSize()), pos: walstream.Position{Epoch: 1}}
	if s.app, err = db.Conn(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exec(t, append([]string{"pragma synchronous=off"}, statements...)...)
	snap, err := db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	pages := map[uint32][]byte{}
	for no := uint32(1); no <= snap.PageCount(); no++ {
		buf := make([]byte, db.PageSize())
		if err := snap.ReadPage(no, buf); err != nil {
			t.Fatal(err)
		}
		pages[no] = buf
	}
	s.frame = snap.Header().MaxFrame
	return s, s.txn(pages, snap.PageCount())
}

func (s *source) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if err := s.app.Exec(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// step runs statements and returns what they committed as one transaction.
func (s *source) step(t testing.TB, statements ...string) *walstream.Txn {
	t.Helper()
	s.exec(t, statements...)
	h, ok := s.db.Index().Header()
	if !ok {
		t.Fatal("source has no valid header")
	}
	pages := map[uint32][]byte{}
	for f := s.frame + 1; f <= h.MaxFrame; f++ {
		buf := make([]byte, h.PageSize+sqlitefile.FrameHeaderSize)
		if _, err := s.db.Wal().ReadAt(buf, sqlitefile.FrameOffset(f, h.PageSize)); err != nil {
			t.Fatal(err)
		}
		if no := sqlitefile.ParseFrameHeader(buf).PageNo; no <= h.PageCount {
			pages[no] = buf[sqlitefile.FrameHeaderSize:]
		}
	}
	s.frame = h.MaxFrame
	return s.txn(pages, h.PageCount)
}

// txn makes the next transaction of the pages.
func (s *source) txn(pages map[uint32][]byte, pageCount uint32) *walstream.Txn {
	u := s.table.Begin(pageCount, nil)
	for no, data := range pages {
		u.Set(no, pagesum.Page(no, data))
	}
	pre := s.pos
	s.pos.TXID++
	s.pos.Checksum = u.Checksum()
	u.Commit(s.pos)
	return &walstream.Txn{
		Header: walstream.Header{
			Database: "app", Kind: walstream.KindPages, PageSize: s.db.PageSize(), PageCount: pageCount,
			Time: time.UnixMilli(1700000000000), Pre: pre, Post: s.pos,
		},
		Pages: pagesOf(pages),
	}
}

func pagesOf(pages map[uint32][]byte) walstream.Pages {
	order := slices.Sorted(maps.Keys(pages))
	return func(yield func(walstream.Page, error) bool) {
		for _, no := range order {
			if !yield(walstream.Page{No: no, Data: pages[no]}, nil) {
				return
			}
		}
	}
}

// epoch returns the record with which a new primary begins.
func (s *source) epoch() *walstream.Txn {
	pre := s.pos
	s.pos.Epoch++
	return &walstream.Txn{
		Header: walstream.Header{Database: "app", Kind: walstream.KindEpoch, Pre: pre, Post: s.pos},
		Pages:  walstream.NoPages,
	}
}

// copyOf is a copy of a source, with all that belongs to it.
type copyOf struct {
	path  string
	db    *sqlitedb.DB
	table *pagesum.Table
	*apply.Replica
}

// create makes a copy from a first transaction.
func create(t testing.TB, dir string, first *walstream.Txn) string {
	t.Helper()
	path := filepath.Join(dir, "copy.db")
	table, err := pagesum.Open(path+".sums", first.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	err = apply.Create(t.Context(), path, &first.Header, first.Pages, apply.CreateOptions{Table: table, StatePath: path + ".state"})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a copy and fences it.
func open(t testing.TB, path string, change func(*apply.Config)) *copyOf {
	t.Helper()
	c, err := tryOpen(path, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(t) })
	if err := c.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func tryOpen(path string, change func(*apply.Config)) (*copyOf, error) {
	db, err := sqlitedb.Open(context.Background(), path, sqlitedb.Options{})
	if err != nil {
		return nil, err
	}
	table, err := pagesum.Open(path+".sums", db.PageSize())
	if err != nil {
		return nil, err
	}
	config := apply.Config{DB: db, Table: table, StatePath: path + ".state", IdleAfter: 50 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	r, err := apply.Open(config)
	if err != nil {
		return nil, err
	}
	return &copyOf{path: path, db: db, table: table, Replica: r}, nil
}

// close ends in a clean way; a second time it does nothing.
func (c *copyOf) close(t testing.TB) {
	t.Helper()
	if c.db == nil {
		return
	}
	err1 := c.Close(context.Background())
	err2 := c.db.Close()
	err3 := c.table.Close()
	c.db = nil
	if err1 != nil || err2 != nil || err3 != nil {
		t.Errorf("close copy: %v %v %v", err1, err2, err3)
	}
}

func (c *copyOf) mustApply(t testing.TB, txns ...*walstream.Txn) {
	t.Helper()
	for _, txn := range txns {
		if err := c.Apply(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs Run until the test ends or the returned function is called.
func (c *copyOf) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// shell runs a script in the sqlite3 shell: another process, another version of
// SQLite.
func shell(t testing.TB, path, script string) string {
	t.Helper()
	out, err := tryShell(path, script)
	if err != nil {
		t.Fatalf("sqlite3 %s %q: %v: %s", path, script, err, out)
	}
	return out
}

func tryShell(path, script string) (string, error) {
	out, err := exec.Command("sqlite3", "-cmd", ".timeout 2000", path, script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// same compares copy and source, row by row, in another process.
func same(t testing.TB, s *source, path string, queries ...string) {
	t.Helper()
	for _, q := range append(queries, "select name, sql from sqlite_schema order by 1") {
		if got, want := shell(t, path, q), shell(t, s.db.Path(), q); got != want {
			t.Fatalf("%s:\ncopy   %.300s\nsource %.300s", q, got, want)
		}
	}
	if got := shell(t, path, "pragma integrity_check"); got != "ok" {
		t.Fatalf("integrity_check of the copy: %s", got)
	}
}

// eventually waits for a condition with a generous limit.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMain also runs the roles that tests give to other processes of this
// binary.
func TestMain(m *testing.M) {
	if role := os.Getenv("APPLY_TEST_ROLE"); role != "" {
		os.Exit(playRole(role, os.Args[1:]))
	}
	os.Exit(m.Run())
}
