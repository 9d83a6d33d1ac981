package app

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/lsnode/lsnode/testcluster/oracle"
)

func TestMain(m *testing.M) {
	if os.Getenv(EnvName) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func launcher(t *testing.T) Launcher {
	t.Helper()
	l, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, name string, args ...string) *Child {
	t.Helper()
	c, err := launcher(t).Start(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

func bank(t *testing.T) (db, record string) {
	t.Helper()
	dir := t.TempDir()
	db = filepath.Join(dir, "bank with ü.db")
	if err := Prepare(db, 50); err != nil {
		t.Fatal(err)
	}
	return db, filepath.Join(dir, "commits")
}

// waitFor waits until the newest report is as wanted.
func waitFor(t *testing.T, c *Child, ok func(Report) bool) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for !ok(c.Last()) {
		select {
		case <-c.Exited():
			_, err := c.Wait()
			t.Fatalf("ended early: %v", err)
		case <-limit:
			t.Fatalf("waited in vain; last: %+v", c.Last())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func verdict(t *testing.T, db, record string) oracle.Found {
	t.Helper()
	r, err := oracle.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Check(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWritersAndReaders(t *testing.T) {
	db, record := bank(t)
	hold := start(t, "hold", "--db", db)
	waitFor(t, hold, func(r Report) bool { return r.Count > 0 })
	var readers []*Child
	for _, client := range []string{"go", "shell", "python"} {
		readers = append(readers, start(t, "reader", "--db", db, "--client", client, "--fresh", "20"))
	}
	mixed := start(t, "mixed", "--db", db, "--oracle", record, "--count", "800", "--blob", "5000000", "--seed", "7")
	done, err := mixed.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if done.Count != 800 {
		t.Errorf("made %d commits, want 800", done.Count)
	}
	for _, c := range readers {
		waitFor(t, c, func(r Report) bool { return r.Count > 30 && r.Seq == done.Seq })
		if _, err := c.Finish(); err != nil {
			t.Error(err)
		}
	}
	if r, err := hold.Finish(); err != nil || r.Seq != done.Seq {
		t.Errorf("held transaction: %+v, %v", r, err)
	}
	if f := verdict(t, db, record); f.Err() != nil || f.Rows != 800 {
		t.Errorf("%d rows, %v", f.Rows, f.Err())
	}
}

func TestKilledWriterGoesOn(t *testing.T) {
	db, record := bank(t)
	for range 4 {
		c := start(t, "bank", "--db", db, "--oracle", record, "--every", "1ms")
		was := c.Last().Count
		waitFor(t, c, func(r Report) bool { return r.Count > was+20 })
		c.Kill()
	}
	f := verdict(t, db, record)
	if f.Err() != nil || f.Rows < 80 {
		t.Errorf("%d rows, %v", f.Rows, f.Err())
	}
}

// Readers and record must notice what they are there to notice.
func TestDamageIsSeen(t *testing.T) {
	for name, damage := range map[string]string{
		"money":   "UPDATE account SET balance=balance+1 WHERE id=1",
		"torn":    "UPDATE last SET seq=seq+1",
		"back":    "DELETE FROM register WHERE seq>(SELECT max(seq)-3 FROM register); UPDATE last SET seq=seq-3",
		"missing": "DELETE FROM register WHERE seq=2",
		"phantom": "INSERT INTO register SELECT worker, 100000, payload, crc FROM register WHERE seq=1",
		"wrong":   "UPDATE register SET payload=(SELECT payload FROM register WHERE seq=1), crc=(SELECT crc FROM register WHERE seq=1) WHERE seq=2",
	} {
		t.Run(name, func(t *testing.T) {
			db, record := bank(t)
			if _, err := start(t, "bank", "--db", db, "--oracle", record, "--count", "10").Wait(); err != nil {
				t.Fatal(err)
			}
			reader := start(t, "reader", "--db", db)
			waitFor(t, reader, func(r Report) bool { return r.Seq == 10 })
			c, err := Open(db, Settings{Busy: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Exec("BEGIN;" + damage + ";COMMIT"); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "money", "torn", "back":
				if _, err := reader.Wait(); err == nil {
					t.Error("the reader saw nothing")
				} else {
					t.Log(err)
				}
			default:
				if err := verdict(t, db, record).Err(); err == nil {
					t.Error("the record saw nothing")
				} else {
					t.Log(err)
				}
			}
		})
	}
}

func TestReadonlyIsToldApart(t *testing.T) {
	db, record := bank(t)
	if _, err := start(t, "bank", "--db", db, "--oracle", record, "--count", "5").Wait(); err != nil {
		t.Fatal(err)
	}
	fence(t, db, 76)
	if _, err := start(t, "bank", "--db", db, "--oracle", record).Wait(); err == nil {
		t.Error("wrote a read-only database")
	} else {
		t.Log(err)
	}
	patient := start(t, "bank", "--db", db, "--oracle", record, "--reopen")
	waitFor(t, patient, func(r Report) bool { return r.Refused > 2 })
	if n := patient.Last().Count; n != 0 {
		t.Errorf("made %d commits", n)
	}
	patient.Kill()
	fence(t, db, 2)
	if _, err := start(t, "bank", "--db", db, "--oracle", record, "--count", "5").Wait(); err != nil {
		t.Error(err)
	}
	if f := verdict(t, db, record); f.Err() != nil || f.Rows != 10 {
		t.Errorf("%d rows, %v", f.Rows, f.Err())
	}
}

// fence sets the write version of a database that nobody has open.
func fence(t *testing.T, db string, mark byte) {
	t.Helper()
	f, err := os.OpenFile(db, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{mark}, 18); err != nil {
		t.Fatal(err)
	}
}

func TestProber(t *testing.T) {
	db, _ := bank(t)
	notes := filepath.Join(t.TempDir(), "windows")
	p := start(t, "prober", "--db", db, "--intervals", notes, "--every", "1ms")
	waitFor(t, p, func(r Report) bool { return r.Count > 20 })
	before := Clock()
	mark(t, db, 76)
	after := Clock()
	waitFor(t, p, func(r Report) bool { return r.Refused > 20 })
	mark(t, db, 2)
	count := p.Last().Count
	waitFor(t, p, func(r Report) bool { return r.Count > count+20 })
	if _, err := p.Finish(); err != nil {
		t.Fatal(err)
	}
	found, err := Windows(notes)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[0].Until > after || found[1].From < before || found[0].Until >= found[1].From {
		t.Errorf("windows %v, fenced between %d and %d", found, before, after)
	}
}

// mark sets the write version through SQLite, as a transaction, while others
// have the database open.
func mark(t *testing.T, db string, version byte) {
	t.Helper()
	out, err := exec.Command("python3", "-c", `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
f = open(sys.argv[1], "r+b", buffering=0); f.seek(18); f.write(bytes([int(sys.argv[2])]))
import os; os._exit(0)`, db, fmt.Sprint(version)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestWindowsOverlap(t *testing.T) {
	for _, test := range []struct {
		a, b []Window
		want bool
	}{
		{nil, nil, false},
		{[]Window{{1, 2}}, []Window{{3, 4}}, false},
		{[]Window{{1, 2}, {5, 6}}, []Window{{3, 4}}, false},
		{[]Window{{1, 3}}, []Window{{3, 4}}, true},
		{[]Window{{1, 9}}, []Window{{3, 4}}, true},
		{[]Window{{1, 2}, {3, 5}}, []Window{{4, 4}}, true},
	} {
		if _, _, got := Overlap(test.a, test.b); got != test.want {
			t.Errorf("Overlap(%v, %v) = %v", test.a, test.b, got)
		}
		if _, _, got := Overlap(test.b, test.a); got != test.want {
			t.Errorf("Overlap(%v, %v) = %v", test.b, test.a, got)
		}
	}
}

// The digest must be that of LTX, whether pages are in the file or in the WAL.
func TestDigest(t *testing.T) {
	db, _ := bank(t)
	c, err := Open(db, Settings{Busy: time.Second, AutoCheckpoint: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 50 {
		if err := c.Exec("INSERT INTO item(n, body) VALUES(?, hex(randomblob(3000)))", i); err != nil {
			t.Fatal(err)
		}
	}
	inWAL, err := launcher(t).Digest(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
	inFile, err := launcher(t).Digest(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if inWAL.Checksum != inFile.Checksum || inWAL.Content != inFile.Content || inWAL.PageCount != inFile.PageCount {
		t.Errorf("in the WAL %+v, in the file %+v", inWAL, inFile)
	}
	raw, err := exec.Command("cat", db).Output() // not opened in this process, which holds SQLite's locks
	if err != nil {
		t.Fatal(err)
	}
	want := ltx.ChecksumFlag
	for no := 0; no < len(raw)/4096; no++ {
		want = ltx.ChecksumFlag | (want ^ ltx.ChecksumPage(uint32(no+1), raw[no*4096:(no+1)*4096]))
	}
	if got := fmt.Sprintf("%016x", uint64(want)); got != inFile.Checksum {
		t.Errorf("checksum %s, LTX says %s", inFile.Checksum, got)
	}
	if inFile.Rows["item"] != 50 || inFile.Integrity != "ok" {
		t.Errorf("%+v", inFile)
	}
}

func TestStampAndWatch(t *testing.T) {
	db, _ := bank(t)
	c, err := Open(db, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(stampSchema); err != nil {
		t.Fatal(err)
	}
	c.Close()
	watch := start(t, "watch", "--db", db, "--every", "1ms")
	waitFor(t, watch, func(r Report) bool { return r.Count > 0 })
	stamped, err := start(t, "stamp", "--db", db, "--rate", "200", "--count", "100").Wait()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, watch, func(r Report) bool { return r.Seq == 100 })
	seen, err := watch.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if len(stamped.Values) != 100 || len(seen.Values) != 100 {
		t.Fatalf("%d stamps, %d seen", len(stamped.Values), len(seen.Values))
	}
	if took := time.Duration(stamped.Values[99] - stamped.Values[0]); took < 400*time.Millisecond {
		t.Errorf("100 commits at 200/s took %v", took)
	}
}

func TestCheckpoints(t *testing.T) {
	db, record := bank(t)
	b := start(t, "bank", "--db", db, "--oracle", record)
	ck, err := start(t, "checkpoint", "--db", db, "--count", "40").Wait()
	if err != nil {
		t.Fatal(err)
	}
	if int(ck.Count) != len(ck.Values) || ck.Count+ck.Busy != 40 || ck.Count == 0 {
		t.Errorf("%+v", ck)
	}
	if _, err := b.Finish(); err != nil {
		t.Error(err)
	}
}

func TestUnknownApplication(t *testing.T) {
	if code := Main([]string{"nonsense"}, os.Stdout, os.Stderr); code != 2 {
		t.Errorf("exit status %d, want 2", code)
	}
}
