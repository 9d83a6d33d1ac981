package capture_test

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

// appSpec is an application: a process of its own that knows nothing of lsnode.
type appSpec struct {
	Path        string
	Seed        int64
	Writer      int    // makes the IDs of several applications differ
	Txns        int    // how many transactions; 0: until it is stopped
	Workload    string // "small", "mixed", "vacuum"
	Sync        string // default NORMAL
	Auto        int    // wal_autocheckpoint; 0: SQLite's 1000; -1: off
	Checkpoints int    // run one of all kinds after every so many transactions; 0: none
	PauseMicros int    // after each transaction
}

// appResult is what an application says of itself in the end.
type appResult struct {
	IDs        []int64 // of rows of table log, each committed for sure
	Checkpoint []string
	Slowest    time.Duration // of its checkpoints
	Over       []string      // those of more than 30 ms
	Rate       float64       // transactions a second
}

const appEnv = "CAPTURE_TEST_APP"

func TestMain(m *testing.M) {
	if text := os.Getenv(appEnv); text != "" {
		var s appSpec
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			err = runApp(s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "application:", err)
			os.Exit(1)
		}
		return
	}
	if text := os.Getenv(captureEnv); text != "" {
		if err := runCaptureProcess(text); err != nil {
			fmt.Fprintln(os.Stderr, "capture process:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// startApp starts an application; the function that it returns waits for its
// end.
func startApp(t testing.TB, s appSpec) (wait func() appResult) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), appEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return func() appResult {
		t.Helper()
		in.Close() // tells it to stop
		var r appResult
		if err := json.NewDecoder(bufio.NewReader(out)).Decode(&r); err != nil {
			t.Errorf("result of the application: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("application: %v", err)
		}
		return r
	}
}

// app is one running application.
type app struct {
	s    appSpec
	db   *sql.DB
	rnd  *rand.Rand
	next int64
	r    appResult
}

func runApp(s appSpec) error {
	if s.Sync == "" {
		s.Sync = "NORMAL"
	}
	if s.Auto == 0 {
		s.Auto = 1000
	}
	db, err := sql.Open("sqlite3", "file:"+s.Path+"?_busy_timeout=20000&_txlock=immediate&_synchronous="+s.Sync)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	a := &app{s: s, db: db, rnd: rand.New(rand.NewSource(s.Seed)), next: int64(s.Writer) * 1e9}
	if err := a.exec(fmt.Sprintf("pragma wal_autocheckpoint=%d", max(s.Auto, 0)), "pragma cache_size=20"); err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() { // ends when the test closes our standard input, or with the process
		var b [1]byte
		os.Stdin.Read(b[:])
		close(stop)
	}()
	start, n := time.Now(), 0
	for ; s.Txns == 0 || n < s.Txns; n++ {
		select {
		case <-stop:
			if s.Txns == 0 {
				s.Txns = n
				continue
			}
		default:
		}
		if err := a.step(n); err != nil {
			return err
		}
	}
	a.r.Rate = float64(n) / time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(a.r)
}

func (a *app) exec(statements ...string) error {
	for _, s := range statements {
		if _, err := a.db.Exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (a *app) step(n int) error {
	var err error
	switch a.s.Workload {
	case "mixed":
		err = a.mixed(n)
	default:
		err = a.commit("insert into t(v) values(randomblob(100))")
	}
	if err != nil {
		return err
	}
	if a.s.Checkpoints > 0 && n%a.s.Checkpoints == a.s.Checkpoints-1 {
		kind := []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[n/a.s.Checkpoints%4]
		start := time.Now()
		var busy, frames, copied int
		if err := a.db.QueryRow("pragma wal_checkpoint("+kind+")").Scan(&busy, &frames, &copied); err != nil {
			return err
		}
		took := time.Since(start)
		a.r.Slowest = max(a.r.Slowest, took)
		if took > 30*time.Millisecond {
			a.r.Over = append(a.r.Over, fmt.Sprint(kind, " ", took, " ", frames, " ", copied))
		}
		if busy != 0 && kind != "PASSIVE" {
			a.r.Checkpoint = append(a.r.Checkpoint, fmt.Sprintf("%s busy after %v, %d of %d", kind, took, copied, frames))
		}
	}
	time.Sleep(time.Duration(a.s.PauseMicros) * time.Microsecond)
	return nil
}

// commit runs statements in one transaction together with a row in table log,
// whose ID is remembered once the commit has succeeded.
func (a *app) commit(statements ...string) error {
	tx, err := a.db.Begin()
	if err != nil {
		return err
	}
	a.next++
	for _, s := range append(statements, fmt.Sprintf("insert into log values(%d)", a.next)) {
		if _, err := tx.Exec(s); err != nil {
			tx.Rollback()
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	a.r.IDs = append(a.r.IDs, a.next)
	return nil
}

// mixed does what applications do: it grows, changes and shrinks, rolls back
// what was spilled, changes the schema, vacuums.
func (a *app) mixed(n int) error {
	switch k := a.rnd.Intn(100); {
	case k < 40:
		return a.commit(fmt.Sprintf("insert into t(v) values(randomblob(%d))", a.rnd.Intn(3000)))
	case k < 60:
		return a.commit(fmt.Sprintf("update t set v=randomblob(50) where k%%7=%d", a.rnd.Intn(7)))
	case k < 75:
		return a.commit(fmt.Sprintf("delete from t where k%%5=%d", a.rnd.Intn(5)))
	case k < 85:
		return a.commit(fmt.Sprintf("insert into t(v) values(randomblob(%d))", 100000+a.rnd.Intn(400000)))
	case k < 92:
		return a.rollback()
	case k < 94:
		return a.exec("pragma incremental_vacuum")
	case k < 96:
		return a.exec("vacuum")
	case k < 98:
		return a.commit(fmt.Sprintf("create table if not exists x%d(a)", n), fmt.Sprintf("insert into x%d values(randomblob(9000))", n))
	}
	return a.commit("delete from t")
}

// rollback writes more than the cache holds, so that frames are spilled into the
// WAL, and takes it back.
func (a *app) rollback() error {
	tx, err := a.db.Begin()
	if err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf("insert into t(v) values(randomblob(%d))", 300000+a.rnd.Intn(500000))); err != nil {
		return err
	}
	if _, err := tx.Exec("update t set v=randomblob(20)"); err != nil {
		return err
	}
	return tx.Rollback()
}

// shell runs statements in the sqlite3 shell, another process and another
// version of SQLite, and returns what it prints.
func shell(t testing.TB, path string, script ...string) string {
	t.Helper()
	out, err := exec.Command("sqlite3", path, ".timeout 20000", strings.Join(script, ";\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}
