package testcluster_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
)

// notes is a file in which applications under test write what happens to them.
type notes struct {
	w    *world
	path string
}

func (w *world) notes() notes { return notes{w, filepath.Join(w.Dir, "notes")} }

func (n notes) read() string {
	text, err := os.ReadFile(n.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.w.t.Fatal(err)
	}
	return string(text)
}

// await waits until a line is there.
func (n notes) await(line string) {
	n.w.t.Helper()
	for !strings.Contains("\n"+n.read(), "\n"+line+"\n") {
		if n.w.ctx.Err() != nil {
			n.w.t.Fatalf("wait for %q; there is:\n%s", line, n.read())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exitStatus returns with which status a node has ended.
func (w *world) exitStatus(n *testcluster.Node) int {
	w.t.Helper()
	err := n.WaitExit(w.ctx)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	w.t.Fatal(err)
	return -1
}

// An application under lsnode gets its signals, and gives it its exit status.
func TestExecStatusAndSignals(t *testing.T) {
	w := newWorld(t, 2*time.Minute, testcluster.Options{Size: 1})
	n, told := w.Nodes[0], w.notes()
	for _, tt := range []struct {
		name, onTerm string
		end          func()
		want         int
	}{
		{"ends by itself", "exit 0", func() { w.must(n.Signal(syscall.SIGUSR2)) }, 7},
		{"ends well when asked", "exit 0", func() { w.must(n.Signal(syscall.SIGTERM)) }, 0},
		{"fails when asked", "exit 9", func() { w.must(n.Signal(syscall.SIGTERM)) }, 9},
		{"dies of the signal", "trap - TERM; kill -TERM $$", func() { w.must(n.Signal(syscall.SIGTERM)) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.must(os.RemoveAll(told.path))
			n.Args = []string{"--exec", fmt.Sprintf(
				`trap 'echo usr1 >> %[1]s' USR1; trap 'exit 7' USR2; trap '%[2]s' TERM; echo ready >> %[1]s; while :; do sleep 0.02; done`,
				told.path, tt.onTerm)}
			w.must(n.Start())
			told.await("ready")
			_, err := n.WaitFor(w.ctx, "a primary", testcluster.IsPrimary)
			w.must(err)
			w.must(n.Signal(syscall.SIGUSR1))
			told.await("usr1")
			tt.end()
			if got := w.exitStatus(n); got != tt.want {
				t.Errorf("exit status %d, want %d: %s", got, tt.want, n.LogTail(4<<10))
			}
			if got := n.Guards(); len(got) != 0 {
				t.Errorf("guards %v stay", got)
			}
		})
	}
}

// running tells whether a process is there and not a zombie.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// Nothing of the application outlives an lsnode that is killed.
func TestExecDiesWithNode(t *testing.T) {
	w := newWorld(t, time.Minute, testcluster.Options{Size: 1})
	n, told := w.Nodes[0], w.notes()
	n.Args = []string{"--exec", fmt.Sprintf(`trap '' TERM; sleep 1000 & echo $! >> %[1]s; echo $$ >> %[1]s; echo ready >> %[1]s; wait`, told.path)}
	w.must(n.Start())
	told.await("ready")
	w.guarded(n)
	n.Kill()
	for _, field := range strings.Fields(told.read())[:2] {
		pid, err := strconv.Atoi(field)
		w.must(err)
		for running(pid) {
			if w.ctx.Err() != nil {
				t.Fatalf("process %d outlives lsnode", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// With the role's life the application runs where it may write, and only there.
func TestExecOnPrimary(t *testing.T) {
	w := newWorld(t, 3*time.Minute, testcluster.Options{})
	told := w.notes()
	for _, n := range w.Nodes {
		n.Args = []string{"--exec-on", "primary", "--exec", fmt.Sprintf(
			`trap 'echo stop %[2]s >> %[1]s; exit 0' TERM; echo start %[2]s >> %[1]s; `+
				`sqlite3 %[3]s ".timeout 2000" "INSERT INTO item(n) VALUES(1)" && echo wrote %[2]s >> %[1]s; while :; do sleep 0.02; done`,
			told.path, n.Name, n.DB(testcluster.DatabaseName))}
	}
	w.must(w.Start(w.ctx))
	old := w.primary()
	told.await("wrote " + old.Name)
	_, err := old.Run(w.ctx, "switchover")
	w.must(err)
	second := w.primary(old)
	told.await("wrote " + second.Name)
	if got := told.read(); strings.Index(got, "stop "+old.Name) > strings.Index(got, "start "+second.Name) || !strings.Contains(got, "stop "+old.Name) {
		t.Errorf("the old one was not stopped before the new one was started:\n%s", got)
	}
	w.must(w.WaitSettled(w.ctx))
	w.must(os.Truncate(told.path, 0))
	w.must(second.Stop()) // its application goes on, until it is found out
	third := w.primary(second)
	told.await("wrote " + third.Name)
	refuses(t, second)
	w.must(second.Cont())
	told.await("stop " + second.Name)
	w.must(w.WaitSettled(w.ctx))
	w.must(os.Truncate(told.path, 0))
	w.must(third.Terminate(30 * time.Second))
	fourth := w.primary(third)
	told.await("wrote " + fourth.Name)
	t.Logf("on %s, %s, %s, %s", old.Name, second.Name, third.Name, fourth.Name)
}
