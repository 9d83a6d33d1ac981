package gossip_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsnode/lsnode/cluster/gossip"
	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/secure"
)

type world struct {
	t     *testing.T
	token secure.Token
	probe time.Duration // default 200 ms

	mu    sync.Mutex
	known []string // addresses that all nodes call; guarded by mu
}

type node struct {
	*gossip.Gossip
	mux *mux.Mux
	id  string
}

func (w *world) start(id, cluster string) *node {
	w.t.Helper()
	credentials, err := secure.NewCredentials(w.token, id)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := mux.Listen(w.t.Context(), mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		w.t.Fatal(err)
	}
	address := m.Addr().String()
	g, err := gossip.Open(w.t.Context(), gossip.Config{
		Mux: m, Key: w.token.GossipKey(), Cluster: cluster, Advertise: address,
		Name: "name-" + id, HTTP: "http-" + id, Version: "v0", Known: w.get,
		Probe: cmp.Or(w.probe, 200*time.Millisecond), Rejoin: 100 * time.Millisecond,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(mux.At(id, address))
	n := &node{Gossip: g, mux: m, id: id}
	w.t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	_ = n.Close()
	_ = n.mux.Close()
}

func (w *world) add(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = append(w.known, address)
}

func (w *world) get() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.known...)
}

// until waits until what n knows satisfies ok, woken by changes alone.
func (n *node) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		changed := n.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s waits too long: %s; it knows %+v", n.id, what, n.Members())
		}
	}
}

func TestConvergesAndSeesADeath(t *testing.T) {
	t.Parallel()
	w := &world{t: t, token: secure.NewToken()}
	nodes := []*node{w.start("a", "c1"), w.start("b", "c1"), w.start("c", "c1")}
	for _, n := range nodes {
		n.until(t, "all alive", func() bool { return n.Alive("a") && n.Alive("b") && n.Alive("c") })
	}
	got, _ := nodes[0].Member("b")
	want := gossip.Member{
		ID: "b", Name: "name-b", Address: nodes[1].mux.Addr().String(), HTTP: "http-b", Version: "v0", Alive: true,
	}
	if got != want {
		t.Errorf("a knows b as %+v, want %+v", got, want)
	}

	nodes[1].Announce("primary", 7)
	nodes[0].until(t, "the news", func() bool {
		m, _ := nodes[0].Member("b")
		return m.Role == "primary" && m.Epoch == 7
	})

	begin := time.Now()
	nodes[2].stop()
	nodes[0].until(t, "the death", func() bool { return !nodes[0].Alive("c") })
	t.Logf("a death was noticed after %v", time.Since(begin))
	if m, ok := nodes[0].Member("c"); !ok || m.Name != "name-c" {
		t.Errorf("the dead is forgotten: %+v", m)
	}

	// It comes back, at another address.
	again := w.start("c", "c1")
	nodes[0].until(t, "the return", func() bool {
		m, _ := nodes[0].Member("c")
		return m.Alive && m.Address == again.mux.Addr().String()
	})
	again.until(t, "everything", func() bool { return again.Alive("a") && again.Alive("b") })
}

// TestQuickRestart: a node that is back before its death was noticed is known at
// its new address at once, and the end of its former self does not make it look
// dead.
func TestQuickRestart(t *testing.T) {
	t.Parallel()
	w := &world{t: t, token: secure.NewToken(), probe: time.Second} // a death takes some four seconds
	a, b := w.start("a", ""), w.start("b", "")
	a.until(t, "b", func() bool { return a.Alive("b") })
	b.stop()
	begin := time.Now()
	b = w.start("b", "")
	a.until(t, "b at its new address", func() bool {
		m, _ := a.Member("b")
		if !m.Alive {
			t.Fatal("b is called dead")
		}
		return m.Address == b.mux.Addr().String()
	})
	if took := time.Since(begin); took > 2500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); { // its former self dies meanwhile
		if m, _ := a.Member("b"); !m.Alive || m.Address != b.mux.Addr().String() {
			t.Fatalf("b is %+v", m)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	w := &world{t: t, token: secure.NewToken()}
	a, b := w.start("a", ""), w.start("b", "")
	a.until(t, "b", func() bool { return a.Alive("b") })
	b.until(t, "a", func() bool { return b.Alive("a") })
	begin := time.Now()
	if err := b.Leave(10 * time.Second); err != nil {
		t.Error(err)
	}
	a.until(t, "the goodbye", func() bool { return !a.Alive("b") })
	t.Logf("a goodbye was heard after %v", time.Since(begin))
	if err := b.Leave(time.Second); err != nil {
		t.Errorf("second goodbye: %v", err)
	}
}

// TestOthersAreIgnored: another cluster with the same token, another token, and
// noise.
func TestOthersAreIgnored(t *testing.T) {
	t.Parallel()
	w := &world{t: t, token: secure.NewToken()}
	a, b := w.start("a", "c1"), w.start("b", "c1")
	strangers := &world{t: t, token: secure.NewToken(), known: w.get()}
	strangers.start("s", "c1")
	w.start("o", "c2")

	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	conn, err := net.Dial("udp", a.mux.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2000 {
		noise := make([]byte, random.IntN(1500))
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		if len(noise) > 0 && random.IntN(2) == 0 {
			noise[0] = byte(random.IntN(15)) // a message type, or an encryption version
		}
		if _, err := io.Copy(conn, bytes.NewReader(noise)); err != nil {
			t.Fatal(err)
		}
	}
	a.until(t, "b", func() bool { return a.Alive("b") })
	b.until(t, "a", func() bool { return b.Alive("a") })
	a.Announce("primary", 1)
	b.until(t, "news in spite of the noise", func() bool {
		m, _ := b.Member("a")
		return m.Role == "primary"
	})
	for _, n := range []*node{a, b} {
		if n.Alive("o") || n.Alive("s") {
			t.Errorf("%s knows %+v", n.id, n.Members())
		}
	}
}

func TestTooMuchToSay(t *testing.T) {
	t.Parallel()
	token := secure.NewToken()
	credentials, err := secure.NewCredentials(token, "a")
	if err != nil {
		t.Fatal(err)
	}
	m, err := mux.Listen(t.Context(), mux.Config{Listen: "127.0.0.1:0", Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for n, wantErr := range map[int]bool{64: false, 600: true} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g, err := gossip.Open(t.Context(), gossip.Config{
				Mux: m, Key: token.GossipKey(), Advertise: m.Addr().String(), Name: strings.Repeat("x", n),
			})
			if (err != nil) != wantErr {
				t.Errorf("open: %v", err)
			}
			if err == nil {
				_ = g.Close()
			}
		})
	}
}
