package capture_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

const captureEnv = "CAPTURE_TEST_CAPTURE"

// logFile is a Sink that appends to a file: length, CRC, header as JSON, pages.
type logFile struct{ f *os.File }

func (l logFile) Ship(_ context.Context, t *walstream.Txn) error {
	head, err := json.Marshal(t.Header)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 8), uint32(len(head)))
	b = append(b, head...)
	for p, err := range t.Pages {
		if err != nil {
			return err
		}
		b = append(binary.BigEndian.AppendUint32(b, p.No), p.Data...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:]))
	_, err = l.f.Write(b)
	return err
}

// openLog reads all whole transactions, cuts a torn one, and leaves the file at
// its end.
func openLog(path string, each func(*walstream.Txn) error) (logFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return logFile{}, err
	}
	r := bufio.NewReader(f)
	end := int64(0)
	for {
		var prefix [8]byte
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			break
		}
		b := make([]byte, binary.BigEndian.Uint32(prefix[:]))
		if _, err := io.ReadFull(r, b); err != nil || crc32.ChecksumIEEE(b) != binary.BigEndian.Uint32(prefix[4:]) {
			break
		}
		n := binary.BigEndian.Uint32(b)
		var t walstream.Txn
		if err := json.Unmarshal(b[4:4+n], &t.Header); err != nil {
			return logFile{}, err
		}
		rest, size := b[4+n:], int(t.PageSize)
		t.Pages = func(yield func(walstream.Page, error) bool) {
			for r := rest; len(r) > 0; r = r[4+size:] {
				if !yield(walstream.Page{No: binary.BigEndian.Uint32(r), Data: r[4 : 4+size]}, nil) {
					return
				}
			}
		}
		if err := each(&t); err != nil {
			return logFile{}, err
		}
		end += int64(len(b) + 8)
	}
	if err := f.Truncate(end); err != nil {
		return logFile{}, err
	}
	_, err = f.Seek(end, io.SeekStart)
	return logFile{f}, err
}

// runCaptureProcess captures a database until it is killed. All that it knows is
// in its log and its table.
func runCaptureProcess(path string) error {
	ctx := context.Background()
	db, err := sqlitedb.Open(ctx, path, sqlitedb.Options{})
	if err != nil {
		return err
	}
	table, err := pagesum.Open(path+".sums", db.PageSize())
	if err != nil {
		return err
	}
	from := table.Position()
	cfg := capture.Config{DB: db, Name: "app", Epoch: 1, Table: table, ForceFrames: 500, CheckpointFrames: 100}
	log, err := openLog(path+".log", func(t *walstream.Txn) error {
		cfg.Start, cfg.Place = t.Post, t.Place
		if t.Post.Compare(from) <= 0 {
			return nil
		}
		u := table.Begin(t.PageCount, nil)
		for p := range t.Pages {
			u.Set(p.No, pagesum.Page(p.No, p.Data))
		}
		u.Commit(t.Post)
		return nil
	})
	if err != nil {
		return err
	}
	if table.PageCount() > 0 && table.Checksum() != cfg.Start.Checksum {
		return fmt.Errorf("table from %s has checksum %s after the log, which is at %s", from, table.Checksum(), cfg.Start)
	}
	cfg.Sink = log
	c, err := capture.New(cfg)
	if err != nil {
		return err
	}
	word := "resumed"
	if err = c.Resume(ctx); errors.Is(err, capture.ErrDiscontinuous) {
		word = "rebased: " + err.Error()
		_, err = c.Rebase(ctx)
	}
	if err != nil {
		return err
	}
	fmt.Println(word)
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			if err := table.FlushCurrent(nil); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	return c.Run(ctx)
}

// Capture is killed at random instants while the application goes on, with
// restarts of the WAL in between: everything is captured in the end, by
// continuity or by the scan.
func TestKilled(t *testing.T) {
	path := newDatabase(t)
	seed := newSeed(t)
	rnd := rand.New(rand.NewSource(seed))
	wait := startApp(t, appSpec{Path: path, Workload: "mixed", Seed: seed, Checkpoints: 100, PauseMicros: 500})
	words := map[string]int{}
	for range scale(12, 100) {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), captureEnv+"="+path)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		word := "killed before"
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		if rnd.Intn(4) == 0 {
			kill.Reset(time.Duration(rnd.Intn(60)) * time.Millisecond)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err == nil {
			word, _, _ = strings.Cut(strings.TrimSpace(line), ":")
			kill.Reset(time.Duration(rnd.Intn(150)) * time.Millisecond)
		}
		io.Copy(io.Discard, out)
		cmd.Wait()
		if errs.Len() > 0 {
			t.Fatalf("capture process: %s", &errs)
		}
		words[word]++
		if rnd.Intn(3) == 0 {
			time.Sleep(time.Duration(rnd.Intn(100)) * time.Millisecond) // the application goes on alone
		}
	}
	r := wait()
	t.Logf("%d commits, captures: %v", len(r.IDs), words)

	w := newWorld(t, path)
	if _, err := openLog(path+".log", func(x *walstream.Txn) error {
		u := w.table.Begin(x.PageCount, nil)
		for p := range x.Pages {
			u.Set(p.No, pagesum.Page(p.No, p.Data))
		}
		u.Commit(x.Post)
		return w.oracle.Ship(t.Context(), x)
	}); err != nil {
		t.Fatal(err)
	}
	w.begin(nil)
	w.finish(r.IDs)
}

// What the application commits while capture is away is found again, by its
// place or by the scan.
func TestAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []string
		want   bool // by its place
	}{
		{"nothing", nil, true},
		{"one commit", []string{"insert into log values(1)"}, true},
		{"copied, not restarted", []string{"insert into log values(1)", "pragma wal_checkpoint(full)"}, true},
		{"restarted", []string{"insert into log values(1)", "pragma wal_checkpoint(restart)", "insert into t(v) values(2)"}, false},
		{"cut", []string{"insert into log values(1)", "pragma wal_checkpoint(truncate)"}, false},
		{"restarted often", []string{"insert into log values(1)", "pragma wal_checkpoint(truncate)", "delete from t",
			"pragma wal_checkpoint(restart)", "insert into t(v) values(zeroblob(90000))", "pragma wal_checkpoint(restart)",
			"insert into t(v) values(1)", "vacuum"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newDatabase(t)
			// Another connection stays, so that the shell is not the last one out.
			other, err := sqlitedb.Open(t.Context(), path, sqlitedb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			w := &world{t: t, path: path, oracle: newOracle(), db: other, table: pagesum.New(other.PageSize())}
			w.begin(nil)
			shell(t, path, "insert into t(v) values(1)")
			w.settle()
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			shell(t, path, c.script...)
			w.make(nil)
			err = w.c.Resume(t.Context())
			if got := err == nil; got != c.want || err != nil && !errors.Is(err, capture.ErrDiscontinuous) {
				t.Fatalf("resume: %v, want success %v", err, c.want)
			}
			var d *capture.Discontinuity
			if errors.As(err, &d) && !d.SameFile {
				t.Fatalf("%v: said to be another file", err)
			}
			if err != nil {
				if _, err := w.c.Rebase(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			w.run()
			var ids []int64
			if c.script != nil {
				ids = []int64{1}
			}
			w.finish(ids)
		})
	}
}

// A database that is restored over while capture is away, in place or by
// another file, is new content on top, whatever is left of its WAL.
func TestRestoredOver(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, backup, path string)
	}{
		{"copied over, WAL removed", func(t *testing.T, backup, path string) {
			copyFile(t, backup, path)
			os.Remove(path + "-wal")
			os.Remove(path + "-shm")
		}},
		{"copied over, WAL left", func(t *testing.T, backup, path string) { copyFile(t, backup, path) }},
		{"renamed over", func(t *testing.T, backup, path string) {
			copyFile(t, backup, path+".new")
			os.Remove(path + "-wal")
			os.Remove(path + "-shm")
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"by the backup interface", func(t *testing.T, backup, path string) {
			shell(t, path, ".restore '"+backup+"'")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newDatabase(t)
			backup := filepath.Join(t.TempDir(), "backup.db")
			shell(t, path, "insert into log values(7)", "insert into t(v) values(zeroblob(50000))", "pragma wal_checkpoint(truncate)")
			copyFile(t, path, backup)
			w := newWorld(t, path)
			w.begin(nil)
			shell(t, path, "delete from log", "insert into t(v) values(randomblob(30000))", "create table other(a)",
				"pragma wal_checkpoint(truncate)", "insert into t(v) values(1)")
			w.settle()
			if err := errors.Join(w.stop(), w.db.Close()); err != nil {
				t.Fatal(err)
			}
			c.do(t, backup, path)
			w.openDB()
			w.make(nil)
			if err := w.c.Resume(t.Context()); c.name != "by the backup interface" && !errors.Is(err, capture.ErrDiscontinuous) {
				t.Fatalf("resume: %v", err)
			} else if err != nil {
				if _, err := w.c.Rebase(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			w.run()
			if c.name == "copied over, WAL left" {
				// SQLite sees old frames on top of the file: no sound database, but it is
				// captured as SQLite reads it.
				w.settle()
				return
			}
			w.finish([]int64{7})
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
