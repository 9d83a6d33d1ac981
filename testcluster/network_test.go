package testcluster

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The network must do what the tests of partitions rely on, and leave nothing.
func TestNetwork(t *testing.T) {
	if why := NetworkMissing(); why != "" {
		t.Skip(why)
	}
	n, err := NewNetwork(3)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	serve(t, n, 1)
	serve(t, n, 2)

	if err := reach(n, 2, 1); err != nil {
		t.Error(err)
	}
	if err := reach(n, 1, 2); err != nil {
		t.Error(err)
	}
	// One direction is enough to stop TCP, whichever it is.
	for _, cut := range []func() error{
		func() error { return n.Drop(1, 2) },
		func() error { return n.Drop(2, 1) },
		func() error { return n.Cut(1) },
	} {
		if err := cut(); err != nil {
			t.Fatal(err)
		}
		if err := reach(n, 2, 1); err == nil {
			t.Error("reached host 1 over a cut network")
		}
		if err := reach(n, 1, 1); err != nil {
			t.Errorf("reach itself: %v", err)
		}
		if err := n.Heal(); err != nil {
			t.Fatal(err)
		}
		if err := reach(n, 2, 1); err != nil {
			t.Errorf("after healing: %v", err)
		}
	}
	if err := n.Unplug(1); err != nil {
		t.Fatal(err)
	}
	if err := reach(n, 2, 1); err == nil {
		t.Error("reached host 1 without its link")
	}
	if err := n.Plug(1); err != nil {
		t.Fatal(err)
	}
	if err := reach(n, 2, 1); err != nil {
		t.Errorf("after plugging in: %v", err)
	}
	if err := answered(net.DialTimeout("tcp", n.Address(1)+":7000", 200*time.Millisecond))(n.Address(1)); err == nil {
		t.Error("the network is visible from outside")
	}

	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := exec.Command("ip", "netns").Output()
	if err != nil || strings.Contains(string(left), n.prefix) {
		t.Errorf("left behind: %s, %v", left, err)
	}
}

// serve answers every connection to a host with its number.
func serve(t *testing.T, n *Network, host int) {
	t.Helper()
	var l net.Listener
	err := n.Space(host).inside(func() (err error) {
		l, err = net.Listen("tcp", "0.0.0.0:7000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // waited for in the cleanup
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, n.Address(host))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}

// reach connects from one host to another. A link just plugged in needs a
// moment, so it tries for a while before it gives up.
func reach(n *Network, from, to int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	return answered(n.Space(from).dial(ctx, "tcp", n.Address(to)+":7000"))(n.Address(to))
}

// answered checks that a connection was made, and to whom.
func answered(conn net.Conn, err error) func(want string) error {
	return func(want string) error {
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		got, err := io.ReadAll(conn)
		if string(got) != want {
			return errors.Join(err, errors.New("wrong host"))
		}
		return nil
	}
}
