package guard

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/lease"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// roleName tells this program to be a node or its guard instead of running tests.
const roleName = "LSNODE_GUARD_TEST"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "be-guard":
		if err := Watch(os.Args[2], slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(roleName) != "":
		if err := beNode(os.Getenv(roleName), os.Args[1], os.Args[2]); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var testTiming = cluster.Timing{Timing: lease.Timing{Renewal: 50 * time.Millisecond, Lease: 600 * time.Millisecond, Margin: 100 * time.Millisecond}}

// beNode is a node that opens a database for writing and is primary until its
// input says otherwise. Words of what tell it how to misbehave.
func beNode(what, dir, path string) error {
	c, err := Open(Config{Command: []string{"/proc/self/exe", "be-guard", dir}, Node: "a", Timing: testTiming, Output: os.Stderr})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	if strings.Contains(what, "locked") {
		db, err := sqlitedb.Open(ctx, path, sqlitedb.Options{})
		if err != nil {
			return err
		}
		if _, err := db.LockWrite(ctx); err != nil {
			return err
		}
	}
	for !c.Status().Alive {
		time.Sleep(time.Millisecond)
	}
	renewing := time.NewTicker(testTiming.Renewal)
	lost := make(chan bool)
	go func() { // ends with the process
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(lost)
	}()
	for first := true; ; first = false {
		deadline := bootTime() + testTiming.Lease - testTiming.Margin
		if strings.Contains(what, "sole") {
			deadline = forever
		}
		c.Lease(3, deadline)
		if first {
			if err := c.Opening(Database{Name: "app", Path: path}); err != nil {
				return err
			}
			fmt.Println("ready", os.Getpid())
		}
		select {
		case <-renewing.C:
			continue
		case <-lost:
		}
		break
	}
	if strings.Contains(what, "orderly") {
		if err := c.Closed("app"); err != nil {
			return err
		}
		stop()
		return <-done
	}
	select {}
}

// scene is a database, a node and its guard, all real processes.
type scene struct {
	t     *testing.T
	dir   string
	path  string
	node  *exec.Cmd
	input io.WriteCloser
	ended chan struct{}
}

func newScene(t *testing.T, what string) *scene {
	t.Helper()
	s := &scene{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	s.path = filepath.Join(s.dir, "app.db")
	s.sql("PRAGMA journal_mode=WAL; CREATE TABLE item(n)")
	if err := os.WriteFile(filepath.Join(s.dir, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.node = exec.Command("/proc/self/exe", s.dir, s.path)
	s.node.Env = append(os.Environ(), roleName+"="+what+" node")
	s.node.Stderr = os.Stderr
	var err error
	if s.input, err = s.node.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.node.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("node says %q, %v", line, err)
	}
	go func() { // end waits for ended
		_ = s.node.Wait()
		close(s.ended)
	}()
	t.Cleanup(s.end)
	return s
}

// end ends everything: a new life of the data dir lets the guard go.
func (s *scene) end() {
	_ = s.node.Process.Kill()
	<-s.ended
	_ = os.WriteFile(filepath.Join(s.dir, "lock"), []byte("another life"), 0o600)
	s.eventually("the guard leaves", func() bool { return len(s.guards()) == 0 })
}

func (s *scene) guards() []string {
	out, _ := exec.Command("pgrep", "-f", "be-guard "+s.dir).Output()
	return strings.Fields(string(out))
}

func (s *scene) signal(sig syscall.Signal) {
	if err := s.node.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) loseLease() { fmt.Fprintln(s.input, "lost") }

func (s *scene) dead() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *scene) eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never: %s", what)
		}
	}
}

// sql runs statements in a process of their own, for which the guard's and the
// node's locks count.
func (s *scene) sql(statements string) string {
	out, _ := exec.Command("sqlite3", "-cmd", ".timeout 20", s.path, statements).CombinedOutput()
	return string(out)
}

func (s *scene) fenced() bool {
	return strings.Contains(s.sql("INSERT INTO item VALUES(1)"), "readonly")
}

func (s *scene) within(limit time.Duration, began time.Time, what string) {
	s.t.Helper()
	if took := time.Since(began); took > limit {
		s.t.Errorf("%s took %v, want at most %v", what, took, limit)
	} else {
		s.t.Logf("%s took %v", what, took)
	}
}

// generous is far more than anything here takes on a machine that is idle.
const generous = 5 * time.Second

func TestNodeDies(t *testing.T) {
	for _, what := range []string{"", "locked"} {
		s := newScene(t, what)
		if what == "" && s.fenced() {
			t.Error("fenced before its time")
		}
		began := time.Now()
		s.signal(syscall.SIGKILL)
		s.eventually("it is fenced", s.fenced)
		s.within(generous, began, "fencing after a death")
	}
}

func TestNodeIsStopped(t *testing.T) {
	s := newScene(t, "")
	began := time.Now()
	s.signal(syscall.SIGSTOP)
	s.eventually("it is fenced", s.fenced)
	s.within(generous, began, "fencing a stopped node's database")
	time.Sleep(2 * testTiming.Lease) // for the guard to do what it must not
	if s.dead() {
		t.Error("a node that is in nobody's way was killed")
	}
}

// A node that hangs while it holds the write lock is killed: one that is stopped
// at once, another when it has had its time.
func TestNodeHangsWithLock(t *testing.T) {
	for name, hang := range map[string]func(*scene){
		"stopped":  func(s *scene) { s.signal(syscall.SIGSTOP) },
		"deadlock": func(s *scene) { s.loseLease() },
	} {
		s := newScene(t, "locked")
		began := time.Now()
		hang(s)
		s.eventually(name+": it is killed", s.dead)
		s.within(generous, began, name+": killing")
		s.eventually(name+": it is fenced", s.fenced)
	}
}

// An application in the middle of a write is waited for, and the node is not
// taken for the one that hangs.
func TestApplicationWrites(t *testing.T) {
	s := newScene(t, "")
	app := exec.Command("sqlite3", s.path)
	in, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "BEGIN IMMEDIATE; INSERT INTO item VALUES(7);")
	s.eventually("it writes", func() bool { return strings.Contains(s.sql("BEGIN IMMEDIATE"), "locked") })
	s.loseLease()
	time.Sleep(3 * testTiming.Lease) // for the guard to do what it must not
	if s.dead() {
		t.Error("the node was killed for what an application does")
	}
	if got := s.sql("INSERT INTO item VALUES(1)"); !strings.Contains(got, "locked") {
		t.Errorf("another writer gets %q", got)
	}
	fmt.Fprintln(in, "COMMIT;")
	s.eventually("it is fenced", s.fenced)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := app.Wait(); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(s.sql("SELECT count(*) FROM item WHERE n=7")); got != "1" {
		t.Errorf("what was begun before is there %s times", got)
	}
}

func TestOnlyVoterIsLeftAlone(t *testing.T) {
	s := newScene(t, "sole")
	s.signal(syscall.SIGSTOP)
	time.Sleep(2 * testTiming.Lease) // for the guard to do what it must not
	if s.fenced() {
		t.Error("stopped: it is fenced")
	}
	s.signal(syscall.SIGKILL)
	s.eventually("the guard leaves", func() bool { return len(s.guards()) == 0 })
	if s.fenced() {
		t.Error("killed: it is fenced")
	}
}

func TestOrderlyEnd(t *testing.T) {
	s := newScene(t, "orderly")
	s.loseLease()
	s.eventually("the node ends", s.dead)
	if got := s.guards(); len(got) != 0 {
		t.Errorf("guards %v stay", got)
	}
	if s.fenced() {
		t.Error("the guard has touched what its node had closed by itself")
	}
}

// The guard keeps what it has fenced open until the node's next life: the last
// one to close a database deletes the WAL otherwise.
func TestWALIsKeptForNextLife(t *testing.T) {
	s := newScene(t, "")
	s.signal(syscall.SIGKILL)
	s.eventually("it is fenced", s.fenced)
	for range 5 {
		s.sql("SELECT count(*) FROM item")
	}
	if st, err := os.Stat(s.path + "-wal"); err != nil || st.Size() == 0 {
		t.Errorf("the WAL is gone: %v", err)
	}
	if len(s.guards()) != 1 {
		t.Error("the guard has left")
	}
}
