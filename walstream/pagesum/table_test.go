package pagesum_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
)

func open(t *testing.T, path string) *pagesum.Table {
	t.Helper()
	table, err := pagesum.Open(path, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func at(n int) walstream.Position {
	return walstream.Position{Epoch: 1, TXID: walstream.TXID(n), Checksum: 1}
}

// model is what a table should be: a map and a size.
type model struct {
	count uint32
	sums  map[uint32]walstream.Checksum
}

func (m *model) resize(count uint32) {
	m.count = count
	maps.DeleteFunc(m.sums, func(no uint32, _ walstream.Checksum) bool { return no > count })
}

func (m *model) check(t *testing.T, table *pagesum.Table) {
	t.Helper()
	sum := walstream.ChecksumFlag
	for _, s := range m.sums {
		sum = sum.XOR(s)
	}
	if table.PageCount() != m.count || table.Checksum() != sum {
		t.Fatalf("table has %d pages and checksum %s, want %d and %s", table.PageCount(), table.Checksum(), m.count, sum)
	}
	for no := uint32(1); no <= m.count+1; no++ {
		if table.Get(no) != m.sums[no] {
			t.Fatalf("page %d: %s, want %s", no, table.Get(no), m.sums[no])
		}
	}
}

// txn is a random transaction, applied to the model.
type txn struct {
	count uint32
	sums  map[uint32]walstream.Checksum
}

func (m *model) random(rnd *rand.Rand) txn {
	x := txn{count: max(1, m.count), sums: map[uint32]walstream.Checksum{}}
	switch rnd.Intn(4) {
	case 0:
		x.count = 1 + uint32(rnd.Intn(3000))
	case 1:
		x.count += uint32(rnd.Intn(20))
	}
	old := m.count
	m.resize(x.count)
	for no := old + 1; no <= x.count; no++ {
		x.sums[no] = walstream.ChecksumFlag | walstream.Checksum(rnd.Uint64())
	}
	for range rnd.Intn(20) {
		x.sums[1+uint32(rnd.Intn(int(x.count)))] = walstream.ChecksumFlag | walstream.Checksum(rnd.Uint64())
	}
	maps.Copy(m.sums, x.sums)
	return x
}

func (x txn) apply(table *pagesum.Table, pos walstream.Position) {
	u := table.Begin(x.count, nil)
	for no, sum := range x.sums {
		u.Set(no, sum)
	}
	u.Commit(pos)
}

// After every kind of step the table is what the model says; after a crash at
// any moment of a flush, replaying from the position of the file gives the same.
func TestTableCrashes(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	path := filepath.Join(t.TempDir(), "sums")
	table := open(t, path)
	m := model{sums: map[uint32]walstream.Checksum{}}
	var log []txn
	for range 60 {
		for range rnd.Intn(5) {
			x := m.random(rnd)
			log = append(log, x)
			u := table.Begin(x.count, nil)
			for no, sum := range x.sums {
				u.Set(no, sum)
			}
			want := u.Checksum()
			if u.Commit(at(len(log))); table.Checksum() != want {
				t.Fatalf("update said %s, table is %s", want, table.Checksum())
			}
			m.check(t, table)
		}
		before := read(t, path)
		if err := table.FlushCurrent(nil); err != nil {
			t.Fatal(err)
		}
		if got := table.Position(); len(log) > 0 && got != at(len(log)) {
			t.Fatalf("flushed at %s", got)
		}
		crashed := filepath.Join(t.TempDir(), "crashed")
		write(t, crashed, torn(rnd, before, read(t, path)))
		again := open(t, crashed)
		for n := int(again.Position().TXID); n < len(log); n++ {
			log[n].apply(again, at(n+1))
		}
		m.check(t, again)
		again.Close()
	}
}

// torn returns what the disk may hold when a flush is cut off: any of the
// changed blocks, and the slot only if all of them are there.
func torn(rnd *rand.Rand, before, after []byte) []byte {
	const block = 4096
	b := append([]byte(nil), before...)
	all := true
	for off := 2 * block; off < len(after); off += block {
		end := min(off+block, len(after))
		if rnd.Intn(3) == 0 {
			all = false
			continue
		}
		if len(b) < end {
			b = append(b, make([]byte, end-len(b))...)
		}
		copy(b[off:end], after[off:end])
	}
	if all && rnd.Intn(2) == 0 {
		slots := after[:min(2*block, len(after))] // an empty table has no more
		b = append(b, make([]byte, max(len(slots)-len(b), 0))...)
		copy(b, slots)
	}
	return b
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An update that is dropped has not happened.
func TestUpdateDropped(t *testing.T) {
	table := pagesum.New(4096)
	table.Set(1, 5)
	table.Set(3, 7)
	sum := table.Checksum()
	u := table.Begin(2, nil)
	u.Set(1, 6)
	if u.Checksum() == sum {
		t.Error("the update has no effect on its own checksum")
	}
	if table.Checksum() != sum || table.PageCount() != 3 || table.Get(1) != 5 {
		t.Error("the table changed")
	}
	u.Restart()
	u.Set(1, 5)
	if want := walstream.ChecksumFlag | 5; u.Checksum() != want {
		t.Errorf("checksum %s, want %s", u.Checksum(), want)
	}
}

// A damaged file is refused, each way with its error; one damaged slot of two is
// no loss.
func TestOpenDamaged(t *testing.T) {
	good := filepath.Join(t.TempDir(), "sums")
	table := open(t, good)
	for i := range 2 {
		table.Set(uint32(i+1), 9)
		if err := table.Flush(at(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	b := read(t, good) // slot 1 at position 1, slot 0 at position 2
	for name, c := range map[string]struct {
		change func([]byte) []byte
		err    error
		pos    walstream.Position
	}{
		"nothing":     {func(b []byte) []byte { return b }, nil, at(2)},
		"newest slot": {func(b []byte) []byte { b[30]++; return b }, nil, at(1)},
		"older slot":  {func(b []byte) []byte { b[4096+30]++; return b }, nil, at(2)},
		"both slots":  {func(b []byte) []byte { b[30]++; b[4096+30]++; return b }, pagesum.ErrCorrupt, at(0)},
		"version":     {func(b []byte) []byte { b[9]++; b[4096+9]++; return b }, pagesum.ErrVersion, at(0)},
		"cut":         {func(b []byte) []byte { return b[:8192+8] }, pagesum.ErrCorrupt, at(0)},
		"other file":  {func(b []byte) []byte { return []byte("something else, not ours") }, pagesum.ErrCorrupt, at(0)},
	} {
		path := filepath.Join(t.TempDir(), "x")
		write(t, path, c.change(append([]byte(nil), b...)))
		table, err := pagesum.Open(path, 4096)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if err == nil {
			if table.Position() != c.pos {
				t.Errorf("%s: at %s, want %s", name, table.Position(), c.pos)
			}
			table.Close()
		}
	}
	if _, err := pagesum.Open(good, 512); !errors.Is(err, pagesum.ErrPageSize) {
		t.Errorf("other page size: %v", err)
	}
}

// A full disk loses nothing: the file stays good for the position before, and
// the flush succeeds when there is room again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "sums")
	table, err := pagesum.Open(path, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	fill := func(n uint32) {
		for no := uint32(1); no <= n; no++ {
			table.Set(no, walstream.Checksum(no)*3)
		}
	}
	fill(1000)
	if err := table.Flush(at(1)); err != nil {
		t.Fatal(err)
	}
	sum := table.Checksum()
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 40<<10))
	fill(6000)
	if err := table.Flush(at(2)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	if table.Position() != at(1) {
		t.Errorf("at %s", table.Position())
	}
	half := open(t, path)
	if half.Position() != at(1) || half.Checksum() != sum {
		t.Errorf("the file is at %s with checksum %s, want %s", half.Position(), half.Checksum(), sum)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := table.Flush(at(2)); err != nil {
		t.Fatal(err)
	}
	whole := open(t, path)
	if whole.Position() != at(2) || whole.Checksum() != table.Checksum() {
		t.Error("what could not be flushed was lost")
	}
}

// What the log does not have is not flushed.
func TestFlushWaitsForLog(t *testing.T) {
	table := open(t, filepath.Join(t.TempDir(), "sums"))
	table.Begin(0, nil).Commit(at(3))
	broken := errors.New("no log")
	var asked walstream.Position
	err := table.FlushCurrent(func(p walstream.Position) error { asked = p; return broken })
	if !errors.Is(err, broken) || asked != at(3) || !table.Position().IsZero() {
		t.Errorf("%v, asked for %s, at %s", err, asked, table.Position())
	}
}

// Tables are compared by ranges; a change that cancels out in the XOR shows.
func TestRanges(t *testing.T) {
	a, b := pagesum.New(4096), pagesum.New(4096)
	for no := uint32(1); no <= 1000; no++ {
		a.Set(no, walstream.Checksum(no)<<20)
		b.Set(no, walstream.Checksum(no)<<20)
	}
	b.Set(150, b.Get(150)^1)
	b.Set(950, b.Get(950)^1)
	if a.Checksum() != b.Checksum() {
		t.Fatal("the changes should cancel out in the checksum")
	}
	var differ []uint32
	ra, rb := a.Ranges(1000, 100), b.Ranges(1000, 100)
	for i := range ra {
		if ra[i] != rb[i] {
			differ = append(differ, ra[i].First, ra[i].Last)
		}
	}
	if want := []uint32{101, 200, 901, 1000}; len(ra) != 10 || len(differ) != 4 || differ[0] != want[0] || differ[3] != want[3] {
		t.Errorf("%d ranges, %v differ", len(ra), differ)
	}
	b.Resize(949)
	if r := b.Ranges(1000, 1000); r[0] == a.Ranges(1000, 1000)[0] {
		t.Error("a shorter table is taken for equal")
	}
	sums := make([]walstream.Checksum, 10)
	if n := b.Entries(945, sums); n != 5 || sums[4] != b.Get(949) || b.Entries(0, sums) != 0 || b.Entries(950, sums) != 0 {
		t.Errorf("%d entries: %v", n, sums)
	}
}

// A clone goes its own way.
func TestClone(t *testing.T) {
	a := pagesum.New(512)
	a.Begin(0, nil).Commit(at(4))
	a.Set(1, 3)
	c := a.Clone()
	a.Set(1, 4)
	a.Reset()
	if c.Get(1) != 3 || c.PageCount() != 1 || c.Current() != at(4) || c.PageSize() != 512 || a.PageCount() != 0 {
		t.Error("the clone changed with the table")
	}
	if err := c.Flush(at(5)); err != nil {
		t.Error(err)
	}
}

// No file makes Open panic or allocate by a number in it.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "sums")
	table, err := pagesum.Open(path, 4096)
	if err != nil {
		f.Fatal(err)
	}
	table.Set(3, 9)
	if err := table.Flush(at(1)); err != nil {
		f.Fatal(err)
	}
	table.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:4096+60])
	huge := append([]byte(nil), b...)
	binary.BigEndian.PutUint32(huge[4096+16:], 0xffffffff)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		table, err := pagesum.Open(path, 4096)
		if err != nil {
			return
		}
		defer table.Close()
		if int(table.PageCount())*8 > len(b) {
			t.Fatalf("%d pages in %d bytes", table.PageCount(), len(b))
		}
	})
}
