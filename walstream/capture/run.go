package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// How soon the database is looked at again while a writer or a checkpointer is
// about to finish what the files have told of: the wal-index moves after the
// last write to a file, so after the last notification. The pause is a part of
// how long it has taken so far, within these bounds.
const (
	soonest      = 50 * time.Microsecond
	latestWriter = 100 * time.Millisecond
	latestOther  = 20 * time.Millisecond
	part         = 4
	unwatched    = 5 * time.Millisecond // if inotify is not to be had
)

// Run captures until ctx ends (then it returns nil) or something is wrong. It
// still holds the WAL after that: Run may be called again, for instance after an
// error of the Sink. What Run returns besides: [ErrFenced], [ErrReplaced],
// [ErrRewritten], [ErrPageSize], [ErrDiscontinuous], errors of SQLite and of the
// disk.
func (c *Capture) Run(ctx context.Context) (err error) {
	if !c.resumed {
		return ErrNotResumed
	}
	group, gctx := errgroup.WithContext(ctx)
	w := c.cfg.Watcher
	if w == nil {
		if w, err = NewWatcher(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		group.Go(func() error { return w.Run(gctx) })
	}
	t := w.watch(c.db.Wal(), c.db.Main())
	defer t.disarm()
	group.Go(func() error {
		c.ckpt.run(gctx, func(err error) { c.checkpointDone(err); t.wake() })
		return nil
	})
	group.Go(func() error { return c.loop(gctx, t) })
	err = group.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err())) {
		return nil
	}
	return fmt.Errorf("capture %s: %w", c.cfg.Name, err)
}

// loop looks whenever there is a reason to. It is one goroutine.
func (c *Capture) loop(ctx context.Context, t *target) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	p := pace{interval: c.cfg.Interval, poll: c.cfg.Poll}
	for {
		p.arm(t, c.log.Warn)
		if err := c.checkName(t, &p); err != nil {
			return err
		}
		l, err := c.lookOnce(ctx)
		if err != nil {
			return err
		}
		wait, err := c.pause(l, &p, t)
		if err != nil {
			return err
		}
		if wait < time.Millisecond && ctx.Err() == nil && t.nap(wait) {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		case <-t.C:
			p.told()
			// Under load no more often than once in an interval.
			if l.captured {
				timer.Reset(time.Until(p.lastLook.Add(c.cfg.Interval)))
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-timer.C:
				}
			}
		}
	}
}

// lookOnce takes the turn, looks, and sees to the length of the WAL.
func (c *Capture) lookOnce(ctx context.Context) (look, error) {
	if err := c.take(ctx); err != nil {
		return look{}, err
	}
	defer c.give()
	l, err := c.lookLocked(ctx)
	if errors.Is(err, sqlitedb.ErrTornIndex) {
		return look{behind: true}, c.db.Recover(ctx)
	}
	if err != nil {
		return l, err
	}
	if l.idle {
		return l, c.passLocked(l.header)
	}
	c.waited = time.Time{}
	if err := c.shortenLocked(ctx, l.header); err != nil {
		return look{}, err
	}
	l.unsettled = c.hands.grip != gripZero && c.db.Index().Backfill() == c.at.frame
	return l, nil
}

// passLocked is called when all is captured. If a checkpoint that holds writers
// does not come on, then our read lock is in its way.
func (c *Capture) passLocked(h sqlitefile.IndexHeader) error {
	if c.hands.grip == gripZero || c.db.Index().Backfill() == h.MaxFrame {
		return nil
	}
	for _, lock := range []int64{sqlitefile.LockCheckpoint, sqlitefile.LockWrite} {
		if _, held, err := sqlitefile.Holder(c.db.Shm(), lock); err != nil || !held {
			c.waited = time.Time{}
			return err
		}
	}
	switch now := time.Now(); {
	case c.waited.IsZero():
		c.waited = now
	case now.Sub(c.waited) > c.cfg.Interval:
		c.waited = now
		return c.hands.aside()
	}
	return nil
}

// lookLocked makes a step if there is a reason for one.
func (c *Capture) lookLocked(ctx context.Context) (look, error) {
	h, ok := c.db.Index().Header()
	copied := c.db.Index().Backfill()
	same := ok && c.hands != nil && c.hands.exact && pointAt(h) == c.at && c.pending == nil
	if same && (c.hands.grip == gripZero || copied != h.MaxFrame) {
		// Nothing was committed, and a newer read would be no better.
		return look{header: h, copied: copied, idle: true}, c.checkFileLocked(h)
	}
	return c.stepLocked(ctx)
}

// pause decides when to look again if nothing tells before.
func (c *Capture) pause(l look, p *pace, t *target) (time.Duration, error) {
	p.looked(l.captured)
	wait := p.poll
	if l.behind {
		wait = p.interval
	}
	if l.unsettled {
		wait = min(wait, max(p.soon(latestOther), p.interval/4))
	}
	// Also after a capture: the frames of the next commit may have been written
	// before the watch was armed, and its header comes without a notification.
	writing, err := c.busy(sqlitefile.LockWrite, true)
	if err != nil {
		return 0, err
	}
	if writing && l.captured {
		wait = min(wait, p.interval)
	} else if writing {
		wait = min(wait, p.soon(latestWriter))
	}
	copying, err := c.busy(sqlitefile.LockCheckpoint, l.copied != l.header.MaxFrame || l.captured)
	if err != nil {
		return 0, err
	}
	if copying {
		wait = min(wait, max(p.soon(latestOther), p.interval/4))
	}
	// Who has let go of a lock since the look has written what it was held for.
	if h, ok := c.db.Index().Header(); !ok || h != l.header || c.db.Index().Backfill() != l.copied {
		wait = min(wait, max(p.soon(latestOther), soonest))
		if l.captured {
			wait = p.interval
		}
	}
	if t.armed() {
		return wait, nil
	}
	if p.unwatched {
		return min(wait, unwatched), nil
	}
	return min(wait, max(time.Until(p.lastArm.Add(p.interval)), 0)), nil
}

// busy tells whether somebody holds a lock, if that matters.
func (c *Capture) busy(lock int64, matters bool) (bool, error) {
	if !matters {
		return false, nil
	}
	_, held, err := sqlitefile.Holder(c.db.Shm(), lock)
	return held, err
}

// pace remembers when what was done. It belongs to the loop.
type pace struct {
	interval, poll time.Duration
	lastArm        time.Time
	lastLook       time.Time
	lastName       time.Time
	since          time.Time // of the last news: a notification, or a commit
	unwatched      bool
}

func (p *pace) told() { p.since = time.Now() }

func (p *pace) looked(captured bool) {
	p.lastLook = time.Now()
	if captured {
		p.since = p.lastLook
	}
}

func (p *pace) soon(latest time.Duration) time.Duration {
	return min(max(time.Since(p.since)/part, soonest), latest)
}

// arm sets watches that have fired, at most once in an interval.
func (p *pace) arm(t *target, warn func(string, ...any)) {
	now := time.Now()
	if t.armed() || now.Sub(p.lastArm) < p.interval {
		return
	}
	p.lastArm = now
	err := t.arm()
	if err != nil && !p.unwatched {
		warn("watch files: looking at them every few milliseconds instead", "error", err)
	}
	p.unwatched = err != nil
}

// checkName sees whether the path still leads to the file that is open: when
// its name has changed, and otherwise now and then.
func (c *Capture) checkName(t *target, p *pace) error {
	if !t.takeMoved() && time.Since(p.lastName) < c.cfg.Poll {
		return nil
	}
	p.lastName = time.Now()
	replaced, err := c.db.Replaced()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	case err != nil:
		return err
	case replaced:
		return fmt.Errorf("%w: another one has the path %s", ErrReplaced, c.db.Path())
	}
	return nil
}

// checkFileLocked sees whether somebody wrote to the database file past SQLite,
// at a moment when everything is in it and lock 0 keeps it as it is: page 1 must
// be what the table says.
func (c *Capture) checkFileLocked(h sqlitefile.IndexHeader) error {
	if c.hands.grip != gripZero || c.table.PageCount() == 0 || c.db.Index().Backfill() != h.MaxFrame {
		return nil
	}
	data := c.reader.page
	if err := readImage(c.db, ref{no: 1}, data); err != nil {
		return err
	}
	if now, ok := c.db.Index().Header(); !ok || now != h {
		return nil
	}
	if pagesum.Page(1, data) != c.table.Get(1) {
		return fmt.Errorf("%w: page 1 is not what was captured", ErrRewritten)
	}
	if sqlitefile.Mark(data) > sqlitefile.MarkWAL {
		return ErrFenced
	}
	return nil
}
