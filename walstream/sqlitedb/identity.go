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
// then err wraps [fs.ErrNotExist].
func (db *DB) Replaced() (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(db.path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = fs.ErrNotExist
		}
		return true, fmt.Errorf("look at database %s: %w", db.path, err)
	}
	return st.Dev != db.identity.Device || st.Ino != db.identity.Inode, nil
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
