package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster"
	"github.com/lsnode/lsnode/cluster/secure"
)

// generous is how long a test waits for something that takes a second or two on
// an idle machine.
const generous = 60 * time.Second

// node is one member of a test's cluster, with a life after each start.
type node struct {
	w      *world
	name   string
	dir    string
	disk   *disk
	change func(*cluster.Config) // further settings

	id     string
	c      *cluster.Cluster
	data   *memData
	cancel context.CancelFunc
	done   chan error
}

// world is a test's nodes.
type world struct {
	t       *testing.T
	dir     string // removed after the cleanup below
	referee *referee
	token   secure.Token
	nodes   []*node
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), referee: newReferee(t), token: secure.NewToken()}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.kill()
		}
		w.referee.wg.Wait()
	})
	return w
}

func (w *world) add(name string, change func(*cluster.Config)) *node {
	n := &node{w: w, name: name, dir: filepath.Join(w.dir, fmt.Sprint(len(w.nodes), "-", name)), disk: newDisk(), change: change}
	w.nodes = append(w.nodes, n)
	return n
}

// start opens the node and, if it is new, bootstraps or joins.
func (n *node) start(peers ...string) {
	n.w.t.Helper()
	if err := n.tryStart(peers...); err != nil {
		n.w.t.Fatalf("start %s: %v", n.name, err)
	}
}

func (n *node) tryStart(peers ...string) error {
	level := slog.LevelInfo
	if os.Getenv("LSNODE_DEBUG") != "" {
		level = slog.LevelDebug
	}
	config := cluster.Config{
		DataDir: n.dir, Name: n.name, Listen: "127.0.0.1:0", Token: n.w.token,
		Logger: slog.New(slog.NewTextHandler(testWriter{n.w.t}, &slog.HandlerOptions{Level: level})).With("node", n.name),
	}
	if n.change != nil {
		n.change(&config)
	}
	ctx, cancel := context.WithTimeout(n.w.t.Context(), generous)
	defer cancel()
	c, err := cluster.Open(ctx, config)
	if err != nil {
		return err
	}
	if c.Fresh() {
		if len(peers) == 0 {
			err = c.Bootstrap(ctx)
		} else {
			err = c.Join(ctx, peers)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
	}
	n.id, n.c, n.data = c.Self(), c, newMemData(c, n.disk, n.w.referee)
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	n.cancel, n.done = stop, done
	go func() { done <- c.Run(running, n.data) }()
	return nil
}

// kill ends the node without a goodbye: first its network, then the rest. Its
// application goes on writing until the lease is over.
func (n *node) kill() {
	if n.c == nil {
		return
	}
	n.data.mu.Lock()
	n.data.zombie = true
	n.data.mu.Unlock()
	err := n.c.Close()
	n.cancel()
	err = errors.Join(err, <-n.done)
	if err != nil && !errors.Is(err, cluster.ErrRemoved) {
		n.w.t.Logf("kill %s: %v", n.name, err)
	}
	n.c = nil
}

// awaitRemoved waits until the node ends because it is no member any more.
func (n *node) awaitRemoved() {
	n.w.t.Helper()
	select {
	case err := <-n.done:
		if !errors.Is(err, cluster.ErrRemoved) {
			n.w.t.Errorf("%s ended with %v", n.name, err)
		}
		n.done <- nil // for kill
	case <-time.After(generous):
		n.w.t.Fatalf("%s has not noticed that it was removed", n.name)
	}
}

// testWriter sends log lines to the test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(time.Now().Format("05.000") + " " + string(b[:len(b)-1]))
	return len(b), nil
}

// eventually waits for a condition.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(generous)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s", generous, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// primary waits for a primary that acknowledges writes, and returns it.
func (w *world) primary() *node {
	w.t.Helper()
	var found *node
	w.eventually("a primary that takes writes", func() bool {
		for _, n := range w.nodes {
			if n.c != nil && n.c.Role() == cluster.RolePrimary {
				found = n
				return true
			}
		}
		return false
	})
	before := w.referee.ackedCount("app")
	w.eventually("writes at "+found.name, func() bool { return w.referee.ackedCount("app") > before+3 })
	return found
}

// checkAcked looks for everything acknowledged in a node's log.
func (w *world) checkAcked(n *node) {
	w.t.Helper()
	w.referee.mu.Lock()
	defer w.referee.mu.Unlock()
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	for db, acked := range w.referee.acked {
		for _, p := range acked {
			if !slices.Contains(n.disk.logs[db], p) {
				w.t.Errorf("%s: acknowledged %s of %s is not in its log", n.name, p, db)
				return
			}
		}
	}
}

// three starts a cluster of three voters with one database.
func three(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	first := w.add("n1", nil)
	first.start()
	if err := first.c.AddDatabase(t.Context(), "app", 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n2", "n3"} {
		w.add(name, nil).start(first.c.Address())
	}
	w.voters(3)
	return w
}

func (w *world) voters(n int) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d voters", n), func() bool {
		for _, node := range w.nodes {
			if node.c != nil && len(node.c.Voters()) != n {
				return false
			}
		}
		return true
	})
}

func (w *world) others(n *node) []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(o *node) bool { return o == n || o.c == nil })
}

// TestFailOver: the primary dies again and again, each time someone takes over,
// with all that was acknowledged, and the dead one comes back at another address.
func TestFailOver(t *testing.T) {
	w := three(t)
	for round := range 4 {
		old := w.primary()
		began := time.Now()
		old.kill()
		next := w.primary()
		t.Logf("round %d: %s after %s within %v", round, next.name, old.name, time.Since(began))
		w.checkAcked(next)
		old.start()
		w.eventually(old.name+" follows or leads", func() bool {
			return old.c.Role() == cluster.RoleFollower || old.c.Role() == cluster.RolePrimary
		})
	}
}

// TestAllRestart: every node dies; nobody is primary before the last lease is
// over, and nothing is lost.
func TestAllRestart(t *testing.T) {
	w := three(t)
	w.primary()
	for _, n := range w.nodes {
		address := n.c.Address()
		n.change = func(c *cluster.Config) { c.Listen = address }
		n.kill()
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.checkAcked(w.primary())
}

// TestUnfencedReignEnds: a primary that ends without being fenced is waited for.
func TestUnfencedReignEnds(t *testing.T) {
	w := three(t)
	old := w.primary()
	old.data.mu.Lock()
	old.data.zombie = true
	old.data.mu.Unlock()
	epoch := old.c.State().Primary.Epoch
	close(old.data.quit)
	w.eventually("another reign", func() bool { return old.c.State().Primary.Epoch > epoch })
	old.data.mu.Lock()
	old.data.zombie, old.data.quit = false, make(chan struct{})
	old.data.mu.Unlock()
	w.checkAcked(w.primary())
}

// TestLeaseLost: a primary whose renewals are not answered stops by itself,
// although Raft still has it for its leader, and another one takes over.
func TestLeaseLost(t *testing.T) {
	w := three(t)
	old := w.primary()
	for _, n := range w.others(old) {
		n.c.RPC().Handle("cluster.renew", func(ctx context.Context, _ string, _ []byte) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}
	w.eventually(old.name+" is not primary any more", func() bool { return old.c.Role() != cluster.RolePrimary })
	// Two of the three promise nothing: only who gets its own promise and the old
	// one's can hold a lease.
	next := w.primary()
	if next == old {
		t.Errorf("%s holds a lease without any promise but its own", old.name)
	}
	w.checkAcked(next)
}

// TestBrokenNodeHandsOver: a node that can't bring its databases up is not stuck
// in being candidate.
func TestBrokenNodeHandsOver(t *testing.T) {
	w := three(t)
	old := w.primary()
	broken := w.others(old)[0]
	broken.data.mu.Lock()
	broken.data.advance = errors.New("disk full")
	broken.data.mu.Unlock()
	err := old.c.Switchover(deadline(t), broken.name)
	t.Logf("switch over: %v", err)
	if next := w.primary(); next == broken {
		t.Errorf("%s is primary", broken.name)
	}
	old.kill()
	next := w.primary()
	if next == broken {
		t.Errorf("%s is primary", broken.name)
	}
	w.checkAcked(next)
}

func TestAbstainingNodeIsNotPrimary(t *testing.T) {
	w := three(t)
	old := w.primary()
	shy := w.others(old)[0]
	shy.data.mu.Lock()
	shy.data.noPromote = true
	shy.data.mu.Unlock()
	old.kill()
	next := w.primary()
	if next == shy {
		t.Errorf("%s is primary", shy.name)
	}
	w.eventually(old.name+" is seen to be dead", func() bool { return !next.c.Alive(old.id) })
	w.checkAcked(next)
}
