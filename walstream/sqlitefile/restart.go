package sqlitefile

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Restart lets the next transaction begin the WAL anew, if all of it is in the
// database file and no reader needs it; false means not now. For a
// checkpoint that runs, and for readers that are on a mark, it waits until ctx
// ends: as long as nothing is appended, new readers take lock 0, which does not
// matter. The caller has made the database file
// durable, and has no transaction in hand. A -wal longer than keep bytes is cut
// to nothing.
//
// The locks are those of SQLite's own TRUNCATE checkpoint: the checkpoint lock,
// everything copied, read locks 1 to 4. Then the header of an empty WAL with new
// salts, the marks, the file.
func (w *Writer) Restart(ctx context.Context, keep int64) (done bool, err error) {
	if !w.held || w.dirty || len(w.pages) > 0 {
		return false, errors.New("restart WAL: write lock not held, or in a transaction")
	}
	if w.hdr.MaxFrame == 0 {
		return true, nil
	}
	// Without the checkpoint lock a checkpoint of an older SQLite, begun before
	// the restart, could go on after it with frames of the new generation.
	if ok, err := lockWithin(ctx, w.f.Shm, LockCheckpoint, 1); err != nil || !ok {
		return false, err
	}
	defer func() { err = errors.Join(err, Unlock(w.f.Shm, LockCheckpoint, 1)) }()
	if w.f.Index.Backfill() != w.hdr.MaxFrame {
		return false, nil
	}
	if ok, err := lockWithin(ctx, w.f.Shm, LockRead(1), ReadLocks-1); err != nil || !ok {
		return false, err
	}
	defer func() { err = errors.Join(err, Unlock(w.f.Shm, LockRead(1), ReadLocks-1)) }()
	h := w.hdr
	h.MaxFrame, h.Salt = 0, nextSalt(h.Salt)
	if err := w.f.Index.restart(h); err != nil {
		return false, err
	}
	w.hdr = h
	w.reset()
	return true, w.cut(keep)
}

// lockWithin takes an exclusive lock; false means that ctx ended first.
func lockWithin(ctx context.Context, shm *os.File, off, n int64) (bool, error) {
	err := Lock(ctx, shm, off, n, true)
	if err != nil && ctx.Err() != nil {
		return false, nil
	}
	return err == nil, err
}

// cut gives the room of a WAL that holds nothing back, if it is much.
func (w *Writer) cut(keep int64) error {
	st, err := w.f.Wal.Stat()
	if err != nil {
		return fmt.Errorf("cut WAL: %w", err)
	}
	if st.Size() <= keep {
		return nil
	}
	if err := unix.Ftruncate(int(w.f.Wal.Fd()), 0); err != nil {
		return fmt.Errorf("cut WAL: %w", err)
	}
	return nil
}

// nextSalt is what a restart makes of a salt: one more, and random.
func nextSalt(s Salt) Salt {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return Salt{s[0] + 1, binary.BigEndian.Uint32(b[:])}
}
