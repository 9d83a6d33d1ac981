package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// deposed is a site that reigned in epoch 1, with an application that still has
// the database open: rows 1 to 3 are captured, as commits 2 to 4.
func deposed(t *testing.T) (*site, *application) {
	t.Helper()
	s := newSite(t)
	table(t, s.path)
	stop := s.reign(1)
	s.reach(1)
	app := newApplication(t, s.path)
	for row := range 3 { // one by one: commits that come at once are one transaction
		app.insert(row + 1)
		s.reach(walstream.TXID(row + 2))
	}
	stop()
	s.wantDoubt(reigned)
	return s, app
}

// counts are values of a database's metrics.
type counts struct{ quarantined, applied, steps, repairs, gaps, mismatches int }

// counted returns what was counted since the site was opened.
func (s *site) counted() counts {
	c := s.d.counts
	return counts{
		quarantined: value(s.t, c.Quarantined), applied: value(s.t, c.AppliedCommits), steps: value(s.t, c.AppliedTxns),
		repairs: value(s.t, c.Repairs), gaps: value(s.t, c.Gaps), mismatches: value(s.t, c.Mismatches),
	}
}

// delay is the histogram of apply delays.
func (s *site) delay() prometheus.Metric { return s.d.counts.ApplyDelay.(prometheus.Metric) }

func value(t *testing.T, metric prometheus.Metric) int {
	t.Helper()
	var m dto.Metric
	must(t, metric.Write(&m))
	switch {
	case m.Counter != nil:
		return int(m.Counter.GetValue())
	case m.Gauge != nil:
		return int(m.Gauge.GetValue())
	}
	return int(m.Histogram.GetSampleCount())
}

// at returns the position of the site's log after a commit.
func (s *site) at(txid walstream.TXID) walstream.Position {
	s.t.Helper()
	pos, ok := s.d.txlog.At("app", txid)
	if !ok || pos.TXID != txid {
		s.t.Fatalf("the log has no position after commit %d", txid)
	}
	return pos
}

// What the application wrote and nobody captured is kept, counted in the WAL,
// with what was logged and is off the line; then the log is cut.
func TestDeposedPrimaryKeepsItsTail(t *testing.T) {
	s, app := deposed(t)
	s.close()
	app.insert(4, 5) // while no lsnode runs
	s.open()
	repair, err := s.d.settle(t.Context(), began(s.at(3)), false)
	must(t, err)
	if !repair {
		t.Error("a file with other commits than the cluster's needs no repair")
	}
	entry, copied := s.kept()
	if entry.Logged != 1 || entry.Uncaptured != 2 || !entry.Exact || entry.Commits() != 3 || entry.Database != "app" || entry.Node != "n1" {
		t.Errorf("kept %+v", entry)
	}
	if entry.From != s.at(3).String() || !strings.HasPrefix(entry.To, "0000000000000001/0000000000000004/") {
		t.Errorf("from %s to %s", entry.From, entry.To)
	}
	wantRows(t, copied, "1 2 3 4 5")
	if last := s.d.txlog.Last("app"); last != s.at(3) {
		t.Errorf("the log stands at %s", last)
	}
	s.wantDoubt(repairing)
	if c := s.counted(); c.quarantined != 3 {
		t.Errorf("counted %+v", c)
	}
	if out := app.run("INSERT INTO t VALUES(6);"); !strings.Contains(out, "readonly") {
		t.Errorf("a write after it: %q", out)
	}
	// A second look, also after a crash, finds that there is nothing more to keep.
	s.crash()
	repair, err = s.d.settle(t.Context(), began(s.at(3)), false)
	if err != nil || !repair {
		t.Errorf("settled again: repair %t, %v", repair, err)
	}
	s.kept()
}

// A crash after the copy was kept and before the log was cut: the log is cut,
// and nothing kept twice.
func TestLogIsCutAfterACrash(t *testing.T) {
	s, app := deposed(t)
	app.kill()
	must(t, s.d.setDoubt(repairing))
	s.crash()
	repair, err := s.d.settle(t.Context(), began(s.at(2)), false)
	if err != nil || !repair {
		t.Errorf("repair %t, %v", repair, err)
	}
	if last := s.d.txlog.Last("app"); last.TXID != 2 {
		t.Errorf("the log stands at %s", last)
	}
	if entries, err := s.d.quarantine.List(); err != nil || len(entries) != 0 {
		t.Errorf("kept %+v, %v", entries, err)
	}
}

// The WAL is gone, with the application that was the last to close the database:
// only the pages show that there was more.
func TestUncountedTailIsKept(t *testing.T) {
	s, app := deposed(t)
	s.close()
	app.insert(4, 5)
	app.kill()
	wantRows(t, s.path, "1 2 3 4 5") // this shell checkpoints and removes the WAL
	if _, err := os.Stat(s.path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the WAL is still there: %v", err)
	}
	s.open()
	repair, err := s.d.settle(t.Context(), began(s.d.txlog.Last("app")), false)
	if err != nil || !repair {
		t.Errorf("repair %t, %v", repair, err)
	}
	entry, copied := s.kept()
	if entry.Logged != 0 || entry.Uncaptured < 1 || entry.Uncaptured > 2 || entry.Exact {
		t.Errorf("kept %+v", entry)
	}
	wantRows(t, copied, "1 2 3 4 5")
}

// A primary that stopped with everything captured has nothing to keep.
func TestNothingIsKeptWithoutNeed(t *testing.T) {
	for what, gone := range map[string]bool{"with its WAL": false, "without": true} {
		t.Run(what, func(t *testing.T) {
			s, app := deposed(t)
			s.close()
			app.kill()
			if gone {
				wantRows(t, s.path, "1 2 3")
			}
			s.open()
			repair, err := s.d.settle(t.Context(), began(s.d.txlog.Last("app")), false)
			if err != nil || repair {
				t.Errorf("repair %t, %v", repair, err)
			}
			if entries, err := s.d.quarantine.List(); err != nil || len(entries) != 0 {
				t.Errorf("kept %+v, %v", entries, err)
			}
			s.wantDoubt(noDoubt)
			if !s.d.replica.Fenced() {
				t.Error("it is not fenced")
			}
			wantRows(t, s.path, "1 2 3")
		})
	}
}

// About to be primary again, a node goes on with what its application wrote.
func TestCommitsStayForTheNextReign(t *testing.T) {
	s, app := deposed(t)
	s.close()
	app.insert(4, 5)
	s.open()
	start := s.d.txlog.Last("app")
	repair, err := s.d.settle(t.Context(), began(start), true)
	if err != nil || repair {
		t.Fatalf("repair %t, %v", repair, err)
	}
	stop := s.reign(2)
	end := s.reach(6)
	stop()
	if end.Epoch != 2 || end.TXID != 6 {
		t.Errorf("the log stands at %s", end)
	}
	if entries, err := s.d.quarantine.List(); err != nil || len(entries) != 0 {
		t.Errorf("kept %+v, %v", entries, err)
	}
	wantRows(t, s.path, "1 2 3 4 5")
}

// followed is a primary with rows 1 to 3 and a follower that has them.
func followed(t *testing.T) (primary, follower *site, app *application, stop func()) {
	t.Helper()
	primary = newSite(t)
	table(t, primary.path)
	stop = primary.reign(1)
	primary.reach(1)
	app = newApplication(t, primary.path)
	app.insert(1, 2, 3)
	follower = newSite(t)
	follower.follow(primary, 1, began(), primary.reach(4))
	return primary, follower, app, stop
}

// missed logs on the follower what the primary has and it lacks, and applies
// nothing: as if it had died in between.
func (s *site) missed(primary *site) {
	s.t.Helper()
	for txn, err := range primary.d.txlog.Since("app", s.d.txlog.Last("app")) {
		must(s.t, err)
		must(s.t, s.d.txlog.Append(txn, nil))
	}
	must(s.t, s.d.txlog.Sync(s.t.Context()))
}

// A file behind its log is brought to its end in one step: no reader sees a
// state in between.
func TestFileBehindItsLog(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	app.insert(4)
	primary.reach(5)
	app.insert(5)
	primary.reach(6)
	app.run("UPDATE t SET a = a + 10;")
	goal := primary.reach(7)
	s.missed(primary)
	s.crash()
	wantRows(t, s.path, "1 2 3")
	repair, err := s.d.settle(t.Context(), began(), false)
	if err != nil || repair {
		t.Fatalf("repair %t, %v", repair, err)
	}
	if c := s.counted(); c.applied != 3 || c.steps != 1 {
		t.Errorf("counted %+v", c)
	}
	if visible, _ := s.d.progress.position(); visible != goal {
		t.Errorf("it shows %s, want %s", visible, goal)
	}
	wantRows(t, s.path, "11 12 13 14 15")
}

// The end of a follower's log is off the line and was never applied: the copy
// that is kept holds it all the same.
func TestTailThatWasNotAppliedIsKept(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	app.insert(4)
	primary.reach(5)
	s.missed(primary)
	s.crash()
	repair, err := s.d.settle(t.Context(), began(s.at(4)), false)
	if err != nil || !repair {
		t.Fatalf("repair %t, %v", repair, err)
	}
	entry, copied := s.kept()
	if entry.Logged != 1 || entry.Uncaptured != 0 || !entry.Exact {
		t.Errorf("kept %+v", entry)
	}
	wantRows(t, copied, "1 2 3 4")
}

// Without the table of page checksums nothing is known of the pages: the follower
// finds that out before it shows anything wrong, and goes on.
func TestTableIsLost(t *testing.T) {
	primary, s, app, stop := followed(t)
	defer stop()
	s.close()
	must(t, os.Remove(filepath.Join(s.d.dir, "pages")))
	s.open()
	app.insert(4)
	s.follow(primary, 1, began(), primary.reach(5))
	wantRows(t, s.path, "1 2 3 4")
	if got, want := s.d.table.Checksum(), s.d.replica.Applied().Checksum; got != want {
		t.Errorf("the table says %s, the copy is at %s", got, want)
	}
	if entries, err := s.d.quarantine.List(); err != nil || len(entries) != 0 {
		t.Errorf("kept %+v, %v", entries, err)
	}
}

// The same on a primary: it can't know what it missed, so it compares.
func TestPrimaryLosesItsTable(t *testing.T) {
	s, app := deposed(t)
	s.close()
	must(t, os.Remove(filepath.Join(s.d.dir, "pages")))
	app.insert(4)
	s.open()
	stop := s.reign(1)
	end := s.reach(5)
	follower := newSite(t)
	follower.follow(s, 1, began(), end)
	stop()
	if s.d.table.Checksum() != end.Checksum {
		t.Errorf("the table says %s, the log's end is %s", s.d.table.Checksum(), end)
	}
	wantRows(t, follower.path, "1 2 3 4")
}

// A file that is no copy of this cluster's as far as the node knows is left
// alone, or put aside whole.
func TestForeignFile(t *testing.T) {
	s := newSite(t)
	table(t, s.path)
	app := newApplication(t, s.path)
	app.insert(1, 2)
	app.kill() // its rows are in the -wal
	if _, err := s.d.settle(t.Context(), began(), false); !errors.Is(err, errForeign) {
		t.Fatalf("settled with %v", err)
	}
	if s.d.opened != nil {
		t.Error("it was left open")
	}
	if aside, _ := filepath.Glob(s.path + ".replaced-*"); len(aside) != 0 {
		t.Fatalf("put aside without being told: %v", aside)
	}
	s.d.replace = true
	if _, err := s.d.settle(t.Context(), began(), false); !errors.Is(err, errAbsent) {
		t.Fatalf("settled with %v", err)
	}
	for _, path := range []string{s.path, s.path + "-wal", s.path + "-shm"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	aside, err := filepath.Glob(s.path + ".replaced-*[0-9]")
	if err != nil || len(aside) != 1 {
		t.Fatalf("put aside: %v, %v", aside, err)
	}
	wantRows(t, aside[0], "1 2")
	out := sqlite(t, aside[0], "INSERT INTO t VALUES(3); SELECT count(*) FROM t")
	if out != "3" {
		t.Errorf("a write to what was put aside: %s", out)
	}
}

// With --replace a copy of this cluster's is not put aside.
func TestReplaceSparesOwnCopies(t *testing.T) {
	primary, s, _, stop := followed(t)
	defer stop()
	s.restart()
	s.d.replace = true
	s.follow(primary, 1, began(), primary.reach(4))
	if aside, _ := filepath.Glob(s.path + ".replaced-*"); len(aside) != 0 {
		t.Errorf("put aside: %v", aside)
	}
}

// A follower whose data dir was wiped must not become a second primary.
func TestFencedFileIsNotAdopted(t *testing.T) {
	_, follower, _, stop := followed(t)
	stop()
	follower.close()
	s := newSite(t)
	run(t, "cp", follower.path, s.path)
	if mark := run(t, "od", "-An", "-tu1", "-j18", "-N1", s.path); mark != "76" {
		t.Fatalf("the copy's mark is %s", mark)
	}
	r := &reigning{d: s.d, reign: &reign{epoch: 1, valid: func() bool { return true }}}
	_, err := r.begin(t.Context())
	if !errors.Is(err, errFencedCopy) || !strings.Contains(err.Error(), "lsnode join") || !strings.Contains(err.Error(), "lsnode release") ||
		!strings.Contains(err.Error(), s.path) {
		t.Errorf("adopted with %v", err)
	}
	if last := s.d.txlog.Last("app"); !last.IsZero() {
		t.Errorf("the log stands at %s", last)
	}
	if mark, err := s.d.replica.Mark(); err != nil || mark != sqlitefile.MarkFenced {
		t.Errorf("the mark is %d now, %v", mark, err)
	}
	s.wantDoubt(noDoubt)
}
