package sqlitedb

import (
	"context"
	"fmt"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// LockWrite waits until no one writes to the database, and keeps writers out.
// It is granted in the kernel's queue, also against writers that follow each
// other without a gap. Several users of one DB get it one after the other.
func (db *DB) LockWrite(ctx context.Context) (*WriteLock, error) {
	select {
	case db.writing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("take the write lock of %s: %w", db.path, context.Cause(ctx))
	}
	if err := sqlitefile.Lock(ctx, db.shm, sqlitefile.LockWrite, 1, true); err != nil {
		<-db.writing
		return nil, fmt.Errorf("take the write lock of %s: %w", db.path, err)
	}
	return &WriteLock{db: db}, nil
}

// WriteLock is the write lock of a database, held. It is used by one goroutine.
type WriteLock struct{ db *DB }

// Release lets writers in again. After Release or HandOver it does nothing.
func (l *WriteLock) Release() error {
	if l.db == nil {
		return nil
	}
	db := l.db
	l.db = nil
	err := sqlitefile.Unlock(db.shm, sqlitefile.LockWrite, 1)
	<-db.writing
	return err
}

// HandOver leaves the lock taken, to another user of [DB.Shm] that has taken it
// through the same descriptor meanwhile and will give it up. As long as that
// user has it, nobody calls LockWrite: it would be granted, and Release would
// take the lock away from both.
func (l *WriteLock) HandOver() {
	if l.db == nil {
		return
	}
	<-l.db.writing
	l.db = nil
}
