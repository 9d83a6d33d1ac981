package testcluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// stranger returns a node of the world that is not meant to get in.
func (w *world) stranger(name, tokenFile string) *testcluster.Node {
	n := testcluster.NewNode(w.Nodes[1].NodeConfig)
	n.Name, n.TokenFile = name, tokenFile
	n.Listen, n.HTTP = unusedAddress(w), unusedAddress(w)
	dir := filepath.Join(w.Dir, name)
	n.DataDir, n.LogFile = filepath.Join(dir, "data"), filepath.Join(dir, "lsnode.log")
	n.Databases = []string{testcluster.DatabaseName + "=" + filepath.Join(dir, "app", "bank.db")}
	w.must(os.MkdirAll(filepath.Dir(n.DB(testcluster.DatabaseName)), 0o755))
	w.t.Cleanup(n.Kill)
	return n
}

// unusedAddress returns a loopback address on which nobody listens just now.
func unusedAddress(w *world) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	w.must(l.Close())
	return l.Addr().String()
}

// Who doesn't have the token gets nothing, whatever he sends, and the cluster
// goes on as if he weren't there.
func TestStrangersGetNothing(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Args: calm})
	first := w.Nodes[0]
	bank := w.writer(first, "bank", "--rate", "200")
	reader := w.app(w.Nodes[1], "reader")
	before := w.status(first)

	t.Run("no token", func(t *testing.T) { w.turnedAway(t, w.stranger("none", "")) })
	t.Run("wrong token", func(t *testing.T) {
		other := newWorld(t, time.Minute, testcluster.Options{Size: 1})
		other.must(other.Start(other.ctx))
		w.turnedAway(t, w.stranger("wrong", filepath.Join(other.Nodes[0].DataDir, "cluster.token")))
	})
	t.Run("plain TCP", func(t *testing.T) {
		for _, text := range []string{"", "GET / HTTP/1.0\r\n\r\n", "CONNECT {}\r\nPING\r\n", string(make([]byte, 64<<10)), "\x16\x03\x01\xff\xff"} {
			conn, err := net.Dial("tcp", first.Listen)
			if err != nil {
				t.Fatal(err)
			}
			if got := converse(t, conn, text); len(got) > 0 && got[0] != 21 { // a TLS alert
				t.Errorf("%.20q was answered with %.60q", text, got)
			}
		}
	})
	t.Run("TLS without certificate", func(t *testing.T) {
		for _, alpn := range [][]string{nil, {"h2", "http/1.1"}, offered} {
			for _, one := range append([][]string{alpn}, each(alpn)...) {
				conn, err := net.Dial("tcp", first.Listen)
				if err != nil {
					t.Fatal(err)
				}
				c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: one})
				if got := converse(t, c, "PING\r\n"); len(got) > 0 {
					t.Errorf("ALPN %q: was answered with %.60q", one, got)
				}
			}
		}
	})
	t.Run("UDP", func(t *testing.T) {
		conn, err := net.Dial("udp", first.Listen)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"x", "\x00\x01\x02", string(make([]byte, 1200))} {
			if got := converse(t, conn, text); len(got) > 0 {
				t.Errorf("%.20q was answered with %.60q", text, got)
			}
			if conn, err = net.Dial("udp", first.Listen); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
	})

	// The same with the token gets in, so it was the token.
	guest := w.stranger("guest", w.Nodes[1].TokenFile)
	w.must(guest.Start())
	if _, err := guest.WaitFor(w.ctx, "following", testcluster.IsFollowing); err != nil {
		t.Error(err)
	}
	if _, err := guest.Run(w.ctx, "leave"); err != nil {
		t.Error(err)
	}
	guest.Kill()

	after := w.status(first)
	if after.Epoch != before.Epoch || len(after.Nodes) != len(before.Nodes) || !testcluster.IsPrimary(after) {
		t.Errorf("the cluster was disturbed: before %+v, after %+v", before, after)
	}
	w.more(bank, 50)
	w.reported(reader, "the bank's commits", func(r app.Report) bool { return r.Seq >= bank.Last().Seq-100 })
	w.finish(bank, reader)
	t.Logf("%+v", w.verify())
}

// offered are the names under which nodes speak to each other.
var offered = []string{"lsnode-raft/1", "lsnode-rpc/1", "lsnode-gossip/1", "lsnode-stream/1", "lsnode-nats/1", "lsnode-pull/1"}

func each(all []string) (one [][]string) {
	for _, s := range all {
		one = append(one, []string{s})
	}
	return one
}

func (w *world) status(n *testcluster.Node) testcluster.Status {
	w.t.Helper()
	s, err := n.Status(w.ctx)
	w.must(err)
	return s
}

// turnedAway starts a node that must not become a member, nor get a byte of
// the database. Whether it ends or goes on trying is its own affair.
func (w *world) turnedAway(t *testing.T, n *testcluster.Node) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 4*time.Second)
	defer cancel()
	err := n.WaitExit(ctx)
	t.Logf("it ended: %v; it said: %s", err, n.LogTail(600))
	if err == nil {
		t.Error("it ended as if all were well")
	}
	if s := w.status(w.Nodes[0]); s.Peer(n.Name).Name != "" {
		t.Errorf("it is a member: %+v", s.Nodes)
	}
	if _, err := os.Stat(n.DB(testcluster.DatabaseName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it has a copy: %v", err)
	}
}

// converse sends text and returns what comes back until the other side closes
// or a moment has passed.
func converse(t *testing.T, conn net.Conn, text string) []byte {
	t.Helper()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return nil
	}
	got, _ := io.ReadAll(io.LimitReader(conn, 4<<10)) // refused, closed, or nothing in time
	return got
}
