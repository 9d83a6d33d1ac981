package apply_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
)

const accounts = 200

// ledgerTables make the application of which readers know an invariant: money
// neither appears nor vanishes, and there are as many entries as steps.
var ledgerTables = []string{
	"create table meta(seq integer)", "insert into meta values(0)",
	"create table entry(seq integer primary key, a, b, amount, note)",
	"create table account(id integer primary key, balance integer, note)",
	fmt.Sprintf("with recursive n(i) as (select 1 union all select i+1 from n where i<%d) insert into account select i, 100, '' from n", accounts),
}

// transfer is one step of the application, with large ones among them.
func transfer(rng *rand.Rand) string {
	a, b, amount := rng.IntN(accounts)+1, rng.IntN(accounts)+1, rng.IntN(50)
	note := fmt.Sprintf("hex(randomblob(%d))", rng.IntN(60))
	if rng.IntN(500) == 0 {
		note = fmt.Sprintf("zeroblob(%d)", 100000+rng.IntN(400000))
	}
	return fmt.Sprintf(`begin; update account set balance=balance-%[3]d, note=%[4]s where id=%[1]d;
		update account set balance=balance+%[3]d where id=%[2]d;
		update meta set seq=seq+1; insert into entry select seq, %[1]d, %[2]d, %[3]d, '' from meta; commit`, a, b, amount, note)
}

func long() bool { return os.Getenv("LSNODE_LONG") != "" }

func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Readers of three kinds in other processes, while thousands of transactions
// are applied over many generations of the WAL.
func TestReaders(t *testing.T) {
	rng := seeded(t)
	steps := 4000
	if long() {
		steps = 150000
	}
	s, first := newSource(t, 1024, ledgerTables...)
	c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) { c.CheckpointFrames = 50 })
	c.run(t)
	readers := []*process{
		role(t, "reader", c.path, "keep"), role(t, "reader", c.path, "mmap"), role(t, "reader", c.path, "reopen"),
		start(t, "python", python(t, pythonReader, c.path)),
	}
	shells := repeat(c.path, `select sum(balance)=count(*)*100, (select count(*) from entry)=(select seq from meta) from account;
		pragma integrity_check`, "2000", 0, func(out string, err error) bool { return err == nil && out == "1|1\nok" })
	// Others may copy frames, without fsync even; only we restart the WAL.
	checkpoints := repeat(c.path, `pragma synchronous=off; pragma wal_checkpoint(truncate); pragma wal_checkpoint(restart);
		pragma wal_checkpoint(full); pragma wal_checkpoint(passive)`, "30", 200*time.Millisecond, func(out string, err error) bool {
		if err != nil {
			return strings.Contains(out, "database is locked") // not even opened
		}
		lines := strings.Split(out, "\n")
		return len(lines) == 4 && strings.HasPrefix(lines[0], "1|") && strings.HasPrefix(lines[1], "1|") && strings.HasPrefix(lines[2], "1|")
	})
	// Readers that keep both processors busy make restarts rare, not impossible.
	for i := 0; i < steps || i < 20*steps && c.Stats().Restarts < 3; i++ {
		txn := s.step(t, transfer(rng))
		if i%1000 == 500 {
			txn = join(t, txn, s.step(t, "vacuum"))
		}
		c.mustApply(t, txn)
	}
	for _, r := range readers {
		t.Log(r.name, r.end(t))
	}
	n, err := shells()
	if err != nil || n == 0 {
		t.Fatalf("sqlite3 shell after %d reads: %v", n, err)
	}
	if n, err := checkpoints(); err != nil || n == 0 {
		t.Fatalf("sqlite3 shell after %d checkpoints: %v", n, err)
	}
	stats := c.Stats()
	t.Logf("%d reads of the shell; %+v", n, stats)
	if stats.Restarts < 3 {
		t.Errorf("the WAL restarted %d times only", stats.Restarts)
	}
	same(t, s, c.path, "select * from entry", "select * from account", "select * from meta")
}

func join(t testing.TB, txns ...*walstream.Txn) *walstream.Txn {
	t.Helper()
	txn, err := apply.Coalesce(seq(txns...), 0)
	if err != nil {
		t.Fatal(err)
	}
	return txn
}

// repeat runs a script in the sqlite3 shell again and again, and checks what it
// prints, until the returned function is called. Without any busy timeout SQLite
// may refuse to open a database while another connection is being closed.
func repeat(path, script, timeout string, gap time.Duration, right func(string, error) bool) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	go func() {
		var r result
		for ctx.Err() == nil && r.err == nil {
			out, err := exec.Command("sqlite3", "-cmd", ".timeout "+timeout, path, script).CombinedOutput()
			if !right(strings.TrimSpace(string(out)), err) {
				r.err = fmt.Errorf("%q: %q, %v", script, out, err)
			}
			r.n++
			select {
			case <-ctx.Done():
			case <-time.After(gap):
			}
		}
		done <- r
	}()
	return func() (int, error) {
		cancel()
		r := <-done
		return r.n, r.err
	}
}

// A reader that stays neither stops replication nor is disturbed; when it
// leaves, the WAL becomes short again.
func TestLongReader(t *testing.T) {
	rng := seeded(t)
	s, first := newSource(t, 1024, ledgerTables...)
	c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) { c.CheckpointFrames = 100 })
	c.run(t)
	c.mustApply(t, s.step(t, transfer(rng)))
	reader := holdRead(t, c.path)
	before := c.Stats().Restarts
	var slowest time.Duration
	for range 1000 {
		txn := s.step(t, transfer(rng))
		begin := time.Now()
		c.mustApply(t, txn)
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("slowest apply beside a long reader: %s", slowest)
	if got := shell(t, c.path, "select seq from meta"); got != "1001" {
		t.Fatalf("others see %s", got)
	}
	if got := c.Stats(); got.Restarts != before || got.Kept == 0 || got.KeptSince.IsZero() || got.Frames < 1000 {
		t.Fatalf("a reader holds the WAL: %+v", got)
	}
	if got := reader.end(t); got != "1" {
		t.Fatalf("the long reader sees %s", got)
	}
	eventually(t, "the WAL is short again", func() bool {
		n, err := c.db.WALBytes()
		return err == nil && n <= 8*100*1100 && c.Stats().Frames == 0
	})
	same(t, s, c.path, "select * from entry", "select * from account")
}

// holdRead starts a process that holds a read transaction until it ends, and
// then says what it sees.
func holdRead(t testing.TB, path string) *process {
	return start(t, "long reader", python(t, `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('begin')
db.execute('select seq from meta').fetchone()
print('reading', flush=True)
sys.stdin.read()
print(db.execute('select seq from meta').fetchone()[0])
assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'
`, path))
}

// python runs a script with Python's own SQLite.
func python(t testing.TB, script string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	return exec.Command("python3", append([]string{"-c", script}, args...)...)
}

// Short readers that overlap all the time keep the WAL from restarting only for
// moments.
func TestOverlappingReaders(t *testing.T) {
	rng := seeded(t)
	s, first := newSource(t, 1024, ledgerTables...)
	c := open(t, create(t, t.TempDir(), first), func(c *apply.Config) { c.CheckpointFrames = 25 })
	c.run(t)
	var readers []*process
	for range 4 {
		readers = append(readers, role(t, "reader", c.path, "keep"))
	}
	eventually(t, "the WAL restarts 5 times beside overlapping readers", func() bool {
		c.mustApply(t, s.step(t, transfer(rng)))
		return c.Stats().Restarts >= 5
	})
	for _, r := range readers {
		r.end(t)
	}
	stats := c.Stats()
	t.Logf("%s: %+v", c.Applied().TXID, stats)
	same(t, s, c.path, "select * from entry", "select * from account")
}
