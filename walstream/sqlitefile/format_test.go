package sqlitefile_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// A checksum of another byte order, as a WAL from another kind of host has it,
// written down by hand from the format's description.
func TestChecksum(t *testing.T) {
	data := []byte{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}
	// s1 = 0+1+0 = 1, s2 = 0+2+1 = 3; s1 = 1+3+3 = 7, s2 = 3+4+7 = 14
	if got, want := sqlitefile.Checksum(true, sqlitefile.Cksum{}, data), (sqlitefile.Cksum{7, 14}); got != want {
		t.Errorf("big-endian: %v, want %v", got, want)
	}
	little := make([]byte, len(data))
	for i := 0; i < len(data); i += 4 {
		binary.LittleEndian.PutUint32(little[i:], binary.BigEndian.Uint32(data[i:]))
	}
	if got, want := sqlitefile.Checksum(false, sqlitefile.Cksum{}, little), (sqlitefile.Cksum{7, 14}); got != want {
		t.Errorf("little-endian: %v, want %v", got, want)
	}
	half := sqlitefile.Checksum(true, sqlitefile.Cksum{}, data[:8])
	if got := sqlitefile.Checksum(true, half, data[8:]); got != (sqlitefile.Cksum{7, 14}) {
		t.Errorf("in two steps: %v", got)
	}
}

// Each field of the WAL header is checked by itself.
func TestParseWALHeader(t *testing.T) {
	good, _ := sqlitefile.WALHeader{PageSize: 4096, CheckpointSeq: 7, Salt: sqlitefile.Salt{8, 9}}.Append(nil)
	for name, change := range map[string]func(b []byte) []byte{
		"magic":     func(b []byte) []byte { b[0]++; return b },
		"order":     func(b []byte) []byte { b[3] ^= 1; return b },
		"version":   func(b []byte) []byte { b[7]++; return b },
		"page size": func(b []byte) []byte { b[10]++; return b },
		"sequence":  func(b []byte) []byte { b[15]++; return b },
		"salt":      func(b []byte) []byte { b[16]++; return b },
		"checksum":  func(b []byte) []byte { b[31]++; return b },
		"short":     func(b []byte) []byte { return b[:31] },
	} {
		b := change(append([]byte(nil), good...))
		if h, err := sqlitefile.ParseWALHeader(b); !errors.Is(err, sqlitefile.ErrWALHeader) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	if _, err := sqlitefile.ParseWALHeader(good); err != nil {
		t.Error(err)
	}
}

func TestParseDBHeader(t *testing.T) {
	f := openFiles(t, "65536", "pragma user_version=12", "pragma application_id=34", "pragma wal_checkpoint")
	b := make([]byte, 512)
	if _, err := f.main.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	h, err := sqlitefile.ParseDBHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	want := sqlitefile.DBHeader{
		PageSize: 65536, WriteVersion: 2, ReadVersion: 2, PageCount: 2, SchemaCookie: 1, ApplicationID: 34, UserVersion: 12,
		ChangeCounter: h.ChangeCounter, VersionValid: h.ChangeCounter,
	}
	if h != want {
		t.Fatalf("%+v, want %+v", h, want)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"magic":     func(b []byte) []byte { b[3]++; return b },
		"page size": func(b []byte) []byte { b[16] = 3; return b },
		"short":     func(b []byte) []byte { return b[:99] },
		"empty":     func([]byte) []byte { return nil },
	} {
		if h, err := sqlitefile.ParseDBHeader(change(append([]byte(nil), b...))); !errors.Is(err, sqlitefile.ErrNotDatabase) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

func TestLockBytePage(t *testing.T) {
	for size, want := range map[uint32]uint32{512: 2097153, 4096: 262145, 65536: 16385} {
		if got := sqlitefile.LockBytePage(size); got != want {
			t.Errorf("page size %d: %d, want %d", size, got, want)
		}
	}
}
