package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Stats are figures about a Replica, for metrics.
type Stats struct {
	Frames      uint32        // in the WAL
	Copied      uint32        // of these, copied into the database file
	Checkpoints uint64        // run
	Restarts    uint64        // of the WAL
	Kept        uint64        // times that readers kept the WAL from restarting
	KeptSince   time.Time     // since when they do; zero: they don't
	Paused      time.Duration // that applying stood still for it, in all
}

// Stats returns figures as of now.
func (r *Replica) Stats() Stats {
	r.mu.Lock()
	s := r.mu.stats
	r.mu.Unlock()
	h, _ := r.files.Index.Header()
	s.Frames, s.Copied = h.MaxFrame, r.files.Index.Backfill()
	return s
}

// Run keeps the WAL short and the record fresh until ctx ends, and returns
// ctx's error. When the WAL has grown by Config.CheckpointFrames, or nothing was
// applied for Config.IdleAfter, it copies the WAL into the database, lets it
// restart if that can be had, and records the position. Under a load without a gap
// that takes a pause in applying, which is made once the WAL is four times as long.
// Failures (a full disk) are logged and tried again. One Run may run at a time.
func (r *Replica) Run(ctx context.Context) error {
	idle := time.NewTimer(r.c.IdleAfter)
	defer idle.Stop()
	next := r.c.CheckpointFrames // the length at which to copy next
	fresh := true                // something was applied since the last time
	for {
		quiet := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.kick:
			fresh = true
			idle.Reset(r.c.IdleAfter)
			if r.frames() < next {
				continue
			}
		case <-idle.C:
			idle.Reset(r.c.IdleAfter)
			if !fresh && r.frames() == 0 {
				continue
			}
			quiet = true
		}
		fresh = false
		kept, err := r.checkpoint(ctx, quiet)
		if err != nil && ctx.Err() == nil {
			r.c.Logger.Error("checkpoint of a copy failed; it is tried again", "path", r.c.DB.Path(), "error", err)
		}
		next = r.frames() + r.c.CheckpointFrames
		if kept || err != nil { // every try has its price
			next += r.frames() / 4
		}
	}
}

// frames is how long the WAL is.
func (r *Replica) frames() uint32 {
	h, _ := r.files.Index.Header()
	return h.MaxFrame
}

// checkpoint copies the WAL into the database, lets it restart if it can, and
// records the position. kept: readers did not let it restart.
func (r *Replica) checkpoint(ctx context.Context, quiet bool) (kept bool, err error) {
	if !r.Fenced() {
		return false, nil
	}
	behind, err := r.copyBeside(ctx)
	if err != nil {
		return false, err
	}
	restarted, pause := false, quiet || r.frames() >= 4*r.c.CheckpointFrames
	// A reader that stays on an older mark than that is a long one: no pause would
	// make it leave.
	if behind <= r.c.CheckpointFrames {
		restarted, err = r.restart(ctx, pause)
	}
	kept = pause && !restarted
	r.noteCheckpoint(restarted, kept)
	if err != nil {
		return kept, err
	}
	return kept, r.recordPosition(ctx, false)
}

// copyBeside runs a passive checkpoint while applying goes on, which SQLite
// allows. It tells how many of the frames that were in the WAL when it began
// readers kept it from copying.
//
// Nothing is copied that the log does not have on disk, or a power loss could
// leave the copy ahead of its log: a read transaction begun before the log is
// synced keeps the checkpoint from going beyond it.
func (r *Replica) copyBeside(ctx context.Context) (behind uint32, err error) {
	r.apply.Lock()
	end := r.apply.w.Header().MaxFrame
	err = r.bound.BeginRead()
	r.apply.Unlock()
	if err != nil {
		return 0, fmt.Errorf("checkpoint: %w", err)
	}
	err = r.copyFrames(ctx)
	if err := errors.Join(err, r.bound.EndRead()); err != nil {
		return 0, err
	}
	// What was copied in part SQLite has not fsynced: better now than in a pause.
	if err := r.syncMain(); err != nil {
		return 0, err
	}
	return end - min(end, r.files.Index.Backfill()), nil
}

// copyFrames runs a passive checkpoint: as much as readers allow.
func (r *Replica) copyFrames(ctx context.Context) error {
	if err := r.c.SyncLog(ctx); err != nil {
		return fmt.Errorf("checkpoint: sync log: %w", err)
	}
	_, _, _, err := r.conn.Checkpoint(sqlitedb.Passive)
	return err
}

// restart lets the WAL restart if all is copied and no reader needs it. With
// pause it makes such a moment: applying stands still, so that readers that
// begin now are on the newest mark, and on lock 0 once all is copied, and those
// who are in the way only get fewer.
func (r *Replica) restart(ctx context.Context, pause bool) (bool, error) {
	r.apply.Lock()
	defer r.apply.Unlock()
	begin := time.Now()
	defer func() { r.notePause(time.Since(begin)) }()
	if !r.apply.w.Held() {
		return false, nil
	}
	if pause {
		if err := r.copyRestLocked(ctx); err != nil {
			return false, err
		}
	}
	if r.files.Index.Backfill() != r.apply.w.Header().MaxFrame {
		return false, nil
	}
	// Another process may have checkpointed without fsync. Its connection could
	// not restart the WAL, we can: so what is in the file must be durable.
	if err := r.syncMain(); err != nil {
		return false, err
	}
	wait, cancel := context.WithTimeout(ctx, r.c.MaxPause)
	defer cancel()
	if !pause {
		cancel() // one try
	}
	return r.apply.w.Restart(wait, r.c.KeepWAL)
}

func (r *Replica) syncMain() error {
	if err := unix.Fdatasync(int(r.files.Main.Fd())); err != nil {
		return fmt.Errorf("sync database: %w", err)
	}
	return nil
}

// copyRestLocked copies what is left in the WAL, once the readers on older marks
// have left or the pause was long enough. No frame is added meanwhile, so
// syncing the log first is enough for it not to fall behind.
func (r *Replica) copyRestLocked(ctx context.Context) error {
	end := r.apply.w.Header().MaxFrame
	if r.files.Index.Backfill() == end {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, r.c.MaxPause)
	defer cancel()
	for i := 1; i < sqlitefile.ReadLocks; i++ {
		if mark, used := r.files.Index.ReadMark(i); !used || mark >= end {
			continue
		}
		err := sqlitefile.Lock(wait, r.files.Shm, sqlitefile.LockRead(i), 1, true)
		if err == nil {
			err = sqlitefile.Unlock(r.files.Shm, sqlitefile.LockRead(i), 1)
		}
		if err != nil && wait.Err() == nil {
			return err
		}
	}
	return r.copyFrames(ctx)
}

func (r *Replica) noteCheckpoint(restarted, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stats.Checkpoints++
	switch {
	case restarted:
		r.mu.stats.Restarts++
		r.mu.stats.KeptSince = time.Time{}
	case kept:
		r.mu.stats.Kept++
		if r.mu.stats.KeptSince.IsZero() {
			r.mu.stats.KeptSince = time.Now()
		}
	}
}

func (r *Replica) notePause(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stats.Paused += d
}
