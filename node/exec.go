package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/lsnode/lsnode/node/api"
	"github.com/lsnode/lsnode/node/child"
)

const (
	// execGrace is how long an application may take to end once it was asked to.
	execGrace = 5 * time.Second
	// openLook is how often it is looked whether all databases are open, before an
	// application is started that wants to write.
	openLook = 10 * time.Millisecond
)

// openApp prepares the application that lives under this node, if there is one.
func (n *Node) openApp() {
	if n.cfg.Exec != "" {
		n.app = child.New(child.Config{Command: n.cfg.Exec, Grace: execGrace, Group: n.guard.Group, Logger: n.log})
	}
}

// runApp runs the application until the returned function is called, which stops
// it, waits for its end, and says how it was. leave is called when the
// application has ended by itself: then this node is to end as well.
func (n *Node) runApp(leave func()) (end func() error) {
	if n.app == nil {
		return func() error { return nil }
	}
	ctx, stop := context.WithCancel(context.Background())
	n.app.Want(n.cfg.ExecOn == ExecAlways)
	done := make(chan error, 1)
	go func() { // end waits for it
		err := n.app.Run(ctx)
		leave()
		done <- err
	}()
	return sync.OnceValue(func() error {
		stop()
		err := <-done
		if ended, ok := err.(*child.Ended); ok && ended.Status == 0 {
			return nil
		}
		return err
	})
}

// reignApp runs the application that lives with the primary's role, from when
// the databases are open until ctx ends. Then it is asked to end, which is not
// waited for: the fence must not be late, and waits for its transaction anyway.
func (n *Node) reignApp(ctx context.Context) {
	if n.app == nil || n.cfg.ExecOn != ExecPrimary {
		return
	}
	defer n.app.Want(false)
	tick := time.NewTicker(openLook)
	defer tick.Stop()
	for !n.writable() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	if ctx.Err() == nil {
		n.app.Want(true)
	}
	<-ctx.Done()
}

// writable tells whether every database that can be is open for writing.
func (n *Node) writable() bool {
	now := time.Now()
	return !slices.ContainsFunc(n.names(), func(name string) bool {
		d := n.known(name)
		if d == nil {
			return true
		}
		switch d.progress.status(name, d.path, now).State {
		case api.StatePrimary, api.StateRefused:
			return false
		}
		return true
	})
}

// haltApp stops the application that lives with the primary's role and waits for
// its end, so that a handover finds no writers; resumeApp starts it again if
// nothing came of that.
func (n *Node) haltApp(ctx context.Context) {
	if n.app == nil || n.cfg.ExecOn != ExecPrimary {
		return
	}
	if err := n.app.Halt(ctx); err != nil {
		n.log.Warn("hand over while the application runs still", "error", err)
	}
}

func (n *Node) resumeApp() {
	if n.app == nil || n.cfg.ExecOn != ExecPrimary {
		return
	}
	reigns := func() bool {
		r := n.reign.Load()
		return r != nil && r.ctx.Err() == nil
	}
	if reigns() {
		n.app.Want(true)
	}
	if !reigns() { // it has ended meanwhile, and said so already
		n.app.Want(false)
	}
}
