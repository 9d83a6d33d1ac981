package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/cluster/mux"
	"github.com/lsnode/lsnode/cluster/rpc"
	"github.com/lsnode/lsnode/cluster/secure"
)

// host is a network namespace with one address.
type host struct {
	t    *testing.T
	name string
	ip   string
}

func run(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// twoHosts returns two hosts with a cable between them.
func twoHosts(t *testing.T) (a, b host) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Skip("network namespaces need root and iproute2")
	}
	a = host{t, fmt.Sprintf("lsrpc%d-a", os.Getpid()), "10.231.0.1"}
	b = host{t, fmt.Sprintf("lsrpc%d-b", os.Getpid()), "10.231.0.2"}
	for _, h := range []host{a, b} {
		run(t, "ip netns add "+h.name)
		t.Cleanup(func() { run(t, "ip netns del "+h.name) })
	}
	run(t, "ip -n "+a.name+" link add eth0 type veth peer name eth0 netns "+b.name)
	for _, h := range []host{a, b} {
		h.connect()
		run(t, "ip -n "+h.name+" link set eth0 up")
	}
	return a, b
}

// connect gives the host its address.
func (h host) connect() { run(h.t, "ip -n "+h.name+" addr add "+h.ip+"/24 dev eth0") }

// cut takes the host's address away. Nobody is told: what is sent to it is lost,
// and what it sends is too.
func (h host) cut() { run(h.t, "ip -n "+h.name+" addr del "+h.ip+"/24 dev eth0") }

// do runs f, which opens sockets, on the host.
func (h host) do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	there, err := os.Open("/var/run/netns/" + h.name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	return errors.Join(f(), unix.Setns(int(here.Fd()), unix.CLONE_NEWNET))
}

func (h host) listen(token secure.Token, id string) *mux.Mux {
	h.t.Helper()
	credentials, err := secure.NewCredentials(token, id)
	if err != nil {
		h.t.Fatal(err)
	}
	var m *mux.Mux
	err = h.do(func() (err error) {
		m, err = mux.Listen(context.Background(), mux.Config{Listen: h.ip + ":0", Credentials: credentials})
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = m.Close() })
	return m
}

// TestCutNetworkHeals: calls end when their time is up while the network is cut,
// and work again soon after it heals, however long that took. Left to TCP alone
// the next try would come later and later.
func TestCutNetworkHeals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	a, b := twoHosts(t)
	token := secure.NewToken()
	caller, callee := a.listen(token, "a"), b.listen(token, "b")
	server := rpc.NewServer(slog.New(slog.DiscardHandler))
	server.Handle("greet", handleGreet)
	server.ServeMux(t.Context(), callee)
	muxed := rpc.MuxDialer(caller)
	client := rpc.NewClient(func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = a.do(func() (err error) {
			conn, err = muxed(ctx, address)
			return err
		})
		return conn, err
	})
	defer client.Close()
	call := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return client.Call(ctx, mux.At("b", callee.Addr().String()), "greet", greeting{"hello"}, nil)
	}

	for begin := time.Now(); call(time.Second) != nil; { // the cable is new
		if time.Since(begin) > 60*time.Second {
			t.Fatal("it does not begin to work")
		}
	}
	b.cut()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); { // after 6.4 s TCP would wait until 12.8 s
		begin := time.Now()
		if err := call(300 * time.Millisecond); err == nil {
			t.Fatal("called through a cut network")
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Fatalf("a call of 300 ms took %v", took)
		}
	}
	b.connect()
	begin := time.Now()
	for call(300*time.Millisecond) != nil {
		if time.Since(begin) > 60*time.Second {
			t.Fatal("it does not heal")
		}
	}
	took := time.Since(begin)
	t.Logf("healed after %v", took)
	if took > 2500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
