package testcluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// A directory is watched: databases that appear later are adopted and copied,
// files that can't be replicated are refused with a reason, and none of that
// disturbs the others.
func TestDatabasesThatAppearLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dbs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 2*time.Minute, testcluster.Options{Nonvoters: true})
	first, follower := w.Nodes[0], w.Nodes[1]
	first.Args = append(first.Args, "--db-dir", dir)
	w.must(w.Start(w.ctx))
	bank := w.writer(first, "bank", "--rate", "200")

	w.must(app.Prepare(filepath.Join(dir, "second.db"), 10))
	w.must(os.WriteFile(filepath.Join(dir, "junk.db"), make([]byte, 8192), 0o644))
	w.must(os.WriteFile(filepath.Join(dir, "secret.sqlite"), noise(w, 8192), 0o644))
	holdExclusive(w, filepath.Join(dir, "exclusive.db"))

	_, err := follower.WaitFor(w.ctx, "a copy of the second database", func(s testcluster.Status) bool {
		return s.Database("second").State == "streaming"
	})
	w.must(err)
	for _, name := range []string{"junk", "secret", "exclusive"} {
		s, err := first.WaitFor(w.ctx, "a refusal of "+name, func(s testcluster.Status) bool {
			return s.Database(name).State == "refused"
		})
		w.must(err)
		why := s.Database(name).Error
		t.Logf("%s: %s", name, why)
		if why == "" {
			t.Errorf("%s was refused without a reason", name)
		}
		if _, err := os.Stat(follower.DB(name)); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	second, err := w.Apps.Start("bank", "--db", filepath.Join(dir, "second.db"), "--count", "50")
	w.must(err)
	_, err = second.Wait()
	w.must(err)
	w.more(bank, 50)
	w.finish(bank)
	if _, err := w.WaitEqual(w.ctx, "second"); err != nil {
		t.Fatal(err)
	}
	want, err := w.Apps.Digest(w.ctx, filepath.Join(dir, "second.db"))
	w.must(err)
	for _, n := range w.Nodes[1:] {
		s, err := n.Status(w.ctx)
		w.must(err)
		got, err := w.Apps.Digest(w.ctx, s.Database("second").Path)
		w.must(err)
		if got.Content != want.Content || got.Checksum != want.Checksum {
			t.Errorf("%s holds another second database: %v, not %v", n.Name, got.Rows, want.Rows)
		}
	}
	t.Logf("%+v", w.verify())
}

func noise(w *world, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

// holdExclusive makes a database and keeps it open in EXCLUSIVE locking mode in
// another process until the test ends.
func holdExclusive(w *world, path string) {
	w.t.Helper()
	made := path + ".making"
	cmd := exec.Command("python3", "-u", "-c", `
import sqlite3, sys, os
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA locking_mode=EXCLUSIVE")
c.execute("CREATE TABLE t(a)")
c.execute("BEGIN IMMEDIATE"); c.execute("INSERT INTO t VALUES(1)"); c.execute("COMMIT")
os.rename(sys.argv[1], sys.argv[2])
print("held")
sys.stdin.read()`, made, path)
	in, err := cmd.StdinPipe()
	w.must(err)
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	w.t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil || word != "held" {
		w.t.Fatalf("hold exclusively: %q, %v", word, err)
	}
}
