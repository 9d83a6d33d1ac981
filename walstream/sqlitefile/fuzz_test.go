package sqlitefile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

func FuzzParseDBHeader(f *testing.F) {
	f.Add([]byte("SQLite format 3\x00\x10\x00\x02\x02"))
	good := make([]byte, 512)
	copy(good, "SQLite format 3\x00\x00\x01\x02\x02")
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := sqlitefile.ParseDBHeader(b)
		if err == nil && !sqlitefile.ValidPageSize(h.PageSize) {
			t.Fatalf("page size %d accepted", h.PageSize)
		}
		sqlitefile.SetMark(b, sqlitefile.MarkFenced)
		sqlitefile.Normalise(b)
		if m := sqlitefile.Mark(b); len(b) > 18 && m != sqlitefile.MarkWAL {
			t.Fatalf("mark %d after normalising", m)
		}
	})
}

func FuzzParseWALHeader(f *testing.F) {
	for _, big := range []bool{false, true} {
		b, _ := sqlitefile.WALHeader{BigEndian: big, PageSize: 4096, Salt: sqlitefile.Salt{1, 2}}.Append(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := sqlitefile.ParseWALHeader(b)
		if err != nil {
			return
		}
		again, ck := h.Append(nil)
		if !bytes.Equal(again, b[:sqlitefile.WALHeaderSize]) || ck != h.Cksum {
			t.Fatalf("%x parses as %+v, which is written as %x", b, h, again)
		}
	})
}

func FuzzParseFrameHeader(f *testing.F) {
	f.Add(sqlitefile.FrameHeader{PageNo: 1, PageCount: 2, Salt: sqlitefile.Salt{3, 4}}.Append(make([]byte, 0, 512)), false)
	f.Fuzz(func(t *testing.T, b []byte, big bool) {
		h := sqlitefile.ParseFrameHeader(b)
		if len(b) < sqlitefile.FrameHeaderSize {
			return
		}
		if again := h.Append(nil); !bytes.Equal(again, b[:sqlitefile.FrameHeaderSize]) {
			t.Fatalf("%x is written as %x", b, again)
		}
		h.Next(big, h.Cksum, b[sqlitefile.FrameHeaderSize:])
	})
}

// An index with any content is read without panic and without an endless loop.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{0x18, 0xe2, 0x2d, 0}, uint32(1), uint32(1))
	f.Add(bytes.Repeat([]byte{0xff}, 32768), uint32(7), uint32(5000))
	f.Add(bytes.Repeat([]byte{1, 0}, 40000), uint32(1), uint32(5000))
	f.Fuzz(func(t *testing.T, b []byte, page, frame uint32) {
		shm, err := os.Create(filepath.Join(t.TempDir(), "shm"))
		if err != nil {
			t.Fatal(err)
		}
		defer shm.Close()
		if _, err := shm.Write(b); err != nil {
			t.Fatal(err)
		}
		x, err := sqlitefile.MapIndex(shm)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		x.Header()
		x.Backfill()
		x.ReadMark(int(page % 8))
		x.PageNo(frame)
		if got, err := x.Lookup(page, frame); err == nil && got > frame {
			t.Fatalf("looked up frame %d beyond %d", got, frame)
		}
	})
}
