package sqlitedb_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// shell runs statements in the sqlite3 shell, another process, and returns what
// it prints.
func shell(t *testing.T, path string, script ...string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", path, ".timeout 5000", strings.Join(script, ";\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// database makes a database in WAL mode with the shell.
func database(t *testing.T, script ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a ?%41#.db")
	shell(t, path, append([]string{"pragma journal_mode=wal", "create table t(k integer primary key, v)"}, script...)...)
	return path
}

func open(t *testing.T, path string) *sqlitedb.DB {
	t.Helper()
	db, err := sqlitedb.Open(context.Background(), path, sqlitedb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
