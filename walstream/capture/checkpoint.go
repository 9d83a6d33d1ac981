package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Bounds of keeping the WAL short.
const (
	passes      = 3                      // checkpoints in a row, as long as each leaves less
	holdWait    = 250 * time.Millisecond // how long to wait for writers before holding them
	longestHold = 25 * time.Millisecond  // how long to wait for another checkpoint while holding them
	holdShare   = 10                     // writers are held for one part in so many, at most
	lookAgain   = 100 * time.Microsecond
	forceFirst  = 100 * time.Millisecond // pause after a forced restart that did not succeed
	forceLast   = 10 * time.Second
	nextPass    = 10 * time.Millisecond // pause between checkpoints that leave little
	retryStuck  = time.Second           // pause after one that others kept from copying
)

// checkpointer runs checkpoints beside the capture, because they wait for the
// disk.
type checkpointer struct {
	db   *sqlitedb.DB
	kick chan struct{}

	conn chan *sqlitedb.Conn // the connection, while nobody uses it
	last struct {            // of the last pass; guarded by whoever has conn
		frames, copied uint32
		salt           sqlitefile.Salt
		at             time.Time
	}
}

func newCheckpointer(ctx context.Context, db *sqlitedb.DB) (*checkpointer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	k := &checkpointer{db: db, kick: make(chan struct{}, 1), conn: make(chan *sqlitedb.Conn, 1)}
	k.conn <- conn
	return k, nil
}

func (k *checkpointer) close() error { return (<-k.conn).Close() }

// run checkpoints when kicked, until ctx ends, and calls done after each.
func (k *checkpointer) run(ctx context.Context, done func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		}
		var conn *sqlitedb.Conn
		select {
		case <-ctx.Done():
			return
		case conn = <-k.conn:
		}
		_, err := k.passes(conn)
		k.conn <- conn
		done(err)
	}
}

// due tells whether a checkpoint is wanted: the WAL is long, and there is
// something that can be copied. It is false while one runs.
func (k *checkpointer) due(h sqlitefile.IndexHeader, copied, threshold uint32) bool {
	select {
	case conn := <-k.conn:
		defer func() { k.conn <- conn }()
	default:
		return false
	}
	if h.MaxFrame < threshold || copied >= h.MaxFrame {
		return false
	}
	// If the last one could not copy (a reader of others stays), another one at
	// once can't either.
	pause := nextPass
	if k.last.salt == h.Salt && k.last.copied == copied {
		pause = retryStuck
	}
	return h.MaxFrame-copied >= threshold && pause == nextPass || time.Since(k.last.at) > pause
}

// passes copies what can be copied, and returns how many frames are left.
func (k *checkpointer) passes(conn *sqlitedb.Conn) (left uint32, err error) {
	for range passes {
		before := left
		var busy bool
		if left, busy, err = k.pass(conn); err != nil {
			return left, err
		}
		if busy || left == 0 || before != 0 && left >= before {
			break
		}
	}
	return left, nil
}

// pass runs one checkpoint. busy tells that another one runs.
func (k *checkpointer) pass(conn *sqlitedb.Conn) (left uint32, busy bool, err error) {
	_, _, busy, err = conn.Checkpoint(sqlitedb.Passive)
	if err != nil {
		return 0, false, err
	}
	h, _ := k.db.Index().Header()
	copied := k.db.Index().Backfill()
	k.last.frames, k.last.copied, k.last.salt, k.last.at = h.MaxFrame, copied, h.Salt, time.Now()
	return h.MaxFrame - min(copied, h.MaxFrame), busy, nil
}

// copyAll is called with writers held, so that checkpoints of applications come
// to an end. It waits for the one that runs by looking, since whoever held the
// checkpoint lock for a moment would make an application's checkpoint fail.
func (k *checkpointer) copyAll(ctx context.Context, conn *sqlitedb.Conn) (left uint32, err error) {
	for start := time.Now(); ; time.Sleep(lookAgain) {
		left, busy, err := k.pass(conn)
		if err != nil || left == 0 || !busy || ctx.Err() != nil || time.Since(start) > longestHold {
			return left, err
		}
	}
}

// backoff is the pause between tries that do not succeed.
type backoff struct {
	next  time.Time
	pause time.Duration
}

func (b *backoff) ready() bool { return !time.Now().Before(b.next) }

// succeeded bounds the share of the time for which writers are held.
func (b *backoff) succeeded(held time.Duration) { *b = backoff{next: time.Now().Add(holdShare * held)} }

func (b *backoff) failed() {
	b.pause = min(max(2*b.pause, forceFirst), forceLast)
	b.next = time.Now().Add(b.pause)
}

// shortenLocked keeps the WAL short after a step that saw h.
func (c *Capture) shortenLocked(ctx context.Context, h sqlitefile.IndexHeader) error {
	if c.cfg.NoCheckpoint {
		return nil
	}
	copied := c.db.Index().Backfill()
	if c.ckpt.due(h, copied, c.cfg.CheckpointFrames) {
		select {
		case c.ckpt.kick <- struct{}{}:
		default:
		}
	}
	// If much is not copied, a checkpoint comes first; if that does not help, a
	// reader of somebody else is in the way, and holding writers would be no use.
	if h.MaxFrame < c.cfg.ForceFrames || h.MaxFrame-min(copied, h.MaxFrame) > c.cfg.ForceFrames/2 || !c.forcing.ready() {
		return nil
	}
	if c.forced == h.Salt {
		// The last time did not help: somebody's read was on a mark when the next
		// writer came.
		c.forced = sqlitefile.Salt{}
		c.forcing.failed()
		return nil
	}
	select {
	case conn := <-c.ckpt.conn:
		defer func() { c.ckpt.conn <- conn }()
		return c.forceLocked(ctx, conn)
	default:
		return nil // a checkpoint runs: perhaps it is enough
	}
}

// forceLocked makes a moment with nothing left to copy, so that the WAL can
// restart. Most was copied before, without any lock; only the last few frames
// are copied, and synced, while writers are held. What was captured meanwhile is
// kept in memory and shipped afterwards: the Sink may block.
func (c *Capture) forceLocked(ctx context.Context, conn *sqlitedb.Conn) error {
	wait, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	lock, err := c.holdWritersLocked(wait)
	if err != nil {
		c.forcing.failed()
		if wait.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	start := time.Now()
	restarted, err := c.restartLocked(ctx, conn)
	err = errors.Join(err, lock.Release())
	held := time.Since(start)
	c.noteHold(held)
	if err != nil {
		return err
	}
	if c.forced = c.at.salt; c.pending != nil {
		c.forced = c.pending.to.salt
	}
	if restarted {
		c.forcing.succeeded(held)
	} else {
		c.forcing.failed()
	}
	return c.shipPendingLocked(ctx)
}

// restartLocked is called with writers held. It captures the rest into memory,
// moves on to a mark behind it, copies it (no reset of the WAL can race with
// that), and moves to lock 0: the next writer restarts the WAL.
func (c *Capture) restartLocked(ctx context.Context, conn *sqlitedb.Conn) (bool, error) {
	if ok, err := c.detachLocked(ctx); !ok || err != nil {
		return false, err
	}
	if left, err := c.ckpt.copyAll(ctx, conn); err != nil || left > 0 {
		return false, err
	}
	if _, _, err := c.hands.reach(ctx); err != nil {
		return false, err
	}
	if err := c.hands.turn(); err != nil {
		return false, err
	}
	return c.hands.grip == gripZero, nil
}

// detachLocked is called with writers held, and nothing pending. It reads what
// is not captured into memory, as pending, and moves on to a newer read. It
// returns false, and has changed nothing, if that is too much for memory.
func (c *Capture) detachLocked(ctx context.Context) (bool, error) {
	if _, ok := c.db.Index().Header(); !ok {
		return false, nil // torn: SQLite must recover it, for which it needs the lock
	}
	h, _, err := c.hands.reach(ctx)
	if err != nil {
		return false, err
	}
	b, err := c.readLocked(h)
	if err != nil {
		return false, errors.Join(err, c.hands.drop())
	}
	if !b.inMemory {
		return false, c.hands.drop()
	}
	c.pending = b
	return true, c.hands.turn()
}

func (c *Capture) noteHold(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.stats.Forced++
	c.mu.stats.LongestHold = max(c.mu.stats.LongestHold, d)
}

// checkpointDone is told of each checkpoint beside the capture.
func (c *Capture) checkpointDone(err error) {
	c.mu.Lock()
	c.mu.stats.Checkpoints++
	c.mu.Unlock()
	if err != nil {
		c.log.Warn("checkpoint", "error", fmt.Sprint(err))
	}
}
