package testcluster_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
)

// damages are what happens to a file under a running node. Each is done by
// another process.
var damages = []struct {
	name string
	do   func(path string) []string
}{
	{"a page is zeros", func(path string) []string {
		return []string{"dd", "if=/dev/zero", "of=" + path, "bs=4096", "seek=2", "count=1", "conv=notrunc", "status=none"}
	}},
	{"a byte is another one", func(path string) []string {
		return []string{"python3", "-c", "import sys\nf=open(sys.argv[1],'r+b');f.seek(3*4096+2000);b=f.read(1);f.seek(3*4096+2000);f.write(bytes([b[0]^0x40]))", path}
	}},
	{"the end is gone", func(path string) []string {
		return []string{"truncate", "-s", "8192", path}
	}},
	{"the mark is gone and a counter is another one", func(path string) []string {
		return []string{"python3", "-c", "import sys\nf=open(sys.argv[1],'r+b');f.seek(18);f.write(bytes([2]));f.seek(60);f.write(b'evil')", path}
	}},
}

// copied brings all of a node's WAL into its database file, so that what is in
// the file counts.
func (w *world) copied(n *testcluster.Node) {
	w.t.Helper()
	db := n.DB(testcluster.DatabaseName)
	for {
		out, err := exec.CommandContext(w.ctx, "sqlite3", "-cmd", ".timeout 5000", db, "PRAGMA wal_checkpoint(PASSIVE)").CombinedOutput()
		var log, done int
		var busy int
		if _, serr := fmt.Sscanf(strings.TrimSpace(string(out)), "%d|%d|%d", &busy, &log, &done); err == nil && serr == nil && busy == 0 && log == done {
			return
		}
		if w.ctx.Err() != nil {
			w.t.Fatalf("checkpoint %s: %v: %s", db, err, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// verifies runs "lsnode verify" on the primary.
func (w *world) verifies(args ...string) (string, error) {
	w.t.Helper()
	p := w.primary()
	return p.Run(w.ctx, "verify", append([]string{testcluster.DatabaseName, "--timeout", "1m"}, args...)...)
}

// Damage of a file, the primary's or a follower's, is found by rereading it and
// repaired from another node, while readers read.
func TestDamageIsRepaired(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Args: append([]string{"--audit-interval", "0"}, calm...)})
	bank := w.writer(w.primary(), "bank", "--count", "50")
	_, err := bank.Wait()
	w.must(err)
	_, err = w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)
	if out, err := w.verifies("--deep"); err != nil {
		t.Fatalf("before any damage: %v: %s", err, out)
	}
	for _, n := range []*testcluster.Node{w.Nodes[1], w.Nodes[0]} {
		for i, damage := range damages {
			if n == w.primary() && i == 3 {
				continue // a primary's file has no mark
			}
			w.copied(n)
			argv := damage.do(n.DB(testcluster.DatabaseName))
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			out, err := w.verifies("--deep")
			if err == nil || !strings.Contains(out, "damaged, repaired") {
				t.Fatalf("%s on %s: %v: %s", damage.name, n.Name, err, out)
			}
			if out, err := w.verifies("--deep"); err != nil {
				t.Errorf("after the repair on %s of %s: %v: %s", n.Name, damage.name, err, out)
			}
			refuses(t, w.Nodes[1])
		}
	}
	bank = w.writer(w.primary(), "bank", "--count", "20")
	_, err = bank.Wait()
	w.must(err)
	t.Logf("%+v", w.verify())
	if entries, err := os.ReadDir(w.Nodes[0].DataDir + "/quarantine"); !errors.Is(err, fs.ErrNotExist) && len(entries) > 0 {
		t.Errorf("in quarantine: %v", entries)
	}
}

// The audit finds the same without being asked.
func TestAuditRepairs(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{Args: append([]string{"--audit-interval", "1s"}, calm...)})
	bank := w.writer(w.primary(), "bank", "--count", "50")
	_, err := bank.Wait()
	w.must(err)
	_, err = w.WaitEqual(w.ctx, testcluster.DatabaseName)
	w.must(err)
	for _, n := range []*testcluster.Node{w.Nodes[1], w.Nodes[0]} {
		w.copied(n)
		argv := damages[0].do(n.DB(testcluster.DatabaseName))
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		for !strings.Contains(n.LogTail(1<<20), "damage is repaired") {
			if w.ctx.Err() != nil {
				t.Fatalf("%s has repaired nothing", n.Name)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if out, err := w.verifies("--deep"); err != nil {
		t.Errorf("afterwards: %v: %s", err, out)
	}
	t.Logf("%+v", w.verify())
}
