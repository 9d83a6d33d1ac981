package testcluster_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// Nodes leave and are removed, their copies stay fenced until they are
// released; the rest goes on.
func TestLeaveRemoveRelease(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{Size: 4, Args: calm})
	first, leaving, dead := w.Nodes[0], w.Nodes[2], w.Nodes[3]
	bank := w.writer(first, "bank", "--rate", "200")

	_, err := leaving.Run(w.ctx, "leave")
	w.must(err)
	dead.Kill()
	w.must(eventually(w, func() error {
		_, err := first.Run(w.ctx, "remove", dead.Name)
		return err
	}))
	s, err := first.WaitFor(w.ctx, "two nodes", func(s testcluster.Status) bool { return len(s.Nodes) == 2 })
	w.must(err)
	if s.Peer(leaving.Name).Name != "" || s.Peer(dead.Name).Name != "" {
		t.Errorf("members are %+v", s.Nodes)
	}
	leaving.Kill()
	refuses(t, leaving)
	refuses(t, dead)
	db := dead.DB(testcluster.DatabaseName)
	_, err = dead.Exec(w.ctx, "release", db)
	w.must(err)
	c, err := app.Open(db, app.Settings{Busy: time.Second})
	w.must(err)
	defer c.Close()
	w.must(c.Exec("INSERT INTO item(n) VALUES(1)"))

	w.more(bank, 50)
	w.finish(bank)
	t.Logf("%+v", w.verify())
}

// eventually tries until there is no error.
func eventually(w *world, f func() error) error {
	for {
		err := f()
		if err == nil || w.ctx.Err() != nil {
			return err
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// A second process on the same data dir ends with an error; the first one
// notices nothing.
func TestDataDirIsLocked(t *testing.T) {
	w := started(t, time.Minute, testcluster.Options{Size: 1})
	second := testcluster.NewNode(w.Nodes[0].NodeConfig)
	second.Listen, second.HTTP, second.LogFile = unusedAddress(w), unusedAddress(w), second.LogFile+".second"
	t.Cleanup(second.Kill)
	w.must(second.Start())
	ctx, cancel := context.WithTimeout(w.ctx, 15*time.Second)
	defer cancel()
	if err := second.WaitExit(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, want an exit status; it said %s", err, second.LogTail(2<<10))
	}
	w.settled(5)
	t.Logf("%+v", w.verify())
}

// A node that comes back under another address is found there.
func TestAddressChanges(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{Args: calm})
	bank := w.writer(w.Nodes[0], "bank", "--rate", "200")
	moved := w.Nodes[1]
	w.must(moved.Terminate(20 * time.Second))
	moved.Listen = unusedAddress(w)
	w.must(w.StartNode(moved))
	w.must(w.WaitSettled(w.ctx))
	for _, n := range w.Nodes {
		_, err := n.WaitFor(w.ctx, "the new address", func(s testcluster.Status) bool {
			p := s.Peer(moved.Name)
			return p.Address == moved.Listen && p.Alive
		})
		w.must(err)
	}
	w.more(bank, 50)
	w.finish(bank)
	t.Logf("%+v", w.verify())
}

// An application reads its own write on another node by the bookmark.
func TestWaitForBookmark(t *testing.T) {
	w := started(t, time.Minute, testcluster.Options{Nonvoters: true})
	w.settled(5)
	for range 5 {
		_, err := w.writer(w.Nodes[0], "bank", "--count", "1").Wait()
		w.must(err)
		var mark string
		_, err = w.Nodes[0].WaitFor(w.ctx, "a bookmark", func(s testcluster.Status) bool {
			mark = s.Database(testcluster.DatabaseName).Bookmark
			return mark != ""
		})
		w.must(err)
		for _, n := range w.Nodes[1:] {
			if out, err := n.Run(w.ctx, "wait", testcluster.DatabaseName, mark); err != nil {
				t.Errorf("%s: %v: %s", n.Name, err, out)
			}
		}
	}
	if out, err := w.Nodes[1].Run(w.ctx, "wait", testcluster.DatabaseName, "lsb1-nonsense"); err == nil {
		t.Errorf("waited for nonsense: %s", out)
	}
	out, err := w.Nodes[1].Run(w.ctx, "status", "--json")
	w.must(err)
	if !strings.Contains(out, `"role"`) {
		t.Errorf("status --json says %s", out)
	}
}
