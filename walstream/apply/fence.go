package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Fence makes the database one that only this Replica writes, and keeps it so:
// it takes the write lock, waiting until ctx ends for a transaction that is
// already being written, puts the mark on page 1, and makes it durable. If the
// mark can't be written (a full disk) the error says so and the lock is kept all the
// same; Fence can be tried again. Fencing a fenced Replica does nothing.
func (r *Replica) Fence(ctx context.Context) error { return r.fence(ctx, nil) }

// FenceHeld is Fence for a caller that holds the write lock of the DB already:
// the Replica takes it over, so that no one can write in between. It is given
// up if the Replica can't be locked at all, which only a damaged WAL or index does.
func (r *Replica) FenceHeld(ctx context.Context, lock *sqlitedb.WriteLock) error {
	return r.fence(ctx, lock)
}

// FenceAll fences many databases at the same time: one that is busy is queued
// for while the others go on, and their fsyncs overlap. It waits for all, and
// returns the errors of those that are not fenced.
func FenceAll(ctx context.Context, replicas []*Replica) error {
	errs := make([]error, len(replicas))
	var wg sync.WaitGroup
	for i, r := range replicas {
		wg.Go(func() { errs[i] = r.Fence(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *Replica) fence(ctx context.Context, held *sqlitedb.WriteLock) error {
	r.record.Lock()
	defer r.record.Unlock()
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.acquireLocked(ctx, held); err != nil {
		return fmt.Errorf("fence %s: %w", r.c.DB.Path(), err)
	}
	// The mark matters most: it is tried whatever else fails.
	err := r.undoCleanLocked()
	if merr := r.markLocked(sqlitefile.MarkFenced); merr != nil {
		err = errors.Join(err, fmt.Errorf("write mark: %w", merr))
	}
	if err = errors.Join(err, r.apply.w.SyncWAL()); err != nil {
		return fmt.Errorf("fence %s: %w", r.c.DB.Path(), err)
	}
	return nil
}

// undoCleanLocked sees to it that nothing is applied while the record says that
// the end was clean. r.record is held as well.
func (r *Replica) undoCleanLocked() error {
	if !r.apply.clean {
		return nil
	}
	s := r.record.state.last
	s.clean, s.file = false, r.c.DB.Identity() // a clean end holds in any boot; this is the one that counts now
	if err := r.record.state.record(s); err != nil {
		return err
	}
	r.apply.clean = false
	return nil
}

// acquireLocked takes the write lock, or takes over the one that the caller
// holds. A torn wal-index is recovered by SQLite.
func (r *Replica) acquireLocked(ctx context.Context, held *sqlitedb.WriteLock) (err error) {
	if r.apply.w.Held() {
		return nil
	}
	for range 10 {
		lock := held
		if lock == nil {
			if lock, err = r.c.DB.LockWrite(ctx); err != nil {
				return err
			}
		}
		if err = r.apply.w.Acquire(ctx); err == nil {
			r.apply.lock = lock
			r.setFenced(true)
			return nil
		}
		// The writer has given the lock up already, so a held one is of no use now.
		held = nil
		if err = errors.Join(err, lock.Release()); !errors.Is(err, sqlitefile.ErrTornIndex) {
			return err
		}
		r.c.Logger.Warn("wal-index is torn: a writer died; SQLite recovers it", "path", r.c.DB.Path())
		if rerr := r.c.DB.Recover(ctx); rerr != nil {
			return errors.Join(err, rerr)
		}
	}
	return err
}

// releaseLocked gives up the write lock, if it is held.
func (r *Replica) releaseLocked() error {
	if !r.apply.w.Held() {
		return nil
	}
	err := errors.Join(r.apply.w.Release(), r.apply.lock.Release())
	r.apply.lock = nil
	r.setFenced(false)
	return err
}

// markLocked sees to it that page 1 has the mark, by a transaction of its own.
func (r *Replica) markLocked(mark byte) error {
	return writeMark(r.apply.w, r.apply.page1, mark)
}

// writeMark commits page 1 with a mark, unless it has it. buf is as long as a
// page.
func writeMark(w *sqlitefile.Writer, buf []byte, mark byte) error {
	if err := w.ReadPage(1, buf); err != nil {
		return err
	}
	if sqlitefile.Mark(buf) == mark {
		return nil
	}
	count, err := w.PageCount()
	if err != nil {
		return err
	}
	sqlitefile.SetMark(buf, mark)
	if err := w.Page(1, buf); err != nil {
		return errors.Join(err, w.Abort())
	}
	if _, err := w.Commit(count, false); err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

// Unfence makes the database an ordinary one again: page 1 without the mark,
// durable, then the write lock is released, and any client may write. It returns
// the place in the WAL behind all that was applied: capture resumes there.
// Connections that saw the mark stay read-only until they are reopened. On error
// the database is still fenced.
//
// From then on the Replica knows nothing of the content: after fencing it again,
// Settle or Repair comes first, also after a restart of the process.
func (r *Replica) Unfence(ctx context.Context) (walstream.Place, error) {
	r.record.Lock()
	defer r.record.Unlock()
	r.apply.Lock()
	defer r.apply.Unlock()
	place, err := r.unfenceLocked(ctx)
	if err != nil {
		return walstream.Place{}, fmt.Errorf("unfence %s: %w", r.c.DB.Path(), err)
	}
	return place, nil
}

func (r *Replica) unfenceLocked(ctx context.Context) (walstream.Place, error) {
	if err := ctx.Err(); err != nil {
		return walstream.Place{}, err
	}
	if !r.apply.w.Held() {
		return walstream.Place{}, ErrNotFenced
	}
	// The record first: a position must not look like the last word on a file that
	// applications write to.
	s := r.record.state.last
	s.clean, s.unfenced, s.file = false, true, r.c.DB.Identity()
	if err := r.record.state.record(s); err != nil {
		return walstream.Place{}, err
	}
	if err := r.markLocked(sqlitefile.MarkWAL); err != nil {
		return walstream.Place{}, fmt.Errorf("write mark: %w", err)
	}
	if err := r.apply.w.SyncWAL(); err != nil {
		return walstream.Place{}, err
	}
	h, id := r.apply.w.Header(), r.c.DB.Identity()
	place := walstream.Place{
		BootID: id.BootID, Device: id.Device, Inode: id.Inode,
		Salt: h.Salt, Frame: h.MaxFrame, FrameCk: h.Cksum,
	}
	r.apply.settled, r.apply.follows = false, false
	return place, r.releaseLocked()
}

// Fenced tells whether this Replica holds the write lock. It never waits.
func (r *Replica) Fenced() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.fenced
}

func (r *Replica) setFenced(fenced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.fenced = fenced
}

// Mark returns the mark that page 1 carries now, whoever put it there.
func (r *Replica) Mark() (byte, error) { return sqlitefile.CurrentMark(r.files) }
