package sqlitefile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func (f *files) writer(t *testing.T) *sqlitefile.Writer {
	t.Helper()
	h, _ := f.index.Header()
	w := sqlitefile.NewWriter(sqlitefile.Files{Main: f.main, Wal: f.wal, Shm: f.shm, Index: f.index, PageSize: h.PageSize})
	if err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Release() })
	return w
}

// source is a database changed by the sqlite3 shell only; no connection of this
// process is ever open on it, so it may be read as a plain file.
type source struct {
	path     string
	pageSize int
}

func newSource(t *testing.T, pageSize string) *source {
	s := &source{path: filepath.Join(t.TempDir(), "source.db")}
	fmt.Sscan(pageSize, &s.pageSize)
	s.run(t, "pragma page_size="+pageSize+"; pragma journal_mode=wal; create table t(k integer primary key, v)")
	return s
}

func (s *source) run(t *testing.T, script string) []byte {
	t.Helper()
	if out, err := exec.Command("sqlite3", s.path, script).CombinedOutput(); err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", script, err, out)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ship writes the difference between two states of the source as a transaction.
func ship(t *testing.T, w *sqlitefile.Writer, pageSize int, old, now []byte) {
	t.Helper()
	for off := 0; off < len(now); off += pageSize {
		page := now[off : off+pageSize]
		if off < len(old) && bytes.Equal(page, old[off:off+pageSize]) {
			continue
		}
		if err := w.Page(uint32(off/pageSize)+1, page); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(uint32(len(now)/pageSize), false); err != nil {
		t.Fatal(err)
	}
}

// Transactions of another database, with growth, shrinking and many index
// blocks, read by two versions of SQLite.
func TestWriterPageSizes(t *testing.T) {
	for _, size := range []string{"512", "1024", "4096", "65536"} {
		t.Run(size, func(t *testing.T) {
			f, s := openFiles(t, size), newSource(t, size)
			w := f.writer(t)
			var old []byte
			steps := []string{
				"insert into t values(1,'one')",
				"with recursive n(i) as (select 10 union all select i+1 from n where i<3000) insert into t select i, hex(randomblob(200)) from n",
				"create index i on t(v); delete from t where k%3=0",
				"delete from t where k>100; vacuum",
				"insert into t values(5000, zeroblob(2000000))",
				"create table u as select * from t",
			}
			for i, step := range steps {
				now := s.run(t, step)
				ship(t, w, s.pageSize, old, now)
				old = now
				checkWAL(t, f)
				want := runShell(t, s.path, "select count(*), sum(length(v)), sum(k) from t")
				got := f.shell(t, "pragma integrity_check; select count(*), sum(length(v)), sum(k) from t")
				if got != "ok\n"+want {
					t.Fatalf("step %d: %q, want %q", i, got, want)
				}
				var n int
				if err := f.conn.QueryRowContext(t.Context(), "select count(*) from t").Scan(&n); err != nil || !strings.HasPrefix(want, fmt.Sprint(n, "|")) {
					t.Fatalf("step %d: our connection sees %d rows, %v, want %s", i, n, err, want)
				}
				if i%2 == 1 {
					f.exec(t, "pragma wal_checkpoint(passive)")
					if done, err := restart(w); err != nil || !done {
						t.Fatalf("step %d: restart: %v %v; %+v, backfill %d", i, done, err, w.Header(), f.index.Backfill())
					}
				}
			}
			out, err := exec.Command("sqlite3", f.path, "insert into t values(1,2)").CombinedOutput()
			if err == nil || !strings.Contains(string(out), "locked") {
				t.Fatalf("another process wrote while the write lock was ours: %v %s", err, out)
			}
		})
	}
}

// restart tries once, without waiting for readers.
func restart(w *sqlitefile.Writer) (bool, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return w.Restart(ctx, 1<<30)
}

func runShell(t *testing.T, path, script string) string {
	t.Helper()
	return (&files{path: path}).shell(t, script)
}

// A transaction that is given up leaves no trace, neither for readers nor for a
// recovery from the WAL alone.
func TestWriterAbort(t *testing.T) {
	f, s := openFiles(t, "512"), newSource(t, "512")
	w := f.writer(t)
	one := s.run(t, "insert into t values(1,'one')")
	ship(t, w, 512, nil, one)
	before := f.shell(t, "select count(*) from t")
	h := w.Header()

	for round := range 3 {
		for no := uint32(1); no < 3000; no++ {
			if err := w.Page(no, bytes.Repeat([]byte{byte(round)}, 512)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
		if got, ok := f.index.Header(); !ok || got != h {
			t.Fatalf("header %+v, was %+v", got, h)
		}
	}
	checkWAL(t, f)
	copyPath := filepath.Join(t.TempDir(), "copy.db")
	f.copyTo(t, copyPath)
	if got := runShell(t, copyPath, "pragma integrity_check; select count(*) from t"); got != "ok\n"+before {
		t.Fatalf("recovered from the WAL alone: %q, want %q rows", got, before)
	}
	ship(t, w, 512, one, s.run(t, "insert into t values(2,'two')"))
	checkWAL(t, f)
}

// copyTo copies database and WAL without the index, as another process would
// find them after a power loss. It reads through the descriptors at hand.
func (f *files) copyTo(t *testing.T, path string) {
	t.Helper()
	for file, name := range map[*os.File]string{f.main: path, f.wal: path + "-wal"} {
		st, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, st.Size())
		if _, err := file.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A header that a dying writer left torn is found, SQLite recovers it, and then
// writing goes on.
func TestWriterTornIndex(t *testing.T) {
	f, s := openFiles(t, "4096"), newSource(t, "4096")
	w := f.writer(t)
	one := s.run(t, "insert into t values(1,'one')")
	ship(t, w, 4096, nil, one)
	h := w.Header()
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.shm.WriteAt([]byte{1, 2, 3}, 48+16); err != nil { // only the second copy
		t.Fatal(err)
	}
	if err := w.Acquire(t.Context()); !errors.Is(err, sqlitefile.ErrTornIndex) {
		t.Fatalf("torn index: %v", err)
	}
	if _, held, _ := sqlitefile.Holder(f.shm, sqlitefile.LockWrite); held {
		t.Fatal("write lock still held")
	}
	f.exec(t, "select * from t")
	if err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.Header(); got.MaxFrame != h.MaxFrame || got.Cksum != h.Cksum || got.Salt != h.Salt {
		t.Fatalf("recovered %+v, was %+v", got, h)
	}
	ship(t, w, 4096, one, s.run(t, "insert into t values(2,'two')"))
	if got := f.shell(t, "select count(*) from t"); got != "2" {
		t.Fatalf("%s rows", got)
	}
}

// What a writer that died left in the hash table beyond the committed frames
// is removed before anything is added.
func TestWriterLeftovers(t *testing.T) {
	f, s := openFiles(t, "512"), newSource(t, "512")
	w := f.writer(t)
	one := s.run(t, "insert into t values(1,'one')")
	ship(t, w, 512, nil, one)
	for no := uint32(1); no < 4000; no++ { // flushed in part, never committed
		if err := w.Page(no, make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
	}
	next := f.index.PageNo(w.Header().MaxFrame + 1)
	if next == 0 {
		t.Fatal("nothing of the transaction is in the index yet: the test tests nothing")
	}
	// The dead writer's lock is gone with it; a new one starts from what is there.
	if err := sqlitefile.Unlock(f.shm, sqlitefile.LockWrite, 1); err != nil {
		t.Fatal(err)
	}
	w2 := f.writer(t)
	if n := f.index.PageNo(w2.Header().MaxFrame + 1); n != 0 {
		t.Fatalf("frame beyond the end still noted: page %d", n)
	}
	ship(t, w2, 512, one, s.run(t, "insert into t values(2,'two')"))
	checkWAL(t, f)
	if got := f.shell(t, "pragma integrity_check; select count(*) from t"); got != "ok\n2" {
		t.Fatal(got)
	}
}

// The WAL restarts only if all is copied and no reader needs it.
func TestWriterRestartRules(t *testing.T) {
	f, s := openFiles(t, "4096"), newSource(t, "4096")
	w := f.writer(t)
	ship(t, w, 4096, nil, s.run(t, "insert into t values(1,'one')"))
	expect := func(want bool, why string) {
		t.Helper()
		if done, err := restart(w); err != nil || done != want {
			t.Fatalf("%s: restarted %v, %v", why, done, err)
		}
	}
	expect(false, "nothing copied")
	f.exec(t, "begin", "select * from t") // on a mark
	f.shell(t, "pragma wal_checkpoint(passive)")
	expect(false, "a reader on a mark")
	f.exec(t, "commit", "pragma wal_checkpoint(passive)", "begin", "select * from t") // on lock 0
	before := w.Header()
	expect(true, "all copied, a reader on lock 0")
	after := w.Header()
	if after.Salt == before.Salt || after.MaxFrame != 0 || f.index.Backfill() != 0 {
		t.Fatalf("%+v became %+v", before, after)
	}
	expect(true, "already empty")
	f.exec(t, "commit")
	if got := f.shell(t, "pragma integrity_check; select count(*) from t"); got != "ok\n1" {
		t.Fatal(got)
	}
}

// A checkpoint of another process in the middle of its work forbids a restart.
func TestWriterRestartNeedsCheckpointLock(t *testing.T) {
	f, s := openFiles(t, "4096"), newSource(t, "4096")
	w := f.writer(t)
	ship(t, w, 4096, nil, s.run(t, "insert into t values(1,'one')"))
	f.exec(t, "pragma wal_checkpoint(passive)")
	other := startHolder(t, f.path+"-shm", sqlitefile.LockCheckpoint)
	if done, err := restart(w); err != nil || done {
		t.Fatalf("restarted beside a checkpoint: %v %v", done, err)
	}
	other()
	if done, err := restart(w); err != nil || !done {
		t.Fatalf("not restarted: %v %v", done, err)
	}
}

// startHolder has another process take a POSIX lock until the returned
// function is called.
func startHolder(t *testing.T, shm string, off int) func() {
	t.Helper()
	script := fmt.Sprintf(`import fcntl,sys
f=open(sys.argv[1],'r+b')
fcntl.lockf(f, fcntl.LOCK_EX, 1, %d)
print('held', flush=True)
sys.stdin.read()`, off)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "python3", "-c", script, shm)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Skipf("python3: %v", err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	stop := func() { in.Close(); cmd.Wait(); cancel() }
	t.Cleanup(stop)
	return stop
}

// The WAL ends in a frame that the index does not know: no appending.
func TestWriterRefusesForeignWAL(t *testing.T) {
	f := openFiles(t, "4096", "insert into t values(1,1)")
	h, _ := f.index.Header()
	if _, err := f.wal.WriteAt([]byte{9}, sqlitefile.FrameOffset(h.MaxFrame, 4096)+16); err != nil {
		t.Fatal(err)
	}
	w := sqlitefile.NewWriter(sqlitefile.Files{Main: f.main, Wal: f.wal, Shm: f.shm, Index: f.index, PageSize: 4096})
	if err := w.Acquire(t.Context()); !errors.Is(err, sqlitefile.ErrWALDiffers) {
		t.Fatalf("got %v", err)
	}
	if _, held, _ := sqlitefile.Holder(f.shm, sqlitefile.LockWrite); held {
		t.Fatal("write lock still held")
	}
}

// A writer that died in the middle of a restart leaves a count of copied frames
// that would hide the new generation's first frames from readers.
func TestWriterTornRestart(t *testing.T) {
	f, s := openFiles(t, "4096"), newSource(t, "4096")
	w := f.writer(t)
	one := s.run(t, "insert into t values(1,'one')")
	ship(t, w, 4096, nil, one)
	f.exec(t, "pragma wal_checkpoint(passive)")
	if done, err := restart(w); err != nil || !done {
		t.Fatal(done, err)
	}
	if err := w.Release(); err != nil {
		t.Fatal(err)
	}
	var count [4]byte
	binary.NativeEndian.PutUint32(count[:], 77)
	if _, err := f.shm.WriteAt(count[:], 96); err != nil {
		t.Fatal(err)
	}
	if err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	ship(t, w, 4096, one, s.run(t, "insert into t values(2,'two')"))
	if got := f.shell(t, "pragma integrity_check; select count(*) from t"); got != "ok\n2" {
		t.Fatal(got)
	}
}

// The mark is read without a lock while others write and the WAL restarts.
func TestCurrentMark(t *testing.T) {
	f := openFiles(t, "512")
	w := f.writer(t)
	files := sqlitefile.Files{Main: f.main, Wal: f.wal, Shm: f.shm, Index: f.index, PageSize: 512}
	page := make([]byte, 512)
	for i := range 200 {
		if err := w.ReadPage(1, page); err != nil {
			t.Fatal(err)
		}
		mark := sqlitefile.MarkWAL
		if i%2 == 0 {
			mark = sqlitefile.MarkFenced
		}
		sqlitefile.SetMark(page, mark)
		if err := w.Page(1, page); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(2, false); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			f.exec(t, "pragma wal_checkpoint(passive)")
			if done, err := restart(w); err != nil || !done {
				t.Fatal(done, err)
			}
		}
		if got, err := sqlitefile.CurrentMark(files); err != nil || got != mark {
			t.Fatalf("mark %d, %v, want %d", got, err, mark)
		}
	}
}

// Where the database file or the WAL are cut short, or things are asked for that
// can't be, there is an error, and nothing is committed.
func TestWriterMisuse(t *testing.T) {
	f := openFiles(t, "4096", "insert into t values(1,1)")
	h, _ := f.index.Header()
	w := sqlitefile.NewWriter(sqlitefile.Files{Main: f.main, Wal: f.wal, Shm: f.shm, Index: f.index, PageSize: 4096})
	page := make([]byte, 4096)
	if err := w.Page(1, page); err == nil {
		t.Error("a page without the lock")
	}
	if _, err := restart(w); err == nil {
		t.Error("a restart without the lock")
	}
	if err := w.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer w.Release()
	if err := w.Page(0, page); err == nil {
		t.Error("page 0")
	}
	if err := w.Page(1, page[:100]); err == nil {
		t.Error("a short page")
	}
	if _, err := w.Commit(2, false); err == nil {
		t.Error("a commit of nothing")
	}
	if err := w.Page(1, page); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(0, false); err == nil {
		t.Error("a database of no pages")
	}
	if _, err := restart(w); err == nil {
		t.Error("a restart within a transaction")
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if got, ok := f.index.Header(); !ok || got != h {
		t.Fatalf("%+v became %+v", h, got)
	}
	if err := w.ReadPage(5000, page); err != nil || !bytes.Equal(page, make([]byte, 4096)) {
		t.Fatalf("a page beyond the end: %v", err)
	}
}
