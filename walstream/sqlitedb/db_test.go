package sqlitedb_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// A DB that is closed last leaves the WAL and its content in place, copies
// nothing, and while it is open another process that closes does neither.
func TestCloseKeepsWAL(t *testing.T) {
	path := database(t)
	db := open(t, path)
	shell(t, path, "insert into t values(1,'one')")
	h, ok := db.Index().Header()
	if !ok || h.MaxFrame == 0 {
		t.Fatalf("header %+v %v: the other process reset the WAL when it closed", h, ok)
	}
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.BeginRead(); err != nil {
		t.Fatal(err)
	}
	if err := c.EndRead(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path + "-wal")
	if err != nil || st.Size() < sqlitefile.FrameOffset(h.MaxFrame+1, db.PageSize()) {
		t.Fatalf("-wal after close: %v %v", st, err)
	}
	main, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(main) / int(db.PageSize()); uint32(n) == h.PageCount && h.PageCount > 2 {
		t.Fatalf("the database file has %d pages: something was checkpointed", n)
	}
	if got := shell(t, path, "select v from t"); got != "one" {
		t.Fatalf("got %q", got)
	}
}

// Two users of one DB exclude each other, and both exclude SQLite.
func TestLockWrite(t *testing.T) {
	path := database(t)
	db := open(t, path)
	lock, err := db.LockWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := db.LockWrite(short); err == nil {
		t.Fatal("lock granted twice")
	}
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("pragma busy_timeout=0; insert into t values(1,1)"); err == nil {
		t.Fatal("wrote in spite of the lock")
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("insert into t values(1,1)"); err != nil {
		t.Fatal(err)
	}
	if lock, err = db.LockWrite(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestReplaced(t *testing.T) {
	path := database(t)
	db := open(t, path)
	if r, err := db.Replaced(); r || err != nil {
		t.Fatal(r, err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if r, err := db.Replaced(); !r || !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(r, err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := db.Replaced(); !r || err != nil {
		t.Fatal(r, err)
	}
}

func TestClosedConnects(t *testing.T) {
	db, err := sqlitedb.Open(t.Context(), database(t), sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Conn(t.Context()); err == nil {
		t.Fatal("connected to a closed DB")
	}
}
