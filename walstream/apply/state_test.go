package apply

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

func someState(n uint64) state {
	return state{
		position: walstream.Position{Epoch: walstream.Epoch(n), TXID: walstream.TXID(2 * n), Checksum: walstream.Checksum(3 * n)},
		clean:    n%2 == 0,
		unfenced: n%3 == 0,
		file:     sqlitedb.Identity{BootID: [16]byte{1, byte(n)}, Device: 4 * n, Inode: 5 * n},
	}
}

// Whichever slot is torn, the state before it is still there.
func TestStateTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	read := func() state {
		t.Helper()
		s, err := openState(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		return s.last
	}
	if got := read(); got != (state{}) {
		t.Fatalf("a new file holds %+v", got)
	}
	for n := uint64(1); n < 6; n++ {
		s, err := openState(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.record(someState(n)), s.close()); err != nil {
			t.Fatal(err)
		}
		if got := read(); got != someState(n) {
			t.Fatalf("%+v, want %+v", got, someState(n))
		}
		whole, _ := os.ReadFile(path)
		for _, at := range []int{0, 9, 20, 30, 60, stateSlot - 1} {
			torn := append([]byte(nil), whole...)
			torn[int(n%2)*stateDistance+at] ^= 0x55
			os.WriteFile(path, torn, 0o600)
			want := state{}
			if n > 1 {
				want = someState(n - 1)
			}
			if got := read(); got != want {
				t.Fatalf("torn at %d: %+v, want %+v", at, got, want)
			}
		}
		os.WriteFile(path, whole, 0o600)
	}
}

// The state of a later lsnode is not overwritten.
func TestStateVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := someState(1)
	b := s.append(nil, 1)
	b[9]++
	binary.BigEndian.PutUint32(b[stateSlot-4:], crc32.Checksum(b[:stateSlot-4], castagnoli))
	os.WriteFile(path, b, 0o600)
	if _, err := openState(path); !errors.Is(err, errStateVersion) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParseState(f *testing.F) {
	s := someState(7)
	f.Add(s.append(nil, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, sequence, ok, err := parseState(b)
		if !ok || err != nil {
			return
		}
		again, seq, ok, err := parseState(s.append(nil, sequence))
		if !ok || err != nil || again != s || seq != sequence {
			t.Fatalf("%+v %d became %+v %d, %v", s, sequence, again, seq, err)
		}
	})
}
