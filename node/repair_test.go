package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/walstream"
)

// promoted is a follower of a deposed primary that reigns in epoch 2 from the
// primary's commit 3 on, with an application that has committed row 9.
func promoted(t *testing.T) (old, next *site, stop func()) {
	t.Helper()
	old = newSite(t)
	table(t, old.path)
	stopOld := old.reign(1)
	app := newApplication(t, old.path)
	old.each(app, 1, 2)
	next = newSite(t)
	next.follow(old, 1, began(), old.reach(3))
	old.each(app, 3)
	stopOld()
	app.insert(4, 5) // nobody captures
	start := next.d.txlog.Last("app")
	if repair, err := next.d.settle(t.Context(), began(start), true); err != nil || repair {
		t.Fatalf("settle the next primary: %t, %v", repair, err)
	}
	stop = next.reign(2)
	next.each(newApplication(t, next.path), 9)
	return old, next, stop
}

// A node that comes back with commits that the cluster has not keeps them, and
// is repaired by the pages that differ, under its readers.
func TestRejoin(t *testing.T) {
	old, next, stop := promoted(t)
	defer stop()
	reader := newApplication(t, old.path)
	reader.run("BEGIN;")
	if got := reader.run("SELECT count(*) FROM t;"); got != "5" {
		t.Fatalf("the reader sees %s rows", got)
	}
	old.follow(next, 2, began(old.at(3)), next.reach(4))
	entry, copied := old.kept()
	if entry.Logged != 1 || entry.Uncaptured != 2 || !entry.Exact {
		t.Errorf("kept %+v", entry)
	}
	wantRows(t, copied, "1 2 3 4 5")
	wantRows(t, old.path, "1 2 9")
	if got := reader.run("SELECT count(*) FROM t;"); got != "5" {
		t.Errorf("the reader's transaction sees %s rows now", got)
	}
	if got := reader.run("COMMIT; SELECT count(*) FROM t;"); got != "3" {
		t.Errorf("then it sees %s rows", got)
	}
	old.wantDoubt(noDoubt)
	if c := old.counted(); c.repairs != 1 || c.quarantined != 3 || c.gaps != 0 {
		t.Errorf("counted %+v", c)
	}
	if old.d.table.Checksum() != old.d.txlog.Last("app").Checksum {
		t.Error("the table does not agree with the log")
	}
}

// A crash at any step of a rejoin: the next start goes on, and keeps nothing
// twice.
func TestRejoinIsCutOff(t *testing.T) {
	old, next, stop := promoted(t)
	defer stop()
	line := began(old.at(3))
	steps := map[string]func(){
		"before anything":         func() {},
		"after the file was kept": func() { _, err := old.d.settle(t.Context(), line, false); must(t, err) },
		"when it was repaired, not logged": func() {
			_, err := old.d.settle(t.Context(), line, false)
			must(t, err)
			must(t, old.d.rescan(t.Context()))
			txn, spool, err := old.d.fetch(t.Context(), next.dial(), line, old.d.table, old.d.file.PageSize())
			must(t, err)
			defer spool.Close()
			must(t, old.d.replica.Repair(t.Context(), txn))
			must(t, old.d.replica.Sync(t.Context()))
		},
	}
	for _, step := range []string{"before anything", "after the file was kept", "when it was repaired, not logged"} {
		steps[step]()
		old.crash()
	}
	old.follow(next, 2, line, next.reach(4))
	old.kept()
	wantRows(t, old.path, "1 2 9")
	old.wantDoubt(noDoubt)
}

// A node that is off the cluster's line is no source.
func TestSourceOffTheLine(t *testing.T) {
	old, next, stop := promoted(t)
	defer stop()
	s := newSite(t)
	// By the line that this node knows, epoch 2 went on from elsewhere.
	line := began(walstream.Position{Epoch: 1, TXID: 2, Checksum: at(1, 2).Checksum})
	line.Reigns[1].Epoch = 3
	if err := s.d.restoreCopy(t.Context(), 3, next.dial(), line); !errors.Is(err, errOffLine) {
		t.Errorf("seeded with %v", err)
	}
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	_ = old
}

// A page of the copy was changed by something else than lsnode: the checksum
// after the next transaction tells, and the copy is repaired.
func TestStrayWriteIsRepaired(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	app.run("CREATE TABLE u(a); INSERT INTO u VALUES('good');")
	s.follow(primary, 1, began(), primary.reach(6))
	s.close()
	run(t, "sqlite3", s.path, "PRAGMA wal_checkpoint(TRUNCATE)")
	run(t, "python3", "-c", `
import sys
p = sys.argv[1]
b = open(p, 'rb').read()
assert b.count(b'good') == 1
open(p, 'r+b').write(b.replace(b'good', b'evil'))`, s.path)
	s.open()
	app.insert(4)
	s.follow(primary, 1, began(), primary.reach(7))
	// Pages that the transactions don't touch are not read: a repair compares all.
	must(t, s.d.repair(t.Context(), 1, primary.dial(), began()))
	if got := sqlite(t, s.path, "SELECT a FROM u"); got != "good" {
		t.Errorf("the copy says %s", got)
	}
	if n := value(t, s.d.counts.RepairedPages); n == 0 || s.counted().repairs != 1 {
		t.Errorf("%d pages in %d repairs were counted", n, s.counted().repairs)
	}
	wantRows(t, s.path, "1 2 3 4")
}

// Somebody has taken the mark off a copy while its node was down, and committed:
// that is kept in quarantine, and the copy repaired.
func TestUnmarkedCopyIsKept(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.close()
	run(t, "sqlite3", s.path, "PRAGMA wal_checkpoint(TRUNCATE)")
	run(t, "python3", "-c", "import sys; f = open(sys.argv[1], 'r+b'); f.seek(18); f.write(b'\\2')", s.path)
	sqlite(t, s.path, "INSERT INTO t VALUES(99)")
	s.open()
	must(t, s.d.fence(t.Context()))
	app.insert(4)
	s.follow(primary, 1, began(), primary.reach(5))
	entry, copied := s.kept()
	if entry.Uncaptured != 1 {
		t.Errorf("kept %+v", entry)
	}
	wantRows(t, copied, "1 2 3 99")
	wantRows(t, s.path, "1 2 3 4")
}

// Another page size needs another file: the copy is made anew, and who has the
// old one open keeps reading what it was.
func TestPageSizeChanges(t *testing.T) {
	primary, s, app, stop := followed(t)
	reader := newApplication(t, s.path)
	reader.run("BEGIN;")
	reader.run("SELECT count(*) FROM t;")
	stop()
	primary.close()
	app.kill()
	sqlite(t, primary.path, "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL; INSERT INTO t VALUES(4)")
	primary.open()
	defer primary.reign(1)()
	goal := primary.reach(5)
	s.follow(primary, 1, began(), goal)
	if got := sqlite(t, s.path, "PRAGMA page_size"); got != "8192" {
		t.Errorf("the copy's page size is %s", got)
	}
	wantRows(t, s.path, "1 2 3 4")
	if out := sqlite(t, s.path, "PRAGMA journal_mode"); out != "wal" {
		t.Errorf("the copy's journal mode is %s", out)
	}
	if got := reader.run("SELECT group_concat(a,' ') FROM t;"); got != "1 2 3" {
		t.Errorf("the old file's reader sees %q", got)
	}
	if out := newApplication(t, s.path).run("INSERT INTO t VALUES(5);"); !strings.Contains(out, "readonly") {
		t.Errorf("a write to the new copy: %q", out)
	}
	if entries, err := s.d.quarantine.List(); err != nil || len(entries) != 0 {
		t.Errorf("kept %+v, %v", entries, err)
	}
}

// A file that diverged while it was in doubt is rolled forward from the log
// alone, if the log has every page that differs.
func TestRollForward(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.close()
	run(t, "sqlite3", s.path, "PRAGMA wal_checkpoint(TRUNCATE)")
	before := filepath.Join(t.TempDir(), "before.db")
	run(t, "cp", s.path, before)
	s.open()
	app.insert(4)
	s.follow(primary, 1, began(), primary.reach(5))
	last := s.d.txlog.Last("app")
	s.close() // a power loss takes the file back to before, but not the log
	must(t, removeFile(s.path+"-wal"))
	must(t, removeFile(s.path+"-shm"))
	run(t, "cp", before, s.path)
	s.open()
	wantRows(t, s.path, "1 2 3")
	must(t, s.d.fence(t.Context()))
	must(t, s.d.setDoubt(repairing))
	must(t, s.d.rollForward(t.Context()))
	wantRows(t, s.path, "1 2 3 4")
	s.wantDoubt(noDoubt)
	if got := s.d.replica.Applied(); got != last {
		t.Errorf("it stands at %s, want %s", got, last)
	}
}
