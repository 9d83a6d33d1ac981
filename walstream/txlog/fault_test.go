package txlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
)

// A full disk: an append fails, nothing of it is seen, and the log goes on once
// there is room.
func TestFullDisk(t *testing.T) {
	for _, pages := range []int{2, 600} {
		steps := 40
		if pages > 2 || testing.Short() {
			steps = 9
		}
		for room := 0; room < pages*pageSize; room += pages * pageSize / steps {
			rnd := newRand(t, 1)
			m := newMemFS(rnd)
			o := Options{SegmentSize: 5 << 10, fs: m}
			l := openLog(t, t.TempDir(), o)
			want := fill(t, l, rnd, "a", 3)
			fill(t, l, rnd, "b", 2)
			m.room = room
			x := txn(rnd, "a", l.Last("a"), pages)
			if err := l.Append(x, nil); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("room for %d: %v", room, err)
			}
			expect(t, l, "a", walstream.Position{}, want)
			if err := l.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.room = -1
			if err := l.Append(x, nil); err != nil {
				t.Fatal(err)
			}
			want = append(want, x)
			want = append(want, fill(t, l, rnd, "a", 2)...)
			expect(t, l, "a", walstream.Position{}, want)
			l = reopen(t, l, t.TempDir(), o)
			expect(t, l, "a", walstream.Position{}, want)
		}
	}
}

// The same on a real small disk; and what does not fit gives its room back.
func TestFullTmpfs(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	rnd := newRand(t, 1)
	o := Options{SegmentSize: 300 << 10}
	l := openLog(t, dir, o)
	want := fill(t, l, rnd, "a", 500)
	for range 3 {
		x := txn(rnd, "a", l.Last("a"), 4000)
		if _, err := l.AppendStream(&x.Header, x.Pages); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
		want = append(want, fill(t, l, rnd, "a", 100)...)
	}
	var err error
	for err == nil {
		y := txn(rnd, "a", l.Last("a"), 1)
		if err = l.Append(y, nil); err == nil {
			want = append(want, y)
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	expect(t, l, "a", walstream.Position{}, want)
	keep := want[len(want)-10].Post
	if d, err := l.Trim(func(string) walstream.Position { return keep }, 0); err != nil || len(d) != 1 {
		t.Fatalf("trim a full disk: %v, %v", d, err)
	}
	fill(t, l, rnd, "a", 100)
	l = reopen(t, l, dir, o)
	expect(t, l, "a", keep, append(want[len(want)-9:len(want):len(want)], after(t, l, want[len(want)-1].Post)...))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// after returns what a log has after a position; only of small transactions.
func after(t *testing.T, l *Log, pos walstream.Position) []*walstream.Txn {
	var out []*walstream.Txn
	for x, err := range l.Since("a", pos) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// No fsync is ever tried again as if nothing had been.
func TestFailedSync(t *testing.T) {
	rnd := newRand(t, 1)
	m := newMemFS(rnd)
	o := Options{SegmentSize: 5 << 10, fs: m}
	l := openLog(t, t.TempDir(), o)
	want := fill(t, l, rnd, "a", 1)
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	more := fill(t, l, rnd, "a", 1)
	m.syncErr = unix.EIO
	if err := l.Sync(t.Context()); !errors.Is(err, ErrFailed) || !errors.Is(err, unix.EIO) {
		t.Errorf("sync: %v", err)
	}
	m.syncErr = nil
	if err := l.Sync(t.Context()); !errors.Is(err, ErrFailed) {
		t.Errorf("sync again: %v", err)
	}
	if err := l.Append(txn(rnd, "a", l.Last("a"), 1), nil); !errors.Is(err, ErrFailed) {
		t.Errorf("append: %v", err)
	}
	if got := l.Durable("a"); got != want[0].Post {
		t.Errorf("durable is %v", got)
	}
	expect(t, l, "a", walstream.Position{}, append(want, more...))
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	// What the failed fsync had dropped is on disk once the log has been opened.
	want = append(want, more...)
	l = openLog(t, t.TempDir(), o)
	expect(t, l, "a", walstream.Position{}, want)
	l = openLog(t, t.TempDir(), Options{fs: m.crash()})
	expect(t, l, "a", walstream.Position{}, want)
	fill(t, l, rnd, "a", 1)
	if err := l.Sync(context.Background()); err != nil {
		t.Error(err)
	}
}

// What can't be taken back makes the log fail.
func TestFailedTruncate(t *testing.T) {
	rnd := newRand(t, 1)
	m := newMemFS(rnd)
	l := openLog(t, t.TempDir(), Options{fs: m})
	fill(t, l, rnd, "a", 1)
	m.room, m.truncErr = 100, unix.EIO
	if err := l.Append(txn(rnd, "a", l.Last("a"), 1), nil); !errors.Is(err, ErrFailed) {
		t.Errorf("append: %v", err)
	}
	m.room, m.truncErr = -1, nil
	if err := l.Append(txn(rnd, "a", l.Last("a"), 1), nil); !errors.Is(err, ErrFailed) {
		t.Errorf("append again: %v", err)
	}
}

// segments returns the segment files of a directory.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files
}

func flip(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// Damage to what had been durable is found when it is read, in a sealed
// segment, and at the start in the last one. It is never taken for a torn tail.
func TestDamage(t *testing.T) {
	rnd := newRand(t, 1)
	dir := t.TempDir()
	o := Options{SegmentSize: 4 << 10}
	l := openLog(t, dir, o)
	for range 10 {
		fill(t, l, rnd, "a", 1)
		if err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files := segments(t, dir)
	flip(t, files[0], 600)
	l = openLog(t, dir, o)
	var last error
	for _, err := range l.Since("a", walstream.Position{}) {
		last = err
	}
	var damage *CorruptError
	if !errors.As(last, &damage) || !errors.Is(last, walstream.ErrCorrupt) || damage.File != filepath.Base(files[0]) || damage.Offset == 0 {
		t.Errorf("damaged sealed segment: %v", last)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tail := files[len(files)-1]
	before, _ := os.ReadFile(tail)
	flip(t, tail, 900)
	if _, err := Open(dir, o); !errors.As(err, &damage) || damage.File != filepath.Base(tail) {
		t.Errorf("damaged last segment: %v", err)
	}
	flip(t, tail, 900)
	after, _ := os.ReadFile(tail)
	if string(before) != string(after) {
		t.Error("the damaged segment was changed")
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, o); !errors.Is(err, walstream.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(files[1])) {
		t.Errorf("missing segment: %v", err)
	}
}

// A record of a later version is no torn tail either.
func TestUnknownVersion(t *testing.T) {
	rnd := newRand(t, 1)
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	fill(t, l, rnd, "a", 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := segments(t, dir)[0]
	b, _ := os.ReadFile(name)
	at := segmentHeader + markSize
	b[at+4] = 2
	be.PutUint32(b[at+24:], crcOf(b[at:at+24]))
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, walstream.ErrVersion) {
		t.Errorf("record of version 2: %v", err)
	}
	b[at+4] = 1
	be.PutUint32(b[8:], 2)
	be.PutUint32(b[32:], crcOf(b[:32]))
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, walstream.ErrVersion) {
		t.Errorf("segment of version 2: %v", err)
	}
}

// The tail is cut at any byte: what is whole before it stays.
func TestTornTail(t *testing.T) {
	rnd := newRand(t, 1)
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	var ends []int64
	var all []*walstream.Txn
	for range 3 {
		all = append(all, fill(t, l, rnd, "a", 1)...)
		ends = append(ends, l.tailLocked().end)
	}
	name := segments(t, dir)[0]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut <= int64(len(whole)); cut += 7 {
		for _, tail := range []string{"", strings.Repeat("\x00", 300), strings.Repeat("LSTX", 50)} {
			b := append(whole[:cut:cut], tail...)
			m := newMemFS(rnd)
			m.files[filepath.Base(name)] = newMemFile(m, b)
			n := 0
			for n < len(ends) && ends[n] <= cut {
				n++
			}
			l, err := Open(t.TempDir(), Options{fs: m})
			if err != nil {
				t.Fatalf("cut to %d bytes: %v", cut, err)
			}
			expect(t, l, "a", walstream.Position{}, all[:n])
			more := fill(t, l, rnd, "a", 1)
			expect(t, l, "a", walstream.Position{}, append(all[:n:n], more...))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A footer torn by a crash is nothing lost, even if what follows is durable.
func TestTornFooter(t *testing.T) {
	rnd := newRand(t, 1)
	dir := t.TempDir()
	o := Options{SegmentSize: 4 << 10}
	l := openLog(t, dir, o)
	var want []*walstream.Txn
	for range 8 {
		want = append(want, fill(t, l, rnd, "a", 1)...)
		if err := l.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, lost := range []int64{1, footerTail, 100} {
		name := segments(t, dir)[i%2]
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, info.Size()-lost); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, o)
		expect(t, l, "a", walstream.Position{}, want)
		want = append(want, fill(t, l, rnd, "a", 3)...)
		if err := l.Close(); err != nil { // seals it
			t.Fatal(err)
		}
		if after, err := os.Stat(name); err != nil || after.Size() < info.Size() {
			t.Errorf("footer of %s was not written again: %v, %v", name, after, err)
		}
	}
}
