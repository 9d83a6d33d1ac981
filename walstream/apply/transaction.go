package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Apply applies the transaction that follows the applied position, so that
// every reader that begins after Apply returned sees it. It is not durable then.
// Errors: [ErrUnsettled], [ErrGap], [ErrChecksum], [ErrPageSize], [ErrMalformed],
// [ErrNotFenced], what the pages' walk returns, and what the file system says.
// After any error the copy is as before, and applying can go on.
func (r *Replica) Apply(ctx context.Context, t *walstream.Txn) error {
	return r.applyTxn(ctx, t, false)
}

// Repair is Apply for a transaction that holds whatever pages differ, whatever
// position it begins at; the copy is at t.Post afterwards. The table has the
// checksums of what the copy really holds.
func (r *Replica) Repair(ctx context.Context, t *walstream.Txn) error {
	return r.applyTxn(ctx, t, true)
}

func (r *Replica) applyTxn(ctx context.Context, t *walstream.Txn, repair bool) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.checkLocked(t, repair); err != nil {
		return fmt.Errorf("apply %s to %s: %w", t.Post, r.c.DB.Path(), err)
	}
	var err error
	if t.Kind == walstream.KindPages {
		err = r.writeLocked(ctx, t)
	} else {
		r.c.Table.Begin(r.c.Table.PageCount(), r.apply.update).Commit(t.Post)
	}
	if err != nil {
		err = errors.Join(err, r.apply.w.Abort())
		return fmt.Errorf("apply %s to %s: %w", t.Post, r.c.DB.Path(), err)
	}
	r.apply.settled, r.apply.follows = true, true
	r.setApplied(t.Post)
	r.wake()
	return nil
}

// checkLocked refuses what can't be applied here and now.
func (r *Replica) checkLocked(t *walstream.Txn, repair bool) error {
	at := r.Applied()
	switch {
	case !r.apply.w.Held(), r.apply.clean: // clean: the record could not be changed yet
		return ErrNotFenced
	case !repair && !r.apply.follows:
		return ErrUnsettled
	case !repair && t.Pre != at:
		return fmt.Errorf("%w: it begins at %s, the copy is at %s", ErrGap, t.Pre, at)
	}
	switch t.Kind {
	case walstream.KindPages:
		return r.checkPages(t)
	case walstream.KindEpoch:
		if has := r.c.Table.Checksum(); t.Post.Checksum != has {
			return fmt.Errorf("%w: epoch record says %s, the copy has %s", ErrChecksum, t.Post.Checksum, has)
		}
		return nil
	}
	return fmt.Errorf("%w: kind %d", ErrMalformed, t.Kind)
}

func (r *Replica) checkPages(t *walstream.Txn) error {
	if t.PageSize != r.c.DB.PageSize() {
		return fmt.Errorf("%w: %d, the copy has %d", ErrPageSize, t.PageSize, r.c.DB.PageSize())
	}
	if t.Pages == nil || t.PageCount == 0 || t.PageCount > pagesum.MaxPages {
		return fmt.Errorf("%w: database of %d pages, or none in the transaction", ErrMalformed, t.PageCount)
	}
	return nil
}

// writeLocked writes the pages as frames, compares the checksum, and only then
// publishes. An error leaves frames without a commit behind, for Abort.
func (r *Replica) writeLocked(ctx context.Context, t *walstream.Txn) error {
	u := r.c.Table.Begin(t.PageCount, r.apply.update)
	r.apply.update = u
	lockByte, last, written := sqlitefile.LockBytePage(t.PageSize), uint32(0), false
	for p, err := range t.Pages {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read pages: %w", err)
		}
		if p.No <= last || p.No > t.PageCount || uint32(len(p.Data)) != t.PageSize {
			return fmt.Errorf("%w: page %d of %d bytes after page %d, of %d pages", ErrMalformed, p.No, len(p.Data), last, t.PageCount)
		}
		last = p.No
		if p.No == lockByte {
			continue
		}
		u.Set(p.No, pagesum.Page(p.No, p.Data))
		if err := r.pageLocked(p); err != nil {
			return err
		}
		written = true
	}
	// The checksum may be known only now that the pages were walked.
	if got := u.Checksum(); got != t.Post.Checksum {
		return fmt.Errorf("%w: the transaction says %s, the copy would have %s", ErrChecksum, t.Post.Checksum, got)
	}
	if err := r.commitLocked(t.PageCount, written); err != nil {
		return err
	}
	u.Commit(t.Post)
	return nil
}

// pageLocked writes one page; page 1 with the mark.
func (r *Replica) pageLocked(p walstream.Page) error {
	data := p.Data
	if p.No == 1 {
		data = r.apply.page1
		copy(data, p.Data)
		sqlitefile.SetMark(data, sqlitefile.MarkFenced)
	}
	return r.apply.w.Page(p.No, data)
}

// commitLocked publishes what was written. A transaction that only changes the
// size needs a frame to say so in: page 1 as it is.
func (r *Replica) commitLocked(pageCount uint32, written bool) error {
	if !written {
		now, err := r.apply.w.PageCount()
		if err != nil || now == pageCount {
			return err
		}
		if err := r.apply.w.ReadPage(1, r.apply.page1); err != nil {
			return err
		}
		if err := r.apply.w.Page(1, r.apply.page1); err != nil {
			return err
		}
	}
	_, err := r.apply.w.Commit(pageCount, false)
	return err
}

// wake tells Run that something was applied.
func (r *Replica) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}
