package sqlitedb

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity tells a file, in one boot of this host, from every other. It is
// comparable.
type Identity struct {
	BootID [16]byte
	Device uint64
	Inode  uint64
}

// Identity returns which file was opened, in which boot.
func (db *DB) Identity() Identity { return db.identity }

// Replaced tells whether the path leads to another file by now, or to none:
// then err wraps [fs.ErrNotExist]. A -wal or -shm that is another file or gone
// counts as well: SQLite would no longer share with this DB what is committed.
func (db *DB) Replaced() (bool, error) {
	same, err := sameFile(db.path, db.main)
	if err != nil {
		return true, fmt.Errorf("look at database %s: %w", db.path, err)
	}
	for _, f := range []*os.File{db.wal, db.shm} {
		ok, err := sameFile(f.Name(), f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true, fmt.Errorf("look at %s: %w", f.Name(), err)
		}
		same = same && ok
	}
	return !same, nil
}

// sameFile tells whether the path leads to the open file.
func sameFile(path string, f *os.File) (bool, error) {
	var there, open unix.Stat_t
	if err := unix.Stat(path, &there); err != nil {
		return false, err // a unix.Errno: errors.Is knows ENOENT as fs.ErrNotExist
	}
	if err := unix.Fstat(int(f.Fd()), &open); err != nil {
		return false, err
	}
	return there.Dev == open.Dev && there.Ino == open.Ino, nil
}

func identify(f *os.File) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Identity{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, fmt.Errorf("read boot ID: %w", err)
	}
	id := Identity{Device: st.Dev, Inode: st.Ino}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(b) != len(id.BootID) {
		return Identity{}, fmt.Errorf("read boot ID: %q is not one", text)
	}
	copy(id.BootID[:], b)
	return id, nil
}
