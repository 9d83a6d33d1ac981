package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// EnvName is the environment variable that tells a test binary to be an
// application instead of running tests.
const EnvName = "LSNODE_TESTCLUSTER_APP"

// Report is what an application says of itself: one JSON object a line, now and
// then, and once at its end.
type Report struct {
	App     string `json:"app"`
	Done    bool   `json:"done,omitempty"`    // the last one of this process
	Count   int64  `json:"count"`             // commits, reads, probes or checkpoints that succeeded
	Seq     int64  `json:"seq,omitempty"`     // highest sequence number written, or sum of those seen
	First   int64  `json:"first,omitempty"`   // [Clock] of the first success after the last refusal
	Last    int64  `json:"last,omitempty"`    // [Clock] of the last success
	Refused int64  `json:"refused,omitempty"` // attempts answered with "readonly"
	Busy    int64  `json:"busy,omitempty"`    // attempts answered with "busy" or "locked"
	Slowest int64  `json:"slowest,omitempty"` // of the attempts that succeeded, in nanoseconds
	Slow    int64  `json:"slow,omitempty"`    // attempts over the limit that was set
	Error   string `json:"error,omitempty"`   // what did not hold
	// Values are what the applications for measuring measured, in nanoseconds
	// unless said otherwise there.
	Values []int64 `json:"values,omitempty"`
}

// Launcher says how to start applications: by which program, arguments before
// the application's own, and environment beside this process's own.
type Launcher struct {
	Path string
	Args []string
	Env  []string
}

// Self returns a Launcher for a program that calls [Main] when [EnvName] is set.
func Self() (Launcher, error) {
	path, err := os.Executable()
	if err != nil {
		return Launcher{}, fmt.Errorf("find this program: %w", err)
	}
	return Launcher{Path: path, Env: []string{EnvName + "=1"}}, nil
}

// Child is a running application. Its methods may be called at once.
type Child struct {
	cmd    *exec.Cmd
	stderr *tail
	begun  chan struct{} // closed when it has said something, or is gone
	exited chan struct{} // closed when the process is gone and all it said was read

	mu   sync.Mutex
	last Report // guarded by mu
	err  error  // how it ended; guarded by mu until exited is closed
}

// Start starts the application name with its flags and returns when it has
// begun. It dies with this process.
func (l Launcher) Start(name string, args ...string) (*Child, error) {
	argv := append(append(append([]string{}, l.Args...), name), args...)
	c := &Child{cmd: exec.Command(l.Path, argv...), stderr: &tail{}, begun: make(chan struct{}), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), l.Env...)
	c.cmd.Stderr = c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start application %s: %w", name, err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start application %s: %w", name, err)
	}
	c.last.App = name
	go c.follow(out) // closes exited, on which Wait and Kill wait
	<-c.begun
	return c, nil
}

func (c *Child) follow(out io.Reader) {
	defer close(c.exited)
	var once sync.Once
	begun := func() { once.Do(func() { close(c.begun) }) }
	defer begun()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r Report
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		c.mu.Lock()
		c.last = r
		c.mu.Unlock()
		begun()
	}
	err := c.cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.last.Error != "":
		c.err = fmt.Errorf("application %s: %s", c.last.App, c.last.Error)
	case err != nil:
		c.err = fmt.Errorf("application %s: %w: %s", c.last.App, err, c.stderr.String())
	case !c.last.Done:
		c.err = fmt.Errorf("application %s ended without its last report: %s", c.last.App, c.stderr.String())
	}
}

// Last returns the newest report.
func (c *Child) Last() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Exited is closed when the process is gone.
func (c *Child) Exited() <-chan struct{} { return c.exited }

// Wait waits until the application has ended by itself. The error says what it
// found broken, or how it died.
func (c *Child) Wait() (Report, error) {
	<-c.exited
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.err
}

// Finish asks the application to end and waits for its last report; after
// twenty seconds it is killed, which is an error.
func (c *Child) Finish() (Report, error) {
	// Not to its group: its helpers end when it closes their input.
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return Report{}, fmt.Errorf("end application: %w", err)
	}
	select {
	case <-c.exited:
		return c.Wait()
	case <-time.After(20 * time.Second):
		c.Kill()
		r, _ := c.Wait()
		return r, fmt.Errorf("application %s did not end within 20 s of being asked", r.App)
	}
}

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (c *Child) Kill() {
	c.signal(syscall.SIGKILL)
	<-c.exited
}

// Pause stops the process (SIGSTOP); Resume lets it go on.
func (c *Child) Pause() { c.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (c *Child) Resume() { c.signal(syscall.SIGCONT) }

// signal reaches what the application itself has started as well.
func (c *Child) signal(s syscall.Signal) {
	select {
	case <-c.exited:
	default:
		if err := syscall.Kill(-c.cmd.Process.Pid, s); errors.Is(err, syscall.ESRCH) {
			c.cmd.Process.Signal(s)
		}
	}
}

// tail keeps the last few kilobytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailBytes = 8 << 10

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > tailBytes {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailBytes:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
