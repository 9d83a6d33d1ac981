package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// ErrInUse is wrapped by what [Release] returns while a running lsnode, or an
// application in the middle of a write, holds the write lock.
var ErrInUse = errors.New("a process holds its write lock")

// Release makes a fenced copy an ordinary database again: one that is no longer
// followed, or a backup that carries the mark. Readers stay undisturbed;
// connections that saw the mark stay read-only until they are reopened. A
// database that is not fenced is left as it is. This process has nothing open
// of it.
func Release(ctx context.Context, path string) (err error) {
	db, err := sqlitedb.Open(ctx, path, sqlitedb.Options{})
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w := sqlitefile.NewWriter(db.Files())
	ok, err := w.TryAcquire()
	if errors.Is(err, sqlitefile.ErrTornIndex) {
		if err = db.Recover(ctx); err == nil {
			ok, err = w.TryAcquire()
		}
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", path, err)
	}
	if !ok {
		return fmt.Errorf("release %s: %w", path, inUse(db))
	}
	err = writeMark(w, make([]byte, db.PageSize()), sqlitefile.MarkWAL)
	if err == nil {
		err = w.SyncWAL()
	}
	if err = errors.Join(err, w.Release()); err != nil {
		return fmt.Errorf("release %s: %w", path, err)
	}
	return tidy(ctx, db)
}

// inUse says who holds the write lock, as far as the kernel tells.
func inUse(db *sqlitedb.DB) error {
	switch pid, held, err := sqlitefile.Holder(db.Shm(), sqlitefile.LockWrite); {
	case err == nil && held && pid > 0:
		return fmt.Errorf("%w: process %d; wait until it has finished", ErrInUse, pid)
	case err == nil && held:
		return fmt.Errorf("%w: most likely a running lsnode; stop it, or remove the database from it, first", ErrInUse)
	}
	return fmt.Errorf("%w: try again", ErrInUse)
}

// tidy empties the WAL if no one else needs it, so that the database file alone
// is the whole, released database. What can't be copied now, SQLite copies later.
func tidy(ctx context.Context, db *sqlitedb.DB) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	_, _, _, err = conn.Checkpoint(sqlitedb.Truncate)
	return err
}
