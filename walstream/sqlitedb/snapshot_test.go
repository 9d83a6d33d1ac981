package sqlitedb_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// image reads a whole snapshot through Pages, and sees that ReadPage agrees.
func image(t *testing.T, s *sqlitedb.Snapshot) []byte {
	t.Helper()
	size := int(s.PageSize())
	b := make([]byte, int(s.PageCount())*size)
	one := make([]byte, size)
	last := uint32(0)
	for p, err := range s.Pages(1) {
		if err != nil {
			t.Fatal(err)
		}
		if p.No != last+1 {
			t.Fatalf("page %d after page %d", p.No, last)
		}
		last = p.No
		copy(b[(int(p.No)-1)*size:], p.Data)
		if err := s.ReadPage(p.No, one); err != nil {
			t.Fatal(err)
		}
		if p.No == 1 {
			sqlitefile.Normalise(one)
		}
		if !bytes.Equal(one, p.Data) {
			t.Fatalf("page %d: ReadPage and Pages differ", p.No)
		}
	}
	if last != s.PageCount() {
		t.Fatalf("%d pages of %d", last, s.PageCount())
	}
	return b
}

// query runs a statement on an image of a database.
func query(t *testing.T, image []byte, statement string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), fmt.Sprint("image", rand.Int63()))
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return shell(t, path, statement)
}

// A snapshot stays what it was, whatever is committed, copied and restarted
// after it.
func TestSnapshotStays(t *testing.T) {
	for _, c := range []struct {
		name   string
		before string // run just before the snapshot
	}{
		{"frames not copied", "insert into t values(5,5)"},
		{"some copied", "pragma wal_checkpoint(passive);\ninsert into t values(5,5)"},
		{"all copied", "insert into t values(5,5);\npragma wal_checkpoint(full)"},
		{"WAL cut", "insert into t values(5,5);\npragma wal_checkpoint(truncate)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := database(t)
			db := open(t, path)
			shell(t, path, "insert into t values(1,randomblob(20000))", c.before)
			s, err := db.Snapshot(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			before := image(t, s)
			shell(t, path, "delete from t", "insert into t values(9,randomblob(50000))", "pragma wal_checkpoint(passive)", "vacuum")
			if c.name == "all copied" || c.name == "WAL cut" {
				shell(t, path, "insert into t values(10,10)")
			}
			if !bytes.Equal(image(t, s), before) {
				t.Error("the snapshot changed")
			}
			if got := query(t, before, "select count(*), max(k) from t; pragma integrity_check"); got != "2|5\nok" {
				t.Errorf("snapshot has %q", got)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = db.Snapshot(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if got := query(t, image(t, s), "select max(k)>=9 from t; pragma integrity_check"); got != "1\nok" {
				t.Errorf("new snapshot has %q", got)
			}
		})
	}
}

// A database of which no frame was ever in this WAL has its size from the file.
func TestSnapshotWithoutWAL(t *testing.T) {
	path := database(t, "insert into t values(1,randomblob(9000))") // its WAL went with the shell
	db := open(t, path)
	s, err := db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, image(t, s), "select count(*) from t; pragma integrity_check"); got != "1\nok" {
		t.Errorf("got %q", got)
	}
	if err := s.ReadPage(0, make([]byte, 4096)); err == nil {
		t.Error("read page 0")
	}
	if err := s.ReadPage(s.PageCount()+1, make([]byte, 4096)); err == nil {
		t.Error("read beyond the end")
	}
}

// A snapshot under a write lock that the caller holds.
func TestSnapshotLocked(t *testing.T) {
	path := database(t)
	db := open(t, path)
	lock, err := db.LockWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := db.Snapshot(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	image(t, s)
}

// A wal-index with a torn header is an error, and Recover makes it good.
func TestRecover(t *testing.T) {
	path := database(t)
	db := open(t, path)
	shell(t, path, "insert into t values(1,1)")
	var b [1]byte
	if _, err := db.Shm().ReadAt(b[:], 16); err != nil {
		t.Fatal(err)
	}
	b[0]++
	if _, err := db.Shm().WriteAt(b[:], 16); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Header(t.Context()); !errors.Is(err, sqlitedb.ErrTornIndex) {
		t.Fatalf("header of a torn index: %v", err)
	}
	if err := db.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := db.Snapshot(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if got := query(t, image(t, s), "select count(*) from t"); got != "1" {
		t.Errorf("got %q", got)
	}
}
