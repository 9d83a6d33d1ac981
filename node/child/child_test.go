package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// bench runs a command and keeps what it writes to $notes.
type bench struct {
	t     *testing.T
	path  string
	c     *Child
	group atomic.Int64 // as the guard would know it
	stop  context.CancelFunc
	ended chan error
}

func newBench(t *testing.T, grace time.Duration, command string) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "notes"), ended: make(chan error, 1)}
	b.c = New(Config{Command: "notes=" + b.path + "\n" + command, Grace: grace, Group: func(pgid int) { b.group.Store(int64(pgid)) }})
	ctx, stop := context.WithCancel(t.Context())
	b.stop = stop
	go func() { b.ended <- b.c.Run(ctx) }()
	t.Cleanup(stop)
	return b
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("never: %s; notes: %q", what, b.notes())
		}
	}
}

func (b *bench) notes() string {
	text, _ := os.ReadFile(b.path)
	return string(text)
}

func (b *bench) says(line string) {
	b.t.Helper()
	b.eventually("it says "+line, func() bool { return strings.Contains("\n"+b.notes(), "\n"+line+"\n") })
}

// end returns how Run has ended.
func (b *bench) end() error {
	b.t.Helper()
	select {
	case err := <-b.ended:
		return err
	case <-time.After(30 * time.Second):
		b.t.Fatal("Run does not end")
	}
	return nil
}

func (b *bench) halt() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	if err := b.c.Halt(ctx); err != nil {
		b.t.Fatal(err)
	}
}

const loop = "echo up >> $notes; while :; do sleep 0.01; done"

func TestRunsWhileWanted(t *testing.T) {
	b := newBench(t, 0, "trap 'echo down >> $notes; exit 0' TERM; "+loop)
	time.Sleep(20 * time.Millisecond) // nothing tells that something does not happen
	if got := b.notes(); got != "" {
		t.Errorf("unwanted it runs: %q", got)
	}
	for i := range 2 {
		b.c.Want(true)
		b.eventually("it runs again", func() bool { return strings.Count(b.notes(), "up") == i+1 })
		if b.group.Load() == 0 {
			t.Error("nobody knows its group")
		}
		b.halt()
		if got := strings.Count(b.notes(), "down"); got != i+1 || b.group.Load() != 0 {
			t.Errorf("halted: down %d times, group %d", got, b.group.Load())
		}
	}
	b.stop()
	if err := b.end(); err != nil {
		t.Error(err)
	}
}

func TestEndsByItself(t *testing.T) {
	for command, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -KILL $$": 137} {
		b := newBench(t, 0, command)
		b.c.Want(true)
		var ended *Ended
		if err := b.end(); !errors.As(err, &ended) || ended.Status != want {
			t.Errorf("%s: %v, want status %d", command, err, want)
		}
	}
}

func TestEndsWhenAsked(t *testing.T) {
	for trap, want := range map[string]int{"trap 'exit 0' TERM;": 0, "trap 'exit 4' TERM;": 4, "": 0} {
		b := newBench(t, 0, trap+loop)
		b.c.Want(true)
		b.says("up")
		b.stop()
		err := b.end()
		var ended *Ended
		if errors.As(err, &ended); (want == 0) != (err == nil) || want != 0 && ended.Status != want {
			t.Errorf("%q: %v, want status %d", trap, err, want)
		}
	}
}

// Who does not end is killed after a while, with all it has started.
func TestIsKilledAfterGrace(t *testing.T) {
	b := newBench(t, 50*time.Millisecond, "trap '' TERM; sleep 1000 & echo $! >> $notes; "+loop)
	b.c.Want(true)
	b.says("up")
	group := int(b.group.Load())
	b.halt()
	if populated(group) {
		t.Error("something of the group is there still")
	}
	b.stop()
	var ended *Ended
	if err := b.end(); !errors.As(err, &ended) || ended.Status != 137 {
		t.Errorf("%v, want status 137", err)
	}
}

// What the first process leaves behind ends too before the application is gone.
func TestLeavesNothingBehind(t *testing.T) {
	b := newBench(t, 0, "sh -c 'trap \"sleep 0.1; echo late >> $1; exit 0\" TERM; echo up >> $1; while :; do sleep 0.01; done' sh $notes & while ! test -s $notes; do sleep 0.01; done; exit 5")
	b.c.Want(true)
	var ended *Ended
	if err := b.end(); !errors.As(err, &ended) || ended.Status != 5 {
		t.Errorf("%v, want status 5", err)
	}
	if got := b.notes(); got != "up\nlate\n" {
		t.Errorf("notes are %q", got)
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	b := newBench(t, 0, "trap 'echo usr1 >> $notes' USR1; trap 'echo hup >> $notes' HUP; "+loop)
	b.c.Want(true)
	b.says("up")
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP} {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	b.says("usr1")
	b.says("hup")
}

// The command begins only once its group is known to whoever ends it.
func TestBeginsOnceItsGroupIsKnown(t *testing.T) {
	p, err := start("echo begun >> " + filepath.Join(t.TempDir(), "notes"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.gate.Close(); err != nil { // as the kernel does when this process dies
		t.Fatal(err)
	}
	<-p.ended
	if p.status == 0 {
		t.Error(fmt.Sprint("it began without leave, status ", p.status))
	}
}
