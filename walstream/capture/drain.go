package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// Drain holds writers, captures the rest, and returns once the Sink has taken
// it: Position is then the last commit, and stays so while the lock is held.
// The caller releases the lock, or hands it over to whoever fences the
// database. It waits for a write transaction that is open, as long as ctx
// allows. After an error nothing is held.
func (c *Capture) Drain(ctx context.Context) (_ *sqlitedb.WriteLock, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("drain %s: %w", c.cfg.Name, err)
		}
	}()
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.give()
	// First without holding anyone, so that little is left.
	if _, err := c.stepLocked(ctx); err != nil {
		return nil, err
	}
	lock, err := c.holdWritersLocked(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := c.db.Index().Header(); !ok {
		err = sqlitedb.ErrTornIndex
	} else {
		_, err = c.stepLocked(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return lock, nil
}

// Snapshot begins a snapshot at a transaction boundary, while capture goes on,
// and returns it with its position and a copy of the table. The Sink has taken
// everything up to that position. The caller closes the snapshot; as long as it
// is open, the WAL may not become shorter.
func (c *Capture) Snapshot(ctx context.Context) (*sqlitedb.Snapshot, walstream.Position, *pagesum.Table, error) {
	fail := func(err error) (*sqlitedb.Snapshot, walstream.Position, *pagesum.Table, error) {
		return nil, walstream.Position{}, nil, fmt.Errorf("snapshot %s: %w", c.cfg.Name, err)
	}
	if err := c.take(ctx); err != nil {
		return fail(err)
	}
	defer c.give()
	for {
		// What is left after this is little, so that it fits into memory.
		if _, err := c.stepLocked(ctx); err != nil {
			return fail(err)
		}
		s, err := c.snapshotLocked(ctx)
		if err != nil {
			return fail(err)
		}
		if s == nil {
			continue
		}
		if err := c.shipPendingLocked(ctx); err != nil {
			return fail(errors.Join(err, s.Close()))
		}
		return s, c.Position(), c.table.Clone(), nil
	}
}

// snapshotLocked holds writers for as long as it takes to read what is not
// captured into memory and to begin the snapshot. It returns nil if that was
// too much.
func (c *Capture) snapshotLocked(ctx context.Context) (s *sqlitedb.Snapshot, err error) {
	lock, err := c.holdWritersLocked(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if ok, err := c.detachLocked(ctx); !ok || err != nil {
		return nil, err
	}
	return c.db.Snapshot(ctx, true)
}

// holdWritersLocked waits for the write lock and goes on capturing meanwhile: an
// application's checkpoint that restarts the WAL has the write lock while it
// waits for our reads to move on.
func (c *Capture) holdWritersLocked(ctx context.Context) (*sqlitedb.WriteLock, error) {
	type result struct {
		lock *sqlitedb.WriteLock
		err  error
	}
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	got := make(chan result, 1)
	go func() {
		lock, err := c.db.LockWrite(wait)
		got <- result{lock, err}
	}()
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case r := <-got:
			return r.lock, r.err
		case <-tick.C:
		}
		if _, err := c.lookLocked(ctx); err != nil {
			cancel()
			if r := <-got; r.lock != nil {
				err = errors.Join(err, r.lock.Release())
			}
			return nil, err
		}
	}
}

// Flush captures everything that was committed before the call and returns the
// position after it, once the Sink has taken it. It waits for no writer.
func (c *Capture) Flush(ctx context.Context) (walstream.Position, error) {
	if err := c.take(ctx); err != nil {
		return walstream.Position{}, fmt.Errorf("flush %s: %w", c.cfg.Name, err)
	}
	defer c.give()
	_, err := c.stepLocked(ctx)
	if errors.Is(err, sqlitedb.ErrTornIndex) {
		if err = c.db.Recover(ctx); err == nil {
			_, err = c.stepLocked(ctx)
		}
	}
	if err != nil {
		return walstream.Position{}, fmt.Errorf("flush %s: %w", c.cfg.Name, err)
	}
	return c.Position(), nil
}
