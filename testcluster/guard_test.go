package testcluster_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// refusedBy waits until an application has been refused after the given moment
// and returns how long after it that was noticed.
func (w *world) refusedBy(c *app.Child, before, since int64) time.Duration {
	w.t.Helper()
	w.reported(c, "a refusal", func(r app.Report) bool { return r.Refused > before })
	return time.Duration(app.Clock() - since)
}

// guarded waits until a node has a guard that lives, other than one of those.
func (w *world) guarded(n *testcluster.Node, not ...int) int {
	w.t.Helper()
	s, err := n.WaitFor(w.ctx, "a guard", func(s testcluster.Status) bool {
		for _, pid := range not {
			if s.Guard.PID == pid {
				return false
			}
		}
		return s.Guard.State == "alive"
	})
	w.must(err)
	return s.Guard.PID
}

// A primary that is killed, or stopped, while its application lives and goes on
// trying: its database is closed to writers before another node opens, as
// somebody sees who tries to write everywhere all the time.
func TestGuardFences(t *testing.T) {
	w := started(t, time.Duration(pick(3, 15))*time.Minute, testcluster.Options{})
	banks := w.everywhere(200)
	notes, probers := w.probers()
	for i := range pick(4, 24) {
		old := w.ready(banks)
		w.guarded(old)
		refused := banks[old].Last().Refused
		since := app.Clock()
		kind := "SIGKILL"
		if i%2 == 0 {
			old.Kill()
		} else {
			kind = "SIGSTOP"
			w.must(old.Stop())
		}
		heir, took := w.takeover(banks, old, since)
		fenced := w.refusedBy(banks[old], refused, since)
		t.Logf("%s of %s: refused by %v, first commit on %s after %v", kind, old.Name, fenced, heir.Name, took)
		refuses(t, old)
		if kind == "SIGKILL" {
			w.must(w.StartNode(old))
		} else {
			w.must(old.Cont())
		}
		_, err := old.WaitFor(w.ctx, "following", testcluster.IsFollowing)
		w.must(err)
	}
	for _, n := range w.Nodes {
		w.finish(banks[n], probers[n])
	}
	w.apart(notes)
	t.Logf("%+v", w.verify())
}

// How much sooner another node takes over when the guard has told the voters.
func TestGuardMakesTakeoverQuick(t *testing.T) {
	w := started(t, time.Duration(pick(3, 15))*time.Minute, testcluster.Options{})
	banks := w.everywhere(200)
	var with, without []time.Duration
	for i := range pick(4, 20) {
		old := w.ready(banks)
		w.guarded(old)
		since := app.Clock()
		if i%2 == 1 {
			w.must(old.SignalGuards(syscall.SIGSTOP)) // one that is killed would be replaced
		}
		old.Kill()
		banks[old].Kill()
		if i%2 == 1 {
			w.must(old.KillGuards())
		}
		_, took := w.takeover(banks, old, since)
		if i%2 == 1 {
			without = append(without, took)
		} else {
			with = append(with, took)
		}
		w.must(w.StartNode(old))
		_, err := old.WaitFor(w.ctx, "following", testcluster.IsFollowing)
		w.must(err)
		banks[old] = w.writer(old, "bank", "--reopen", "--rate", "200")
	}
	t.Logf("first commit after a kill: with the guard %v, without %v", with, without)
	for _, bank := range banks {
		w.finish(bank)
	}
	t.Logf("%+v", w.verify())
}

// A guard that dies is replaced, and that is said; one that is gone together
// with its node leaves the voters to wait. An orderly end takes the guard along.
func TestGuardIsReplaced(t *testing.T) {
	w := started(t, 2*time.Minute, testcluster.Options{})
	n := w.primary()
	first := w.guarded(n)
	w.must(syscall.Kill(first, syscall.SIGTERM)) // as a service manager does to all of a service
	w.must(syscall.Kill(first, syscall.SIGKILL))
	second := w.guarded(n, first)
	if s := w.status(n); s.Guard.Restarts != 1 {
		t.Errorf("%d restarts", s.Guard.Restarts)
	}
	w.must(syscall.Kill(second, syscall.SIGSTOP)) // neither dead nor of any use
	w.guarded(n, first, second)
	if got := n.Guards(); len(got) != 1 {
		t.Errorf("there are guards %v", got)
	}
	if log := n.LogTail(1 << 20); !strings.Contains(log, "the guard is gone") {
		t.Error("nothing was said of it")
	}
	w.must(n.Terminate(30 * time.Second))
	if got := n.Guards(); len(got) != 0 {
		t.Errorf("after the node's end there are guards %v", got)
	}
	if _, err := n.Exec(w.ctx, "guard", "--data-dir", n.DataDir); err == nil || !strings.Contains(err.Error(), "started by its node") {
		t.Errorf("started by hand: %v", err)
	}
}

// The database of an only voter stays open for writing, whatever happens to
// lsnode.
func TestGuardLeavesSoleVoterOpen(t *testing.T) {
	w := newWorld(t, 2*time.Minute, testcluster.Options{Size: 1})
	w.must(w.Start(w.ctx))
	n := w.Nodes[0]
	w.guarded(n)
	bank := w.writer(n, "bank", "--rate", "200")
	w.more(bank, 20)
	w.must(n.Stop())
	w.more(bank, 300) // more than a lease
	w.must(n.Cont())
	n.Kill()
	w.more(bank, 300)
	for len(n.Guards()) > 0 {
		if w.ctx.Err() != nil {
			t.Fatalf("guards %v stay", n.Guards())
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.must(n.Start())
	_, err := n.WaitFor(w.ctx, "a primary", testcluster.IsPrimary)
	w.must(err)
	w.more(bank, 50)
	if r := bank.Last(); r.Refused != 0 {
		t.Errorf("%d writes were refused", r.Refused)
	}
	w.finish(bank)
	t.Logf("%+v", w.verify())
}
