package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Bolt closes a database to writers for somebody who follows nobody: the guard
// of a node that can't do it itself any more. It knows nothing of logs and
// positions. One goroutine uses it.
type Bolt struct {
	path string
	db   *sqlitedb.DB // nil: not open
	w    *sqlitefile.Writer
}

// NewBolt returns one that has nothing open. This process has nothing open of
// the database.
func NewBolt(path string) *Bolt { return &Bolt{path: path} }

// Shoot puts the mark on page 1, durable on return: it waits for a transaction
// that is being written until ctx ends. The database stays open, which keeps its
// WAL from being deleted by whoever closes it last. If the mark can't be written
// (a full disk), the error says so, and the write lock is kept all the same until
// Close; it may be tried again. A missing file is an error that wraps a
// [*sqlitedb.Refusal].
func (b *Bolt) Shoot(ctx context.Context) error {
	if err := b.open(ctx); err != nil {
		return fmt.Errorf("fence %s: %w", b.path, err)
	}
	if err := b.acquire(ctx); err != nil {
		return fmt.Errorf("fence %s: %w", b.path, err)
	}
	err := writeMark(b.w, make([]byte, b.db.PageSize()), sqlitefile.MarkFenced)
	if err == nil {
		err = b.w.SyncWAL()
	}
	if err != nil {
		return fmt.Errorf("fence %s: write mark: %w", b.path, err)
	}
	return b.w.Release()
}

// open opens the database anew if its file is another one by now.
func (b *Bolt) open(ctx context.Context) (err error) {
	if b.db != nil {
		if replaced, _ := b.db.Replaced(); !replaced {
			return nil
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
	if b.db, err = sqlitedb.Open(ctx, b.path, sqlitedb.Options{}); err != nil {
		return err
	}
	b.w = sqlitefile.NewWriter(b.db.Files())
	return nil
}

// acquire takes the write lock. A torn wal-index is recovered by SQLite.
func (b *Bolt) acquire(ctx context.Context) error {
	for range 10 {
		err := b.w.Acquire(ctx)
		if !errors.Is(err, sqlitefile.ErrTornIndex) {
			return err
		}
		if err := b.db.Recover(ctx); err != nil {
			return err
		}
	}
	return sqlitefile.ErrTornIndex
}

// Close gives up the write lock, if it is held, and closes everything. It may be
// used again afterwards.
func (b *Bolt) Close() error {
	if b.db == nil {
		return nil
	}
	err := errors.Join(b.w.Release(), b.db.Close())
	b.db, b.w = nil, nil
	return err
}
