package sqlitedb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Where SQLite's POSIX locks are in a database file: a reader of any kind has
// the shared range locked as long as it is connected to a WAL database.
const (
	pendingByte = 0x40000000
	sharedFirst = pendingByte + 2
	sharedSize  = 510
)

func (db *DB) refuse(reason Reason, err error) error {
	return &Refusal{Path: db.path, Reason: reason, Err: err}
}

// openMain looks at the file, opens it, and reads its header.
func (db *DB) openMain() error {
	st, err := os.Stat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return db.refuse(NotFound, nil)
	case errors.Is(err, fs.ErrPermission):
		return db.refuse(NoAccess, err)
	case err != nil:
		return fmt.Errorf("open database: %w", err)
	case !st.Mode().IsRegular():
		return db.refuse(NotRegular, nil)
	}
	if db.real, err = filepath.EvalSymlinks(db.path); err == nil {
		db.real, err = filepath.Abs(db.real)
	}
	if err != nil {
		return fmt.Errorf("open database %s: %w", db.path, err)
	}
	if db.main, err = openFile(db.real); err != nil {
		return db.refuseAccess(err)
	}
	if db.identity, err = identify(db.main); err != nil {
		return err
	}
	return db.readHeader(st.Size())
}

// readHeader takes the page size from the header of the file, or says what the
// file is instead of a database.
func (db *DB) readHeader(size int64) error {
	var head [sqlitefile.MinPageSize]byte
	n, err := db.main.ReadAt(head[:], 0)
	switch {
	case err != nil && err != io.EOF:
		return fmt.Errorf("read header of %s: %w", db.path, err)
	case n == 0:
		return db.refuse(Empty, nil)
	}
	h, err := sqlitefile.ParseDBHeader(head[:n])
	switch {
	case err != nil && size%sqlitefile.MinPageSize == 0 && looksRandom(head[:n]):
		return db.refuse(Encrypted, errors.New("its first bytes look random"))
	case err != nil:
		return db.refuse(NotDatabase, err)
	case h.ReadVersion > sqlitefile.MarkWAL:
		return db.refuse(TooNew, fmt.Errorf("its read version is %d", h.ReadVersion))
	}
	db.pageSize = h.PageSize
	return nil
}

// openSQLite connects, sees that the database is in WAL mode, and that its
// -wal and -shm exist.
func (db *DB) openSQLite(convert bool) error {
	c, err := dial(db.real, db.busy)
	if err != nil {
		return db.refuseSQLite(err)
	}
	db.mu.conns[c] = struct{}{}
	db.mu.keeper = c
	// Asking for the mode alone does not look at the file's content.
	if err := c.Exec("PRAGMA schema_version"); err != nil {
		return db.refuseSQLite(err)
	}
	mode, err := c.text("PRAGMA journal_mode")
	if err != nil {
		return db.refuseSQLite(err)
	}
	if mode == "wal" {
		return nil
	}
	if !convert {
		return db.refuse(NotWAL, fmt.Errorf("its journal mode is %s", mode))
	}
	got, err := c.text("PRAGMA journal_mode=WAL")
	switch {
	case err != nil && isBusy(err):
		return db.refuse(NoWAL, fmt.Errorf("another process is using it in journal mode %s: %w", mode, err))
	case err != nil:
		return db.refuse(NoWAL, err)
	case got != "wal":
		return db.refuse(NoWAL, fmt.Errorf("SQLite left it in journal mode %s", got))
	}
	if err := c.Exec("PRAGMA schema_version"); err != nil {
		return db.refuseSQLite(err)
	}
	return nil
}

// openWAL opens -wal and -shm beside the connection that made them, and takes
// the locks that keep others from taking them away.
func (db *DB) openWAL() (err error) {
	// The SQLite connection has this range locked, shared: so no one has it
	// exclusively, and ours is granted at once.
	ok, err := sqlitefile.TryLock(db.main, sharedFirst, sharedSize, false)
	if err != nil || !ok {
		return db.refuse(Exclusive, err)
	}
	if db.wal, err = openFile(db.real + "-wal"); err != nil {
		return db.refuseAccess(err)
	}
	if db.shm, err = openFile(db.real + "-shm"); err != nil {
		return db.refuseAccess(err)
	}
	ok, err = sqlitefile.TryLock(db.shm, sqlitefile.LockDMS, 1, false)
	if err != nil || !ok {
		return db.refuse(Exclusive, err)
	}
	if db.index, err = sqlitefile.MapIndex(db.shm); err != nil {
		return err
	}
	if _, ok := db.index.Header(); !ok {
		return db.mu.keeper.Exec("PRAGMA schema_version")
	}
	return nil
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
}

func (db *DB) refuseAccess(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return db.refuse(NoAccess, err)
	}
	return fmt.Errorf("open database %s: %w", db.path, err)
}

// refuseSQLite says why SQLite would not read the file.
func (db *DB) refuseSQLite(err error) error {
	switch code(err) {
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		pid, held, herr := sqlitefile.Holder(db.main, sharedFirst)
		if herr == nil && held {
			err = fmt.Errorf("process %d has it: %w", pid, err)
		}
		return db.refuse(Exclusive, err)
	case sqlite3.ErrNotADB:
		return db.refuse(Encrypted, err)
	case sqlite3.ErrPerm, sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrAuth:
		return db.refuse(NoAccess, err)
	case 0:
		return fmt.Errorf("open database %s: %w", db.path, err)
	}
	return db.refuse(Unreadable, err)
}

// looksRandom tells encrypted bytes from those of other files by how many
// different values there are: about 221 of 256 in 512 random bytes, less than
// 100 in text.
func looksRandom(b []byte) bool {
	var seen [256]bool
	n := 0
	for _, v := range b {
		if !seen[v] {
			seen[v] = true
			n++
		}
	}
	return len(b) == sqlitefile.MinPageSize && n >= 160
}
