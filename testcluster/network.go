package testcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace by name; the zero value is the one that
// this process is in.
type Namespace struct {
	name string
}

// command returns the command line that runs argv in the namespace.
func (s Namespace) command(argv []string) []string {
	if s.name == "" {
		return argv
	}
	return append([]string{"ip", "netns", "exec", s.name}, argv...)
}

// dial connects to an IP address from inside the namespace. The connection
// stays usable everywhere.
func (s Namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	var d net.Dialer
	if s.name == "" {
		return d.DialContext(ctx, network, address)
	}
	err = s.inside(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// inside runs f on a thread that is in the namespace. What f starts elsewhere
// is not.
func (s Namespace) inside(f func() error) error {
	done := make(chan error)
	go func() { // waited for below
		runtime.LockOSThread()
		home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			done <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		defer home.Close()
		there, err := os.Open("/var/run/netns/" + s.name)
		if err == nil {
			err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
			there.Close()
		}
		if err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", s.name, err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// Network is a small network of its own: a namespace for each host, and one
// with a bridge that joins them. Nothing of it is visible outside. Root only.
//
//	host 1            hub              host 2
//	eth0 10.77.0.1 ── p1 ┐ br0 ┌ p2 ── eth0 10.77.0.2
type Network struct {
	prefix string
	hosts  int
	spaces []string // namespaces that were made, so that they can be removed
}

// NetworkMissing says why a Network can't be made here; empty if it can.
func NetworkMissing() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "network namespaces need " + tool + " (packages iproute2 and nftables)"
		}
	}
	name := "lsn" + randomHex(3) + "probe"
	if err := tool("ip", "netns", "add", name); err != nil {
		return err.Error()
	}
	if err := tool("ip", "netns", "del", name); err != nil {
		return err.Error()
	}
	return ""
}

// NewNetwork makes a network of so many hosts, numbered from 1.
func NewNetwork(hosts int) (*Network, error) {
	n := &Network{prefix: "lsn" + randomHex(3), hosts: hosts}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) build() error {
	hub, err := n.add("hub")
	if err != nil {
		return err
	}
	steps := [][]string{
		{"ip", "-n", hub, "link", "add", "br0", "type", "bridge"},
		{"ip", "-n", hub, "link", "set", "br0", "up"},
	}
	for i := 1; i <= n.hosts; i++ {
		host, err := n.add(fmt.Sprint(i))
		if err != nil {
			return err
		}
		port := fmt.Sprintf("p%d", i)
		steps = append(steps, [][]string{
			{"ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host},
			{"ip", "-n", hub, "link", "set", port, "master", "br0", "up"},
			{"ip", "-n", host, "addr", "add", n.Address(i) + "/24", "dev", "eth0"},
			{"ip", "-n", host, "link", "set", "lo", "up"},
			{"ip", "-n", host, "link", "set", "eth0", "up"},
			{"ip", "netns", "exec", host, "nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; }"},
		}...)
	}
	for _, argv := range steps {
		if err := tool(argv...); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) add(suffix string) (string, error) {
	name := n.prefix + "-" + suffix
	if err := tool("ip", "netns", "add", name); err != nil {
		return "", err
	}
	n.spaces = append(n.spaces, name)
	return name, nil
}

// Space returns the namespace of a host.
func (n *Network) Space(host int) Namespace {
	return Namespace{fmt.Sprintf("%s-%d", n.prefix, host)}
}

// Address returns the IP address of a host.
func (n *Network) Address(host int) string { return fmt.Sprintf("10.77.0.%d", host) }

// Drop throws away every packet that one host sends to another, from now on.
func (n *Network) Drop(from, to int) error {
	return tool("ip", "netns", "exec", n.Space(to).name, "nft", "add rule inet cut in ip saddr "+n.Address(from)+" drop")
}

// Cut separates one host from all others, in both directions. To its processes
// the others simply fall silent.
func (n *Network) Cut(host int) error {
	var errs []error
	for other := 1; other <= n.hosts; other++ {
		if other != host {
			errs = append(errs, n.Drop(host, other), n.Drop(other, host))
		}
	}
	return errors.Join(errs...)
}

// Unplug takes a host's link down, which its kernel notices; Plug takes it up.
func (n *Network) Unplug(host int) error {
	return tool("ip", "-n", n.prefix+"-hub", "link", "set", fmt.Sprintf("p%d", host), "down")
}

// Plug takes a host's link up.
func (n *Network) Plug(host int) error {
	return tool("ip", "-n", n.prefix+"-hub", "link", "set", fmt.Sprintf("p%d", host), "up")
}

// Heal ends what Drop and Cut began.
func (n *Network) Heal() error {
	var errs []error
	for host := 1; host <= n.hosts; host++ {
		errs = append(errs, tool("ip", "netns", "exec", n.Space(host).name, "nft", "flush chain inet cut in"))
	}
	return errors.Join(errs...)
}

// Close removes the network. Processes in it go on without one.
func (n *Network) Close() error {
	var errs []error
	for _, name := range n.spaces {
		errs = append(errs, tool("ip", "netns", "del", name))
	}
	n.spaces = nil
	return errors.Join(errs...)
}

func tool(argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // it never fails
	return hex.EncodeToString(b)
}
