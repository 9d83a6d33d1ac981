package apply_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/pagesum"
)

// names lists a directory.
func names(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, e := range entries {
		s = append(s, e.Name())
	}
	return strings.Join(s, " ")
}

func TestCreate(t *testing.T) {
	s, first := newSource(t, 4096, "create table t(k integer primary key, v)", "insert into t values(1,'one')")
	_ = s
	dir, aside := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "copy.db")
	table := pagesum.New(4096)
	err := apply.Create(t.Context(), path, &first.Header, first.Pages, apply.CreateOptions{
		Dir: aside, FileMode: 0o660, FileGroup: os.Getgid(), Table: table,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir) + "/" + names(t, aside); got != "copy.db/" {
		t.Fatalf("left: %s", got)
	}
	if table.Current() != first.Post || table.Checksum() != first.Post.Checksum {
		t.Fatalf("table at %s with %s, want %s", table.Current(), table.Checksum(), first.Post)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Fatalf("mode %s, %v", st.Mode(), err)
	}
	if got := shell(t, path, "pragma integrity_check; select * from t"); got != "ok\n1|one" {
		t.Fatal(got)
	}
	if got, err := tryShell(path, "insert into t values(2,2)"); err == nil || !strings.Contains(got, readonly) {
		t.Fatalf("a new copy can be written to: %v %s", err, got)
	}
}

// What can't be a copy leaves nothing behind, and what is there stays.
func TestCreateRefuses(t *testing.T) {
	_, first := newSource(t, 4096, "create table t(k)")
	dir := t.TempDir()
	path := filepath.Join(dir, "copy.db")
	with := func(change func(*walstream.Txn)) *walstream.Txn {
		txn := *first
		change(&txn)
		return &txn
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		ctx  context.Context
		txn  *walstream.Txn
		file string
		want error
	}{
		"file":      {t.Context(), first, path, apply.ErrExists},
		"wal":       {t.Context(), first, path + "-wal", apply.ErrExists},
		"journal":   {t.Context(), first, path + "-journal", apply.ErrExists},
		"checksum":  {t.Context(), with(func(t *walstream.Txn) { t.Post.Checksum ^= 4 }), "", apply.ErrChecksum},
		"page size": {t.Context(), with(func(t *walstream.Txn) { t.PageSize = 1000 }), "", apply.ErrMalformed},
		"no pages":  {t.Context(), with(func(t *walstream.Txn) { t.PageCount = 0 }), "", apply.ErrMalformed},
		"too short": {t.Context(), with(func(t *walstream.Txn) { t.PageCount = 1 }), "", apply.ErrMalformed},
		"cancelled": {cancelled, first, "", context.Canceled},
		"not walked": {t.Context(), with(func(t *walstream.Txn) {
			t.Pages = func(y func(walstream.Page, error) bool) { y(walstream.Page{}, broken) }
		}), "", broken},
	} {
		if tt.file != "" {
			if err := os.WriteFile(tt.file, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := apply.Create(tt.ctx, path, &tt.txn.Header, tt.txn.Pages, apply.CreateOptions{})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if tt.file != "" {
			if b, err := os.ReadFile(tt.file); err != nil || string(b) != "precious" {
				t.Errorf("%s: %q %v", name, b, err)
			}
			os.Remove(tt.file)
		}
		if left := names(t, dir); left != "" {
			t.Errorf("%s left %s", name, left)
		}
	}
}

// Pages that are not given are zeros, with the checksums of zeros.
func TestCreateHoles(t *testing.T) {
	one := bytes.Repeat([]byte{7}, 512)
	copy(one, "SQLite format 3\x00\x02\x00\x02\x02")
	table := pagesum.New(512)
	sum := walstream.ChecksumFlag
	for no := uint32(1); no <= 9; no++ {
		data := make([]byte, 512)
		if no == 1 || no == 4 {
			data = one
		}
		sum = sum.XOR(pagesum.Page(no, data))
	}
	h := walstream.Header{Kind: walstream.KindPages, PageSize: 512, PageCount: 9, Post: walstream.Position{Epoch: 1, TXID: 1, Checksum: sum}}
	path := filepath.Join(t.TempDir(), "copy.db")
	err := apply.Create(t.Context(), path, &h, pagesOf(map[uint32][]byte{1: one, 4: one}), apply.CreateOptions{Table: table})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 9*512 || !bytes.Equal(b[3*512:4*512], one) || !bytes.Equal(b[8*512:], make([]byte, 512)) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if table.PageCount() != 9 || table.Checksum() != sum {
		t.Fatalf("%d pages, %s", table.PageCount(), table.Checksum())
	}
}

func TestRemoveLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".lsnode-new-copy.db-123", "copy.db", ".other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply.RemoveLeftovers(dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != ".other copy.db" {
		t.Fatal(got)
	}
}

// smallDisk mounts a file system of a few pages; only root can.
func smallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fill leaves so many bytes free on a small disk, and returns how to free it.
func fill(t testing.TB, dir string, leave int64) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if n := int64(st.Bavail)*st.Bsize - leave; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	return func() { os.Remove(name) }
}

// A full disk is an error, nothing half-written is seen, and afterwards it goes
// on: in the WAL, and where the wal-index has to grow.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "8m")
	s, first := newSource(t, 512, "create table t(k integer primary key, v)")
	c := open(t, create(t, dir, first), nil)
	var kinds [2]int
	for i := 0; c.Stats().Frames < 4200; i++ {
		sql, leave := "insert into t values(null, hex(randomblob(100)))", int64(8192)
		near := c.Stats().Frames > 4040 && c.Stats().Frames < 4070
		if i == 100 {
			sql, leave = bigInsert, 65536 // fails in the middle of the frames
		} else if c.Stats().Frames < 3900 {
			sql = "insert into t select null, hex(randomblob(100)) from t limit 20; insert into t values(null,1)"
		}
		txn := s.step(t, sql)
		if i == 100 || near {
			before := shell(t, c.path, "select count(*) from t")
			free := fill(t, dir, leave)
			err := c.Apply(t.Context(), txn)
			if err == nil {
				free()
				continue
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			kinds[map[bool]int{true: 1}[strings.Contains(err.Error(), "grow wal-index")]]++
			if got := shell(t, c.path, "pragma integrity_check; select count(*) from t"); got != "ok\n"+before {
				t.Fatalf("on a full disk: %s, want %s rows", got, before)
			}
			free()
		}
		c.mustApply(t, txn)
	}
	if kinds[0] == 0 || kinds[1] == 0 {
		t.Fatalf("the disk was full %d times for frames, %d times for the index", kinds[0], kinds[1])
	}
	same(t, s, c.path, "select * from t")
}

// The mark can't be written: the lock is kept, and the fence is put up later.
func TestFenceFullDisk(t *testing.T) {
	dir := smallDisk(t, "1m")
	path := filepath.Join(dir, "app.db")
	shell(t, path, "pragma journal_mode=wal; create table t(k integer primary key, v)")
	c := guardOf(t, path)
	free := fill(t, dir, 0)
	err := c.Fence(t.Context())
	if !errors.Is(err, unix.ENOSPC) || !c.Fenced() {
		t.Fatalf("fence on a full disk: %v; lock held: %v", err, c.Fenced())
	}
	if got, err := tryShell(path, "pragma busy_timeout=0; insert into t values(1,1)"); err == nil || !strings.Contains(got, "locked") {
		t.Fatalf("%v %s", err, got)
	}
	free()
	if err := c.Fence(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := tryShell(path, "insert into t values(1,1)"); err == nil || !strings.Contains(got, readonly) {
		t.Fatalf("%v %s", err, got)
	}
}
