package sqlitefile_test

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// files are the three files of a database, opened once and closed after the
// SQLite connection that the test keeps open on it.
type files struct {
	path           string
	main, wal, shm *os.File
	index          *sqlitefile.Index
	conn           *sql.Conn
}

// openFiles makes a database of the page size in WAL mode, runs the statements,
// and keeps a connection of this process open.
func openFiles(t *testing.T, pageSize string, statements ...string) *files {
	t.Helper()
	f := &files{path: filepath.Join(t.TempDir(), "a.db")}
	pool, err := sql.Open("sqlite3", "file:"+f.path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	pool.SetMaxOpenConns(1)
	if f.conn, err = pool.Conn(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, "pragma page_size="+pageSize, "pragma journal_mode=wal", "pragma wal_autocheckpoint=0",
		"create table t(k integer primary key, v)")
	f.exec(t, statements...)
	open := func(name string) *os.File {
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	f.main, f.wal, f.shm = open(f.path), open(f.path+"-wal"), open(f.path+"-shm")
	if ok, err := sqlitefile.TryLock(f.shm, sqlitefile.LockDMS, 1, false); err != nil || !ok {
		t.Fatalf("lock DMS: %v %v", ok, err)
	}
	if f.index, err = sqlitefile.MapIndex(f.shm); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.conn.Close()
		pool.Close()
		if err := f.index.Close(); err != nil {
			t.Error(err)
		}
		f.main.Close()
		f.wal.Close()
		f.shm.Close()
	})
	return f
}

func (f *files) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := f.conn.ExecContext(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// shell runs statements in the sqlite3 shell, another process and another
// version of SQLite, and returns what it prints.
func (f *files) shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", f.path, script).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}
