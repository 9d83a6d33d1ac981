package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster"
)

const (
	// firstRestart and lastRestart bound the pause before a guard that has died
	// is replaced.
	firstRestart = 50 * time.Millisecond
	lastRestart  = 5 * time.Second
	// deaf is for how long a guard may show no life before it is replaced.
	deaf = 3 * time.Second
	// goodbye bounds how long an orderly end waits for the guard's.
	goodbye = 2 * time.Second
)

// Config says how a node is guarded.
type Config struct {
	Command []string       // the program and arguments that call [Watch]; required
	Node    string         // the node's ID
	Timing  cluster.Timing // the node's
	Output  io.Writer      // of the guard's standard error; default none
	Logger  *slog.Logger   // default none
}

// Status says whether a node is guarded.
type Status struct {
	PID      int    // of the guard; 0 while there is none
	Alive    bool   // it has shown life lately
	Restarts int    // guards that have died
	Err      string // why there is none
}

// Client is a node's end: it says what its guard has to know, and keeps one
// alive. Its methods are safe for concurrent use; a nil *Client does nothing,
// and has fenced nothing.
type Client struct {
	config Config
	page   *page
	self   *os.File // a pidfd of this process

	mu     sync.Mutex
	slot   slot   // guarded by mu
	tables tables // guarded by mu
	table  table  // as written last; guarded by mu
	status Status // guarded by mu
}

// Open prepares what node and guard share. No guard is there until Run.
func Open(config Config) (_ *Client, err error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("open guard: make a descriptor of this process: %w", err)
	}
	c := &Client{config: config, self: os.NewFile(uintptr(fd), "pidfd")}
	if c.page, err = newPage(); err != nil {
		return nil, errors.Join(fmt.Errorf("open guard: %w", err), c.self.Close())
	}
	c.table = table{Node: config.Node, Margin: config.Timing.Margin, Lease: config.Timing.Lease}
	return c, nil
}

// Lease says until when the node may write in an epoch: [cluster.Config.Lease].
func (c *Client) Lease(epoch uint64, deadline time.Duration) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slot.epoch, c.slot.deadline = epoch, deadline
	c.page.put(c.slot)
}

// Opening says that a database may be open to writers from now on. It comes
// before its fence is lifted; on return the guard knows.
func (c *Client) Opening(db Database) error {
	return c.change(func(t *table) { t.Databases = t.with(db) })
}

// Closed says that a database is fenced, durable.
func (c *Client) Closed(name string) error {
	return c.change(func(t *table) { t.Databases = t.without(name) })
}

// Databases returns those that the guard would close.
func (c *Client) Databases() []Database {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.table.Databases)
}

// Voters says whom to tell.
func (c *Client) Voters(voters []cluster.Peer) error {
	return c.change(func(t *table) { t.Voters = voters })
}

func (c *Client) change(do func(*table)) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.table
	do(&next)
	if slices.Equal(next.Databases, c.table.Databases) && slices.Equal(next.Voters, c.table.Voters) && c.slot.length > 0 {
		return nil
	}
	if err := c.tables.write(c.page, &c.slot, next); err != nil {
		return err
	}
	c.table = next
	c.page.put(c.slot)
	return nil
}

// Group says which process group ends with the node, however the node ends; 0
// for none.
func (c *Client) Group(pgid int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slot.group = pgid
	c.page.put(c.slot)
}

// Fenced tells whether a guard has begun to fence in an epoch or above: no fence
// is lifted in that epoch any more, nothing is shipped.
func (c *Client) Fenced(epoch uint64) bool { return c != nil && c.page.fenced() >= epoch }

// Status returns how the guard does.
func (c *Client) Status() Status {
	if c == nil {
		return Status{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Alive = s.PID != 0 && bootTime()-c.page.beat() < deaf
	return s
}

// Run keeps a guard alive until ctx ends, and then lets it go. If databases are
// open to writers still, and others might open theirs, the guard stays to close
// them once this process is gone. It returns nil.
func (c *Client) Run(ctx context.Context) error {
	if c == nil {
		<-ctx.Done()
		return nil
	}
	box := newCgroup()
	defer box.remove()
	pause := firstRestart
	for ctx.Err() == nil {
		began := time.Now()
		err := c.live(ctx, box)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > lastRestart {
			pause = firstRestart
		}
		c.config.Logger.Warn("the guard is gone; another one is started: until then, should this node die, the others wait until its lease ends",
			"error", err, "retry_in", pause)
		c.setStatus(func(s *Status) { s.PID, s.Err = 0, err.Error(); s.Restarts++ })
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastRestart)
	}
	return nil
}

func (c *Client) setStatus(do func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(&c.status)
}

// live is the life of one guard. The error says how it ended.
func (c *Client) live(ctx context.Context, box *cgroup) error {
	cmd, alarm, err := c.start(box)
	if err != nil {
		return err
	}
	c.setStatus(func(s *Status) { s.PID, s.Err = cmd.Process.Pid, "" })
	started := bootTime()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(deaf)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("it has ended by itself")
			}
			return errors.Join(err, alarm.Close())
		case <-tick.C:
			if silent := bootTime() - max(c.page.beat(), started); silent > deaf {
				c.config.Logger.Warn("the guard shows no life and is replaced", "pid", cmd.Process.Pid, "silent", silent)
				_ = cmd.Process.Kill() // it may have ended
			}
		case <-ctx.Done():
			c.leave(cmd, alarm, ended)
			return nil
		}
	}
}

// start starts a guard.
func (c *Client) start(box *cgroup) (*exec.Cmd, *os.File, error) {
	wake, alarm, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start guard: %w", err)
	}
	cmd := exec.Command(c.config.Command[0], c.config.Command[1:]...)
	cmd.Env = []string{}                    // it needs nothing of it, and may not depend on it
	cmd.Args[0] = filepath.Base(os.Args[0]) // for lists of processes
	cmd.Stderr = c.config.Output
	cmd.ExtraFiles = []*os.File{c.page.file, c.self, wake} // fdPage, fdNode, fdAlarm
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.page.setBeat(0) // that was another's
	if err := errors.Join(cmd.Start(), wake.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start guard: %w", err), alarm.Close())
	}
	if err := box.add(cmd.Process.Pid); err != nil {
		c.config.Logger.Debug("the guard has no cgroup of its own: what kills this node's cgroup kills both", "reason", err)
	}
	return cmd, alarm, nil
}

// leave ends the guard, or leaves it to its work.
func (c *Client) leave(cmd *exec.Cmd, alarm *os.File, ended <-chan error) {
	c.mu.Lock()
	open := len(c.table.Databases) > 0 && c.slot.deadline != forever
	if !open {
		c.slot.leaving = true
		c.page.put(c.slot)
	}
	c.mu.Unlock()
	_ = alarm.Close() // it looks now
	if open {
		c.config.Logger.Warn("not all databases are closed to writers: the guard stays until they are", "pid", cmd.Process.Pid)
		return // it is waited for by whoever inherits it
	}
	select {
	case <-ended:
	case <-time.After(goodbye):
		_ = cmd.Process.Kill()
		<-ended
	}
	c.setStatus(func(s *Status) { s.PID = 0 })
}

// Close gives up what was shared; Run has returned.
func (c *Client) Close() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.page.close(), c.self.Close())
}
