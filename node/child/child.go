package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config says what is run.
type Config struct {
	Command string        // for /bin/sh -c; required
	Grace   time.Duration // from SIGTERM to SIGKILL; default 5 s
	Group   func(int)     // is told the process group while there is one, 0 afterwards; default nobody
	Logger  *slog.Logger  // default none
}

// Ended says that the application has ended by itself, or how it has when it was
// asked to.
type Ended struct {
	Status int // as a shell gives it: 128 and the signal's number if it was killed by one
}

// Error says so.
func (e *Ended) Error() string {
	return fmt.Sprintf("the application has ended with status %d", e.Status)
}

// Child is an application. Want and Halt may be called at once with Run, which is
// called once.
type Child struct {
	config Config

	mu     sync.Mutex
	wanted bool          // guarded by mu
	up     bool          // it runs, or something of it does; guarded by mu
	change chan struct{} // closed at the next change of these; guarded by mu
}

// New returns an application that is not running.
func New(config Config) *Child {
	if config.Grace == 0 {
		config.Grace = 5 * time.Second
	}
	if config.Group == nil {
		config.Group = func(int) {}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	return &Child{config: config, change: make(chan struct{})}
}

// Want says whether the application is to run. It does not wait.
func (c *Child) Want(wanted bool) { c.set(func() { c.wanted = wanted }) }

// Halt is Want(false) that waits until nothing of the application is left, or
// ctx ends: then it returns ctx's error.
func (c *Child) Halt(ctx context.Context) error {
	c.Want(false)
	for {
		_, up, change := c.get()
		if !up {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("wait for the application's end: %w", context.Cause(ctx))
		}
	}
}

func (c *Child) set(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.change)
	c.change = make(chan struct{})
}

func (c *Child) get() (wanted, up bool, change <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wanted, c.up, c.change
}

// Run starts and stops the application as it is wanted, and passes on the
// signals that this process gets: SIGHUP, SIGUSR1 and SIGUSR2, which then do
// nothing else here. It returns an [*Ended] when the application has ended by
// itself. When ctx ends it stops the application, with the signal that has ended
// this process if that was another than SIGTERM, and returns nil, or an [*Ended]
// if the application took that as a failure.
func (c *Child) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT)
	defer signal.Stop(signals)
	defer c.set(func() { c.up = false })
	var last *Ended
	for {
		wanted, _, change := c.get()
		switch {
		case ctx.Err() != nil:
			if last != nil && last.Status != 0 {
				return last
			}
			return nil
		case wanted:
			end, asked, err := c.live(ctx, signals)
			if err != nil {
				return err
			}
			if last = end; !asked {
				return end
			}
			continue
		}
		select {
		case <-change:
		case <-signals: // nobody is there to get it
		case <-ctx.Done():
		}
	}
}

// live is one life of the application. asked tells that it was to end.
func (c *Child) live(ctx context.Context, signals <-chan os.Signal) (end *Ended, asked bool, err error) {
	p, err := start(c.config.Command)
	if err != nil {
		return nil, false, err
	}
	c.set(func() { c.up = true })
	defer c.set(func() { c.up = false })
	c.config.Group(p.pid)
	defer c.config.Group(0)
	p.release()
	c.config.Logger.Info("application started", "pid", p.pid)
	stop := syscall.SIGTERM
	for !asked {
		wanted, _, change := c.get()
		if asked = !wanted || ctx.Err() != nil; asked {
			break
		}
		select {
		case <-p.ended:
			p.clear(c.config.Grace)
			c.config.Logger.Warn("application has ended by itself: this node ends as well", "status", p.status)
			return &Ended{Status: p.status}, false, nil
		case s := <-signals:
			if s == syscall.SIGINT { // it ends this process, too
				stop = syscall.SIGINT
				continue
			}
			p.signal(s.(syscall.Signal))
		case <-change:
		case <-ctx.Done():
		}
	}
	select {
	case s := <-signals: // came at the same instant as the end
		if s == syscall.SIGINT {
			stop = syscall.SIGINT
		}
	default:
	}
	p.signal(stop)
	p.clear(c.config.Grace)
	end = &Ended{Status: p.status}
	if p.status == 128+int(stop) {
		end.Status = 0 // it did as it was told
	}
	c.config.Logger.Info("application stopped", "status", p.status)
	return end, true, nil
}

// process is one life of the application.
type process struct {
	pid    int           // of the first one, and of the group
	gate   *os.File      // what lets it begin
	ended  chan struct{} // closed when the first one has ended
	status int           // valid then
}

// script is what the first process does: it begins with the command only once
// that is allowed, and not at all if this process dies before. Until then nobody
// but the kernel knows of its group.
const script = `read -r _ <&3 && exec 3<&- && exec /bin/sh -c "$1"`

// start starts it, held at its gate. A thread of its own waits for it: the kernel kills the child
// when the thread that has started it ends, which it then does with this process
// alone.
func start(command string) (*process, error) {
	hold, gate, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start application: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", script, "sh", command)
	cmd.ExtraFiles = []*os.File{hold}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{gate: gate, ended: make(chan struct{})}
	started := make(chan error)
	go func() { // clear waits for ended
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		defer close(p.ended)
		_ = cmd.Wait() // how it has ended is in the state
		p.status = statusOf(cmd.ProcessState)
	}()
	if err := errors.Join(<-started, hold.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("start application: %w", err), gate.Close())
	}
	return p, nil
}

// release lets it begin. An error would mean that it has died: its end tells.
func (p *process) release() {
	_, _ = p.gate.WriteString("\n")
	_ = p.gate.Close()
}

// statusOf returns what a shell calls the status.
func statusOf(state *os.ProcessState) int {
	w, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return 1
	case w.Signaled():
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}

// signal reaches the whole group.
func (p *process) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.pid, s) // it may have ended
}

// alive tells whether the first one runs, or anything else of its group.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return syscall.Kill(-p.pid, 0) == nil && populated(p.pid)
	default:
		return true
	}
}

// populated tells whether a process group has a process that is more than a
// zombie: in a container without an init nobody takes those away.
func populated(group int) bool {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return true
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// After the name in parentheses, which may hold any: state, parent, group.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			return true
		}
	}
	return false
}

// reap bounds how long what was killed may take to be gone.
const reap = time.Second

// clear waits for the end of the whole group, and after a while makes it. Those
// whose first process has ended are asked to end as well.
func (p *process) clear(grace time.Duration) {
	kill := time.NewTimer(grace)
	defer kill.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	ended := p.ended
	var giveUp <-chan time.Time
	for p.alive() {
		select {
		case <-ended:
			ended = nil
			p.signal(syscall.SIGTERM)
		case <-look.C:
		case <-kill.C:
			p.signal(syscall.SIGKILL)
			giveUp = time.After(reap)
		case <-giveUp:
			<-p.ended
			return
		}
	}
}
