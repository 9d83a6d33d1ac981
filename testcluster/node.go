package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// NodeConfig says how one lsnode is run.
type NodeConfig struct {
	Name      string
	Binary    string    // the lsnode program
	DataDir   string    // made if missing
	Listen    string    // HOST:PORT for the other nodes
	HTTP      string    // HOST:PORT for status
	Databases []string  // each [NAME=]PATH; none: copies go below the data dir
	Peers     []string  // nodes to join; none: run
	TokenFile string    // the cluster's token; none: the data dir's own
	Nonvoter  bool      // false
	Args      []string  // more flags
	Env       []string  // more environment
	LogFile   string    // where its output goes, appended
	Space     Namespace // where it runs; the zero value: here
}

// Node is one lsnode: a process that comes and goes, and a data dir that stays.
// Its methods may be called at once, but only one of those that start and end
// the process at a time.
type Node struct {
	NodeConfig

	mu      sync.Mutex
	process *process // nil while it is not running; guarded by mu
}

// process is one life of a node.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
	err    error         // how it ended; valid once exited is closed
}

// NewNode returns a node that is not running yet.
func NewNode(c NodeConfig) *Node { return &Node{NodeConfig: c} }

func (n *Node) args() []string {
	args := []string{"run"}
	if len(n.Peers) > 0 {
		args = []string{"join"}
		for _, p := range n.Peers {
			args = append(args, "--peers", p)
		}
	}
	args = append(args, "--name", n.Name, "--data-dir", n.DataDir, "--listen", n.Listen, "--advertise", n.Listen, "--http", n.HTTP)
	for _, db := range n.Databases {
		args = append(args, "--db", db)
	}
	if n.TokenFile != "" {
		args = append(args, "--token-file", n.TokenFile)
	}
	if n.Nonvoter {
		args = append(args, "--nonvoter")
	}
	return append(args, n.Args...)
}

// Start starts the process. It does not wait until it serves anything.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		select {
		case <-n.process.exited:
		default:
			return fmt.Errorf("start node %s: it is running", n.Name)
		}
	}
	if err := os.MkdirAll(filepath.Dir(n.LogFile), 0o755); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	log, err := os.OpenFile(n.LogFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	defer log.Close() // the process has its own descriptor
	argv := n.Space.command(append([]string{n.Binary}, n.args()...))
	fmt.Fprintf(log, "=== %s start %s: %q\n", time.Now().Format(time.RFC3339Nano), n.Name, argv)
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), n.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	n.process = p
	go func() { // whoever ends the process waits for exited
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return nil
}

func (n *Node) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Running tells whether the process is there, stopped or not.
func (n *Node) Running() bool {
	p := n.current()
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal reaches the whole process group, so what lsnode has started too.
func (n *Node) signal(s syscall.Signal) error {
	if !n.Running() {
		return fmt.Errorf("signal node %s: it is not running", n.Name)
	}
	if err := syscall.Kill(-n.current().cmd.Process.Pid, s); err != nil {
		return fmt.Errorf("signal node %s: %w", n.Name, err)
	}
	return nil
}

// Kill ends the process at once (SIGKILL) and returns when it is gone. It does
// nothing if it is not running.
func (n *Node) Kill() {
	p := n.current()
	if p == nil {
		return
	}
	if err := n.signal(syscall.SIGKILL); err != nil && n.Running() {
		p.cmd.Process.Kill() //nolint:errcheck // it may just have ended
	}
	<-p.exited
}

// Crash ends the process and all that it has started, in sessions of their own
// too, as when the host loses power. It returns when the process is gone.
func (n *Node) Crash() {
	p := n.current()
	if p == nil || !n.Running() {
		return
	}
	// Halted first, so that it starts nothing anew meanwhile.
	if err := n.Stop(); err == nil {
		for _, pid := range descendants(p.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may just have ended
		}
	}
	n.Kill()
}

// descendants lists the processes that a process has started, and they in turn.
func descendants(pid int) (all []int) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread is gone
		}
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// Stop halts the process (SIGSTOP): it is alive to the kernel and dead to
// everybody else. It returns when every thread stands still.
func (n *Node) Stop() error {
	if err := n.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pid := n.current().cmd.Process.Pid
	for end := time.Now().Add(10 * time.Second); !halted(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("stop node %s: it goes on running", n.Name)
		}
	}
	return nil
}

// halted tells whether all threads of a process are stopped, or gone.
func halted(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread is gone
		}
		// The state comes after the name, which is in parentheses.
		_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
		if rest == "" || !strings.ContainsRune("TtZX", rune(rest[0])) {
			return false
		}
	}
	return true
}

// Cont lets a stopped process go on.
func (n *Node) Cont() error { return n.signal(syscall.SIGCONT) }

// ErrKilled is wrapped when a process had to be killed.
var ErrKilled = errors.New("did not end in time and was killed")

// Terminate asks the process to end (SIGTERM) and waits for it; after timeout
// it is killed, which is an error, as is any exit status but 0.
func (n *Node) Terminate(timeout time.Duration) error {
	p := n.current()
	if p == nil || !n.Running() {
		return nil
	}
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("terminate node %s: %w", n.Name, p.err)
		}
		return nil
	case <-time.After(timeout):
		n.Kill()
		return fmt.Errorf("terminate node %s: %w", n.Name, ErrKilled)
	}
}

// WaitExit waits until the process has ended by itself and returns how.
func (n *Node) WaitExit(ctx context.Context) error {
	p := n.current()
	if p == nil {
		return nil
	}
	select {
	case <-p.exited:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for node %s to end: %w", n.Name, ctx.Err())
	}
}

// Status asks the node for its status. It works also while the node is cut off
// from the others.
func (n *Node) Status(ctx context.Context) (Status, error) {
	return getStatus(ctx, n.Space.dial, n.HTTP)
}

// Dial connects to an address as a process beside the node would.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.Space.dial(ctx, network, address)
}

// statusPoll is how often a waiting test asks; lsnode has no event for it yet.
const statusPoll = 10 * time.Millisecond

// WaitFor asks for the status until cond holds for it, or the context ends, or
// the process does. The error says what was waited for and what there was.
func (n *Node) WaitFor(ctx context.Context, what string, cond func(Status) bool) (Status, error) {
	var last Status // that was got
	for {
		s, err := n.Status(ctx)
		if err == nil {
			if last = s; cond(s) {
				return s, nil
			}
		}
		if !n.Running() {
			return last, fmt.Errorf("wait for %s on node %s: it has ended: %w", what, n.Name, errors.Join(n.WaitExit(ctx), err))
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("wait for %s on node %s: %w; last: %+v, %v", what, n.Name, ctx.Err(), last, err)
		case <-time.After(statusPoll):
		}
	}
}

// DB returns the path of a database on this node: the one it was given, else
// the copy's default place.
func (n *Node) DB(name string) string {
	for _, db := range n.Databases {
		if path, ok := cutName(db, name); ok {
			return path
		}
	}
	return filepath.Join(n.DataDir, "db", name+".db")
}

// Run runs the program with a client command such as "status" or "switchover"
// against this node and returns what it printed to stdout.
func (n *Node) Run(ctx context.Context, command string, args ...string) (string, error) {
	return n.Exec(ctx, append([]string{command, "--data-dir", n.DataDir}, args...)...)
}

// Exec runs the program with any arguments where the node is and returns what
// it printed to stdout. The error holds what it printed to stderr.
func (n *Node) Exec(ctx context.Context, args ...string) (string, error) {
	argv := n.Space.command(append([]string{n.Binary}, args...))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return string(out), fmt.Errorf("run lsnode %s on node %s: %w", args[0], n.Name, err)
	}
	return string(out), nil
}

// LogTail returns the last bytes of the node's log.
func (n *Node) LogTail(size int64) string {
	f, err := os.Open(n.LogFile)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	buf := make([]byte, min(size, info.Size()))
	got, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	return string(buf[:got])
}
