package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/secure"
)

// The descriptors that a node hands to its guard.
const (
	fdPage  = 3 // the page
	fdNode  = 4 // a pidfd of the node
	fdAlarm = 5 // a pipe whose other end is closed when the node wants the guard to look
)

// ErrNotStarted is wrapped by [Watch] in a process that no node has started as
// its guard.
var ErrNotStarted = errors.New("a guard is started by its node, not by hand")

// lingerTime bounds how long a guard waits for its node's next life.
const lingerTime = time.Minute

// tellTime bounds how long the voters are told.
const tellTime = 2 * time.Second

// guard is the guard process.
type guard struct {
	page    *page
	node    process
	alarm   int // descriptor
	dataDir string
	dealt   view           // with what act was called last
	telling sync.WaitGroup // reports under way
	linger  []*work        // whose databases are open still
	life    string         // of the data dir's lock when the guard began: another one is another life of the node
	log     *slog.Logger
}

// Watch is the whole of a guard's life: it returns when its node has ended, by
// itself or not, and nothing is left to be done. It reads the descriptors that
// [Client] hands over.
func Watch(dataDir string, log *slog.Logger) error {
	g, err := inherit(dataDir, log)
	if err != nil {
		return fmt.Errorf("guard node of %s: %w", dataDir, err)
	}
	g.log.Debug("guard watches", "node_pid", g.node.pid)
	return g.watch()
}

// inherit takes what the node has handed over.
func inherit(dataDir string, log *slog.Logger) (*guard, error) {
	for fd := fdPage; fd <= fdAlarm; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, ErrNotStarted
		}
		unix.CloseOnExec(fd)
	}
	p, err := openPage(os.NewFile(fdPage, "page"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	pid, err := pidOf(fdNode)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	g := &guard{page: p, node: process{pid: pid, pidfd: fdNode}, alarm: fdAlarm, dataDir: dataDir, log: log}
	g.life = g.lifeNow()
	return g, nil
}

// pidOf returns the process of a pidfd; -1 if it is gone.
func pidOf(fd int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	var pid int
	for _, line := range splitLines(text) {
		if n, _ := fmt.Sscanf(line, "Pid: %d", &pid); n == 1 {
			return pid, nil
		}
	}
	return 0, errors.New("not a process's descriptor")
}

// watch looks at the page until nothing is left to do.
func (g *guard) watch() error {
	var warned string
	for {
		dead := g.node.dead()
		v, err := g.page.read()
		if err != nil && err.Error() != warned {
			warned = err.Error()
			g.log.Error("guard can't read what its node says", "error", err)
		}
		now := bootTime()
		g.page.setBeat(now)
		if dead && v.group != 0 {
			// What lives with the node does not outlive it.
			_ = unix.Kill(-v.group, unix.SIGKILL)
		}
		v.table.Databases = g.left(v)
		d := decide(now, dead, v)
		switch d.step {
		case stepLeave:
			g.telling.Wait()
			g.lingerOn()
			return nil
		case stepFence:
			g.act(v)
			g.dealt = v
		default:
			g.sleep(d.wait)
		}
	}
}

// left returns the databases that were not dealt with in this epoch. One that
// was can't be opened again in it.
func (g *guard) left(v view) []Database {
	if v.epoch != g.dealt.epoch {
		return v.table.Databases
	}
	return slices.DeleteFunc(slices.Clone(v.table.Databases), func(db Database) bool { return g.dealt.table.has(db.Name) })
}

// lingerOn keeps the databases that were fenced open for a while: an application
// that closes one as its last user deletes the WAL, and with it the proof of how
// many commits were never shipped. The next life of the node wants to see it.
func (g *guard) lingerOn() {
	for end := bootTime() + lingerTime; len(g.linger) > 0 && bootTime() < end && g.lifeNow() == g.life; {
		time.Sleep(lookEvery)
	}
	for _, w := range g.linger {
		w.close()
	}
}

// sleep waits until the node dies, wants something, or the time is over.
func (g *guard) sleep(wait time.Duration) {
	fds := []unix.PollFd{{Fd: int32(g.node.pidfd), Events: unix.POLLIN}, {Fd: int32(g.alarm), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(wait))
	_, _ = unix.Ppoll(fds, &ts, nil) // whatever it was, the page is looked at
	if fds[1].Revents != 0 {
		g.alarm = -1 // it was raised for good; Ppoll passes over it
	}
}

// act fences what is open and, if it was the guard that has, tells the voters.
func (g *guard) act(v view) {
	began := time.Now()
	dead := g.node.dead()
	// From here on the node lifts no fence in this epoch, whatever it believes of
	// its lease: what is said of this epoch below stays true.
	g.page.setFenced(v.epoch)
	w := newWork(g, v)
	defer func() {
		if !g.node.dead() {
			w.close()
			return
		}
		g.linger = append(g.linger, w)
	}()
	switch w.run() {
	case fencedAll:
		g.log.Warn("guard has closed the databases to writers", "reason", reason(dead), "epoch", v.epoch,
			"databases", len(v.table.Databases), "took", time.Since(began).Round(time.Microsecond))
		// Those who can't be reached must not keep the guard from its next work.
		g.telling.Go(func() { g.report(v, began) })
	case fencedByNode:
		g.log.Info("node has closed its databases by itself", "epoch", v.epoch)
	case unable:
		g.log.Error("guard can't close all databases to writers: the voters wait until their promises end", "epoch", v.epoch)
	case superseded:
		g.log.Info("the node runs again and closes its databases by itself", "epoch", v.epoch)
	}
}

func reason(dead bool) string {
	if dead {
		return "the node has died"
	}
	return "the lease has run out and the node has not done it"
}

// report tells the voters, and the log of it.
func (g *guard) report(v view, began time.Time) {
	heard, err := g.tell(v)
	g.log.Info("guard has told the voters", "epoch", v.epoch, "heard", heard, "of", len(v.table.Voters), "after", time.Since(began).Round(time.Microsecond))
	if err != nil {
		g.log.Warn("some voters don't know it and wait until their promises end", "error", err)
	}
}

// tell speaks for the node.
func (g *guard) tell(v view) (heard int, err error) {
	token, err := secure.LoadToken(filepath.Join(g.dataDir, secure.TokenFile))
	if err != nil {
		return 0, err
	}
	s, err := cluster.NewSpokesman(token, v.table.Node)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), tellTime)
	defer cancel()
	return s.TellFenced(ctx, v.epoch, v.table.Voters)
}

// lifeNow tells one life of the data dir's node from another: whoever takes the
// lock writes the file anew.
func (g *guard) lifeNow() string {
	st, err := os.Stat(filepath.Join(g.dataDir, "lock"))
	if err != nil {
		return ""
	}
	return st.ModTime().String()
}
