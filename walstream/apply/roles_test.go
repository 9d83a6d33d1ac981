package apply_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"github.com/lsnode/lsnode/walstream/apply"
)

// playRole is main of the processes that tests start.
func playRole(role string, args []string) int {
	var err error
	switch role {
	case "reader":
		err = readerRole(args[0], args[1])
	case "applier":
		err = applierRole(args)
	case "release":
		err = apply.Release(context.Background(), args[0])
	default:
		err = fmt.Errorf("unknown role")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role, args, err)
		return 1
	}
	return 0
}

// readerRole reads the ledger until stdin ends, in one of several ways, and
// fails when money appears or vanishes, or time goes back.
func readerRole(path, way string) error {
	var ended atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()
	open := func() (*sql.DB, error) {
		db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=2000&_query_only=1")
		if err == nil {
			db.SetMaxOpenConns(1)
			_, err = db.Exec(map[string]string{"mmap": "pragma mmap_size=1000000000"}[way])
		}
		return db, err
	}
	db, err := open()
	if err != nil {
		return err
	}
	fmt.Println("reading")
	var last int64
	n := 0
	for ; !ended.Load() || n == 0; n++ {
		if way == "reopen" {
			if err := db.Close(); err != nil {
				return err
			}
			if db, err = open(); err != nil {
				return err
			}
		}
		if last, err = readLedger(db, last, n%200 == 0); err != nil {
			return fmt.Errorf("read %d: %w", n, err)
		}
	}
	fmt.Println(n, "reads")
	return db.Close()
}

// readLedger checks one snapshot, with several statements in one transaction.
func readLedger(db *sql.DB, last int64, integrity bool) (int64, error) {
	tx, err := db.Begin()
	if err != nil {
		return last, err
	}
	defer tx.Rollback()
	var seq, again, sum, n, log int64
	if err := tx.QueryRow("select seq from meta").Scan(&seq); err != nil {
		return last, err
	}
	if seq < last {
		return last, fmt.Errorf("went back from %d to %d", last, seq)
	}
	if err := tx.QueryRow("select sum(balance), count(*) from account").Scan(&sum, &n); err != nil {
		return last, err
	}
	if sum != accounts*100 || n != accounts {
		return last, fmt.Errorf("at %d there are %d in %d accounts", seq, sum, n)
	}
	if integrity {
		var ok string
		if err := tx.QueryRow("pragma integrity_check").Scan(&ok); err != nil || ok != "ok" {
			return last, fmt.Errorf("integrity_check at %d: %s %w", seq, ok, err)
		}
	}
	if err := tx.QueryRow("select seq, (select count(*) from entry) from meta").Scan(&again, &log); err != nil {
		return last, err
	}
	if again != seq || log != seq {
		return last, fmt.Errorf("a snapshot of %d became %d, with %d entries", seq, again, log)
	}
	return seq, nil
}

// pythonReader does the same with another SQLite.
const pythonReader = `
import sqlite3, sys, threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
db = sqlite3.connect(sys.argv[1], timeout=2, isolation_level=None)
print('reading', sqlite3.sqlite_version, flush=True)
last, n = 0, 0
while n == 0 or not ended.is_set():
    db.execute('begin')
    seq = db.execute('select seq from meta').fetchone()[0]
    total, count = db.execute('select sum(balance), count(*) from account').fetchone()
    entries = db.execute('select count(*) from entry').fetchone()[0]
    if n % 200 == 0:
        ok = db.execute('pragma integrity_check').fetchone()[0]
        assert ok == 'ok', ok
    db.execute('commit')
    assert seq >= last, (last, seq)
    assert total == count*100 and entries == seq, (seq, total, count, entries)
    last, n = seq, n+1
print(n, 'reads')
`

// process is another process that a test has started; it ends when its stdin
// does.
type process struct {
	name string
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
	err  *strings.Builder
}

// start starts a process and waits for its first line.
func start(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, err: &strings.Builder{}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	cmd.Stderr = p.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if _, err := p.out.ReadString('\n'); err != nil {
		cmd.Wait()
		t.Fatalf("%s did not start: %v: %s", name, err, p.err)
	}
	return p
}

// role starts this binary in a role.
func role(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return start(t, name+" "+strings.Join(args, " "), roleCommand(name, args...))
}

func roleCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "APPLY_TEST_ROLE="+name)
	return cmd
}

// end ends the process's input and returns what it says.
func (p *process) end(t testing.TB) string {
	t.Helper()
	p.in.Close()
	rest, _ := io.ReadAll(p.out)
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s%s", p.name, err, rest, p.err)
	}
	return strings.TrimSpace(string(rest))
}
