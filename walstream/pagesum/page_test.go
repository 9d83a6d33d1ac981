package pagesum_test

import (
	"math/rand"
	"testing"

	"github.com/superfly/ltx"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func randomPage(rnd *rand.Rand, size int) []byte {
	b := make([]byte, size)
	rnd.Read(b)
	return b
}

// Page agrees with LTX's own library, for every page size, page 1 and the
// lock-byte page being what is special.
func TestPage(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for size := sqlitefile.MinPageSize; size <= sqlitefile.MaxPageSize; size *= 2 {
		lock := ltx.LockPgno(uint32(size))
		for _, no := range []uint32{1, 2, lock - 1, lock, lock + 1, 0xfffffffe} {
			data := randomPage(rnd, size)
			normal := append([]byte(nil), data...)
			if no == 1 {
				sqlitefile.Normalise(normal)
			}
			want := walstream.Checksum(ltx.ChecksumPage(no, normal))
			if no == lock {
				want = 0
			}
			before := string(data)
			if got := pagesum.Page(no, data); got != want {
				t.Errorf("page %d of %d bytes: %s, want %s", no, size, got, want)
			}
			if string(data) != before {
				t.Errorf("page %d was changed", no)
			}
		}
	}
}

// A fenced copy has the checksum of the database.
func TestPageMark(t *testing.T) {
	data := randomPage(rand.New(rand.NewSource(2)), 4096)
	sqlitefile.SetMark(data, sqlitefile.MarkWAL)
	one := pagesum.Page(1, data)
	sqlitefile.SetMark(data, sqlitefile.MarkFenced)
	if pagesum.Page(1, data) != one {
		t.Error("the mark counts in page 1")
	}
	if a, b := pagesum.Page(2, data), func() walstream.Checksum {
		sqlitefile.SetMark(data, sqlitefile.MarkWAL)
		return pagesum.Page(2, data)
	}(); a == b {
		t.Error("byte 18 of page 2 does not count")
	}
}

func TestPageAllocates(t *testing.T) {
	data := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() { pagesum.Page(1, data); pagesum.Page(2, data) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPage(b *testing.B) {
	data := randomPage(rand.New(rand.NewSource(3)), 4096)
	b.SetBytes(4096)
	for b.Loop() {
		pagesum.Page(7, data)
	}
}
