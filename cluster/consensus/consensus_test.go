package consensus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/consensus"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

// list is a machine whose state is the commands that it got.
type list struct {
	mu       sync.Mutex
	commands []string // guarded by mu
}

func (l *list) Apply(_ uint64, command []byte) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, string(command))
	return len(l.commands)
}

func (l *list) Snapshot() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return json.Marshal(l.commands)
}

func (l *list) Restore(data []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = nil
	return json.Unmarshal(data, &l.commands)
}

func (l *list) get() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commands)
}

// world is a set of nodes with one token, who find each other's addresses by
// asking it.
type world struct {
	t     *testing.T
	token secure.Token
	dirs  map[string]string

	mu        sync.Mutex
	addresses map[string]string // by node ID; guarded by mu
	asked     map[string]int    // how often for an address; guarded by mu
}

func (w *world) asks(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[id]
}

type node struct {
	*consensus.Consensus
	mux  *mux.Mux
	list *list
	id   string
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, token: secure.NewToken(), dirs: make(map[string]string),
		addresses: make(map[string]string), asked: make(map[string]int),
	}
}

func (w *world) resolve(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[id]++
	return w.addresses[id]
}

// start starts a node, or starts it again with what it had on disk, at another
// address.
func (w *world) start(id string) *node {
	w.t.Helper()
	credentials, err := secure.NewCredentials(w.token, id)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := mux.Listen(w.t.Context(), mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		w.t.Fatal(err)
	}
	if w.dirs[id] == "" {
		w.dirs[id] = w.t.TempDir()
	}
	n := &node{mux: m, list: &list{}, id: id}
	n.Consensus, err = consensus.Open(consensus.Config{
		Dir: w.dirs[id], Mux: m, Resolve: w.resolve, Machine: n.list,
		// Slower than the default: a busy machine must not depose a leader that a
		// test relies on.
		Timing: consensus.Timing{Heartbeat: time.Second},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.addresses[id] = m.Addr().String()
	w.mu.Unlock()
	w.t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	_ = n.Close()
	_ = n.mux.Close()
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

// three returns a cluster of three voters; the first leads.
func (w *world) three() []*node {
	w.t.Helper()
	nodes := []*node{w.start("a"), w.start("b"), w.start("c")}
	if err := nodes[0].Bootstrap(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := nodes[0].Lead(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range nodes[1:] {
		if err := nodes[0].AddNonvoter(w.ctx(), n.id, w.resolve(n.id), 0); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, n := range nodes[1:] {
		if err := nodes[0].AddVoter(w.ctx(), n.id, w.resolve(n.id), 0); err != nil {
			w.t.Fatal(err)
		}
	}
	return nodes
}

// leader waits until one of the nodes leads.
func (w *world) leader(nodes ...*node) *node {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx())
	defer cancel()
	found := make(chan *node, len(nodes))
	for _, n := range nodes {
		go func() {
			if _, err := n.Lead(ctx); err == nil {
				found <- n
			}
		}()
	}
	select {
	case n := <-found:
		return n
	case <-ctx.Done():
		w.t.Fatal("nobody leads")
		return nil
	}
}

// apply proposes through whoever leads, until it is done.
func (w *world) apply(command string, nodes ...*node) {
	w.t.Helper()
	for {
		_, err := w.leader(nodes...).Apply(w.ctx(), []byte(command))
		if err == nil {
			return
		}
		if !errors.Is(err, consensus.ErrNotLeader) {
			w.t.Fatal(err)
		}
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited too long: %s", what)
		}
	}
}

func (w *world) haveAll(want []string, nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		w.eventually(fmt.Sprintf("%s has %v, want %v", n.id, n.list.get(), want), func() bool {
			return slices.Equal(n.list.get(), want)
		})
	}
}

func TestClusterOfOne(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	if a.HasState() || a.IsLeader() {
		t.Error("a new node has a state")
	}
	if _, err := a.Apply(w.ctx(), []byte("early")); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("apply before bootstrap: %v", err)
	}
	if err := a.Bootstrap(w.ctx()); err != nil {
		t.Fatal(err)
	}
	leading, err := a.Lead(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	result, err := a.Apply(w.ctx(), []byte("one"))
	if err != nil || result != 1 {
		t.Errorf("apply: %v, %v", result, err)
	}
	if err := a.Barrier(w.ctx()); err != nil {
		t.Error(err)
	}
	if err := a.VerifyLeader(w.ctx()); err != nil {
		t.Error(err)
	}
	a.stop()
	if leading.Err() == nil {
		t.Error("the leadership outlives Close")
	}
	if _, err := a.Apply(w.ctx(), []byte("late")); !errors.Is(err, consensus.ErrClosed) {
		t.Errorf("apply after close: %v", err)
	}

	a = w.start("a") // another address, too
	if !a.HasState() {
		t.Error("the state is gone")
	}
	if err := a.Bootstrap(w.ctx()); err == nil {
		t.Error("bootstrapped twice")
	}
	w.apply("two", a)
	w.haveAll([]string{"one", "two"}, a)
}

func TestLeaderDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.three()
	w.apply("one", nodes[0])
	w.haveAll([]string{"one"}, nodes...)
	for _, n := range nodes {
		w.eventually("all know the leader", func() bool { return n.Leader() == "a" })
	}
	nodes[0].stop()
	begin := time.Now()
	next := w.leader(nodes[1:]...)
	t.Logf("%s leads after %v", next.id, time.Since(begin))
	w.apply("two", nodes[1:]...)

	// It comes back at another address, and has everything soon.
	nodes[0] = w.start("a")
	w.haveAll([]string{"one", "two"}, nodes...)
	w.eventually("it knows the leader", func() bool { return nodes[0].Leader() != "" })
}

// TestReturnsAtOnce: a node that was away for long gets the log as soon as it is
// back. With the library's own waits it would take up to ten seconds.
func TestReturnsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.three()
	nodes[2].stop()
	for i := range 5 {
		w.apply(fmt.Sprint(i), nodes[0])
	}
	time.Sleep(6 * time.Second) // being away is the point
	back := w.start("c")
	begin := time.Now()
	w.haveAll([]string{"0", "1", "2", "3", "4"}, back)
	if took := time.Since(begin); took > 2500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}

func TestTransfer(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	leading, err := nodes[0].Lead(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	changed := nodes[1].Changed()
	if err := nodes[0].TransferTo(w.ctx(), "b"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the old leadership ends", func() bool { return leading.Err() != nil })
	if got := w.leader(nodes...); got.id != "b" {
		t.Errorf("%s leads", got.id)
	}
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Error("the change was not told")
	}
	if err := nodes[1].TransferTo(w.ctx(), "nobody"); err == nil {
		t.Error("transferred to nobody")
	}
	if err := nodes[2].TransferTo(w.ctx(), "a"); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("transfer by a follower: %v", err)
	}
}

// TestTransferToTheDead: an error within bounded time, and changes go on.
func TestTransferToTheDead(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	w.eventually("c follows", func() bool { return nodes[2].Leader() == "a" })
	_ = nodes[2].mux.Close()
	for i := range 3 { // which it lacks, while it was heard of just now
		if _, err := nodes[0].Apply(w.ctx(), []byte("on we go")); err != nil {
			t.Errorf("apply %d: %v", i, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i := range 3 {
		begin := time.Now()
		if err := nodes[0].TransferTo(w.ctx(), "c"); err == nil {
			t.Error("transferred to a dead node")
		} else {
			t.Logf("after %v: %v", time.Since(begin), err)
		}
		if _, err := nodes[0].Apply(w.ctx(), []byte("on we go")); err != nil {
			t.Errorf("apply after transfer %d: %v", i, err)
		}
	}
	w.eventually("the dead is known as dead", func() bool {
		return errors.Is(nodes[0].TransferTo(w.ctx(), "c"), consensus.ErrTarget)
	})
	if err := nodes[0].TransferTo(w.ctx(), ""); err != nil {
		t.Errorf("transfer to whoever answers: %v", err)
	}
	if got := w.leader(nodes[:2]...); got.id != "b" {
		t.Errorf("%s leads", got.id)
	}
}

func TestMembership(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	want := []consensus.Member{{"a", w.resolve("a"), true}, {"b", w.resolve("b"), true}, {"c", w.resolve("c"), true}}
	if got := nodes[0].Configuration(); !slices.Equal(got, want) {
		t.Errorf("configuration is %v", got)
	}
	since, err := nodes[0].Settled(w.ctx())
	if err != nil || since == 0 {
		t.Fatalf("settled at %d: %v", since, err)
	}
	if err := nodes[0].Demote(w.ctx(), "c", since); err != nil {
		t.Error(err)
	}
	// What was found out before somebody else's change counts no more.
	if err := nodes[0].AddVoter(w.ctx(), "c", w.resolve("c"), since); err == nil || nodes[0].Configuration()[2].Voter {
		t.Errorf("a change that rests on an older configuration: %v", err)
	}
	if got := nodes[0].Configuration()[2]; got.Voter {
		t.Errorf("c is %v", got)
	}
	nodes[2].stop()
	if err := nodes[0].Remove(w.ctx(), "c", 0); err != nil {
		t.Error(err)
	}
	if got := nodes[0].Configuration(); len(got) != 2 {
		t.Errorf("configuration is %v", got)
	}
	w.eventually("nobody calls a dead node that was removed", func() bool {
		before := w.asks("c")
		time.Sleep(time.Second) // five heartbeats to a node that does not answer
		return w.asks("c") == before
	})
	if err := nodes[1].Remove(w.ctx(), "a", 0); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("change by a follower: %v", err)
	}
	// The leader takes itself out.
	if err := nodes[0].Remove(w.ctx(), "a", 0); err != nil {
		t.Error(err)
	}
	w.apply("alone", nodes[1])
}

// TestMinority: a leader whose voters are gone stops leading by itself, and says
// that it does not know what became of a change.
func TestMinority(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	leading, err := nodes[0].Lead(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	nodes[1].stop()
	nodes[2].stop()
	_, err = nodes[0].Apply(w.ctx(), []byte("lost?"))
	if !errors.Is(err, consensus.ErrUnknown) && !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("apply: %v", err)
	}
	w.eventually("the leadership ends", func() bool { return leading.Err() != nil })
}

// TestSnapshots: a node that joins when the log is long gets the state.
func TestSnapshots(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	if err := a.Bootstrap(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.apply("first", a)
	a.stop()
	a = w.start("a")
	w.apply("second", a)
	b := w.start("b")
	if err := a.AddNonvoter(w.ctx(), "b", w.resolve("b"), 0); err != nil {
		t.Fatal(err)
	}
	w.haveAll([]string{"first", "second"}, a, b)
}

// TestStrangersDisturbNothing: three nodes go on while others knock.
func TestStrangersDisturbNothing(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	leading, err := nodes[0].Lead(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	stranger := other.start("a") // with another token
	for i := range 10 {
		address := w.resolve(nodes[i%3].id)
		if conn, err := stranger.mux.Dial(w.ctx(), address, consensus.Protocol); err == nil {
			t.Error("a stranger was let in")
			_ = conn.Close()
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "\x16\x03\x01garbage that looks a bit like TLS")
		defer conn.Close()
		if udp, err := net.Dial("udp", address); err == nil {
			_, _ = io.WriteString(udp, "garbage")
			_ = udp.Close()
		}
		w.apply(fmt.Sprint(i), nodes[0])
	}
	if leading.Err() != nil {
		t.Error("the leader was disturbed")
	}
}

// TestWrongNodeAtTheAddress: a node that was wiped and came back as a new one is
// not taken for the old one.
func TestWrongNodeAtTheAddress(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	nodes[2].stop()
	impostor := w.start("d")
	w.mu.Lock()
	w.addresses["c"] = w.addresses["d"]
	w.mu.Unlock()
	for i := range 5 {
		w.apply(fmt.Sprint(i), nodes[0])
	}
	if got := impostor.list.get(); len(got) != 0 || impostor.Leader() != "" {
		t.Errorf("the new node got %v, meant for the old one", got)
	}
}
