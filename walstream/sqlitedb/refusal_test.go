package sqlitedb_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// holder keeps a sqlite3 shell open that has run some statements.
func holder(t *testing.T, path string, script ...string) {
	t.Helper()
	cmd := exec.Command("sqlite3", "-bail", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := in.Write([]byte(strings.Join(script, ";\n") + ";\nselect 'ready';\n")); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	buf := make([]byte, 100)
	for !strings.Contains(got.String(), "ready") {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("sqlite3 shell: %v after %q", err, &got)
		}
		got.Write(buf[:n])
	}
}

// Each file that is no fit database is refused with its reason, and left as it
// was.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noise := make([]byte, 8192)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	made := func(name string, script ...string) string {
		path := filepath.Join(dir, name)
		shell(t, path, script...)
		return path
	}
	rollback := made("rollback", "create table t(a)")
	plain := made("plain", "pragma journal_mode=wal", "create table t(a)")
	content, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), content...)
	copy(damaged[100:], noise[:2000])
	future := append([]byte(nil), content...)
	future[19] = 9
	exclusive := made("exclusive", "pragma journal_mode=wal", "create table t(a)")
	holder(t, exclusive, "pragma locking_mode=exclusive", "begin exclusive", "insert into t values(1)", "commit")
	inUse := made("in use", "create table t(a)")
	holder(t, inUse, "begin", "select count(*) from t")

	for _, c := range []struct {
		name, path string
		convert    bool
		want       sqlitedb.Reason
	}{
		{"not there", filepath.Join(dir, "nothing"), false, sqlitedb.NotFound},
		{"a directory", dir, false, sqlitedb.NotRegular},
		{"empty", file("empty", nil), true, sqlitedb.Empty},
		{"text", file("text", []byte("just some text\n")), true, sqlitedb.NotDatabase},
		{"long text", file("long", bytes.Repeat([]byte("just some text, "), 512)), true, sqlitedb.NotDatabase},
		{"encrypted", file("encrypted", noise), true, sqlitedb.Encrypted},
		{"encrypted behind a plain header", file("behind", append(append([]byte(nil), content[:16]...), noise[16:]...)), true, sqlitedb.Encrypted},
		{"damaged", file("damaged", damaged), true, sqlitedb.Unreadable},
		{"later version", file("future", future), true, sqlitedb.TooNew},
		{"rollback journal", rollback, false, sqlitedb.NotWAL},
		{"exclusive", exclusive, true, sqlitedb.Exclusive},
		{"in use in another mode", inUse, true, sqlitedb.NoWAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := sqlitedb.Open(t.Context(), c.path, sqlitedb.Options{Convert: c.convert, BusyTimeout: 50 * time.Millisecond})
			if err == nil {
				db.Close()
			}
			if got := sqlitedb.Refused(err); got != c.want {
				t.Fatalf("%v: reason %q, want %q", err, got, c.want)
			}
			var r *sqlitedb.Refusal
			if !errors.As(err, &r) || !strings.Contains(err.Error(), c.path) || !strings.Contains(err.Error(), string(c.want)) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestConvert(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	shell(t, path, "create table t(a)", "insert into t values(1)")
	db, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{Convert: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := shell(t, path, "pragma journal_mode", "select a from t"); got != "wal\n1" {
		t.Errorf("got %q", got)
	}
	// While it is open nobody takes it out of WAL mode.
	if out, err := exec.Command("sqlite3", path, "pragma journal_mode=delete").CombinedOutput(); err == nil && strings.TrimSpace(string(out)) == "delete" {
		t.Error("taken out of WAL mode")
	}
}

// A database behind a symbolic link has its WAL beside the file itself.
func TestSymlink(t *testing.T) {
	path := database(t)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	db := open(t, link)
	if db.Path() != link || db.Wal().Name() != path+"-wal" {
		t.Errorf("path %s, WAL %s", db.Path(), db.Wal().Name())
	}
	if r, err := db.Replaced(); r || err != nil {
		t.Errorf("replaced %v %v", r, err)
	}
	other := database(t)
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if r, err := db.Replaced(); !r || err != nil {
		t.Errorf("link leads elsewhere: replaced %v %v", r, err)
	}
}

// A fenced copy can be opened: it is in WAL mode, and read-only.
func TestOpenFenced(t *testing.T) {
	path := database(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[18] = 76
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("insert into t values(1,1)"); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("write to a fenced copy: %v", err)
	}
	if err := c.BeginRead(); err != nil {
		t.Error(err)
	}
}
