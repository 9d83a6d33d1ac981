package testcluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lsnode/lsnode/testcluster"
	"github.com/lsnode/lsnode/testcluster/app"
)

// No commit is missed although lsnode on the only voter is killed at random
// instants while the application goes on writing, also while its WAL restarts.
func TestNoCommitMissedOverKills(t *testing.T) {
	w := started(t, time.Duration(pick(3, 20))*time.Minute, testcluster.Options{Nonvoters: true})
	first := w.Nodes[0]
	for i := range pick(8, 50) {
		bank := w.writer(first, "bank", "--rate", "400")
		writers := []*app.Child{bank}
		if i%4 == 1 {
			writers = append(writers, w.writer(first, "mixed", "--blob", fmt.Sprint(2<<20)))
		}
		w.more(bank, 5)
		w.pause(300 * time.Millisecond)
		first.Kill()
		if i%3 == 2 {
			// The WAL restarts again and again while nobody is watching.
			for range 3 {
				w.more(bank, 10)
				_, err := w.app(first, "checkpoint", "--mode", "restart,truncate", "--count", "2").Wait()
				w.must(err)
			}
		}
		w.pause(200 * time.Millisecond)
		w.must(w.StartNode(first))
		_, err := first.WaitFor(w.ctx, "a primary", testcluster.IsPrimary)
		w.must(err)
		w.more(bank, 20)
		w.finish(writers...)
		if v := w.verify(); v.Quarantined != 0 {
			t.Fatalf("after kill %d: %+v: the only voter's file must win", i+1, v)
		}
	}
	t.Logf("%+v", w.verify())
}

// Several writers at full speed at once, one of them with a checkpoint after
// every commit.
func TestNoCommitMissedOfManyWriters(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Nonvoters: true})
	first := w.Nodes[0]
	writers := []*app.Child{
		w.writer(first, "bank"), w.writer(first, "bank", "--sync", "full"), w.writer(first, "bank", "--autocheckpoint", "1"),
		w.writer(first, "mixed", "--blob", fmt.Sprint(3<<20), "--autocheckpoint", "50"),
	}
	checkpoints := w.app(first, "checkpoint", "--rate", "10")
	for _, c := range writers {
		w.more(c, int64(pick(100, 2000)))
	}
	w.finish(append(writers, checkpoints)...)
	t.Logf("%+v", w.verify())
}

// The application's own checkpoints of all kinds succeed at once, and don't
// hold its writers up. The same work without lsnode is measured beside it,
// since a busy machine is slow by itself.
func TestApplicationCheckpoints(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Nonvoters: true})
	alone := filepath.Join(w.Dir, "alone.db")
	w.must(app.Prepare(alone, 200))
	w.settled(1)
	run := func(what string, args ...string) (p90, slowest time.Duration) {
		bank, err := w.Apps.Start("bank", append(args, "--rate", "300", "--worker", "100")...)
		w.must(err)
		defer bank.Kill()
		ck, err := w.Apps.Start("checkpoint", append(args, "--mode", "full,restart,truncate", "--rate", "20", "--count", fmt.Sprint(pick(60, 600)))...)
		w.must(err)
		defer ck.Kill()
		did, err := ck.Wait()
		w.must(err)
		wrote, err := bank.Finish()
		w.must(err)
		if did.Count == 0 {
			t.Fatalf("%s: no checkpoint succeeded: %+v", what, did)
		}
		slices.Sort(did.Values)
		p90 = time.Duration(did.Values[len(did.Values)*9/10])
		t.Logf("%s: checkpoints p50 %v, p90 %v, max %v, %d of %d over 100 ms, %d busy; commits max %v, %d of %d over 100 ms", what,
			time.Duration(did.Values[len(did.Values)/2]), p90, time.Duration(did.Slowest), did.Slow, did.Count, did.Busy,
			time.Duration(wrote.Slowest), wrote.Slow, wrote.Count)
		if did.Busy*20 > did.Count {
			t.Errorf("%s: %d checkpoints were busy, %d succeeded", what, did.Busy, did.Count)
		}
		return p90, time.Duration(max(did.Slowest, wrote.Slowest))
	}
	_, plain := run("without lsnode", "--db", alone)
	p90, slowest := run("with lsnode", "--db", w.Nodes[0].DB(testcluster.DatabaseName))
	if p90 > 100*time.Millisecond {
		t.Errorf("nine of ten checkpoints took up to %v", p90)
	}
	if most := 100*time.Millisecond + 2*plain + 400*time.Millisecond; slowest > most {
		t.Errorf("the slowest took %v, more than %v", slowest, most)
	}
	w.must(w.WaitSettled(w.ctx))
	_, err := w.Compare(w.ctx)
	w.must(err)
}

// A database that is restored over while lsnode is down is new content, for all
// nodes.
func TestRestoredOverWhileDown(t *testing.T) {
	w := started(t, 3*time.Minute, testcluster.Options{Nonvoters: true})
	first := w.Nodes[0]
	db := first.DB(testcluster.DatabaseName)
	backup := filepath.Join(w.Dir, "backup.db")
	w.settled(50)
	w.must(exec.Command("sqlite3", db, "VACUUM INTO '"+backup+"'").Run())
	want, err := w.Apps.Digest(w.ctx, backup)
	w.must(err)

	for name, restore := range map[string]func() error{
		"by moving files": func() error {
			for _, suffix := range []string{"-wal", "-shm"} {
				if err := os.Remove(db + suffix); err != nil && !os.IsNotExist(err) {
					return err
				}
			}
			if out, err := exec.Command("cp", backup, db+".new").CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return os.Rename(db+".new", db)
		},
		"by SQLite": func() error {
			out, err := exec.Command("sqlite3", db, ".restore "+backup).CombinedOutput()
			if err != nil || len(out) > 0 {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		},
	} {
		t.Log(name)
		_, err := w.app(first, "bank", "--worker", "50", "--seed", fmt.Sprint(w.rng.Uint64()), "--oracle", filepath.Join(w.Dir, "forgotten-"+name), "--count", "30").Wait()
		w.must(err)
		w.must(w.WaitSettled(w.ctx))
		first.Kill()
		w.must(restore())
		w.must(w.StartNode(first))
		w.must(w.WaitSettled(w.ctx))
		got, err := w.Compare(w.ctx)
		w.must(err)
		if got.Content != want.Content {
			t.Fatalf("%s: all nodes hold %v, the backup %v", name, got.Rows, want.Rows)
		}
	}
	w.settled(20)
	t.Logf("%+v", w.verify())
}
