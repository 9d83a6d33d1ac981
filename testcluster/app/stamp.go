package app

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const stampSchema = `CREATE TABLE IF NOT EXISTS stamp(seq INTEGER PRIMARY KEY, payload BLOB)`

// runStamp commits one numbered row after the other at the wanted rate, going
// on from those that are there. Values holds the [Clock] at which each COMMIT
// had returned; the last one is that of row Seq.
func runStamp(ctx context.Context, r *run) (err error) {
	c, err := Open(r.db, Settings{Busy: 5 * time.Second, Synchronous: r.sync, AutoCheckpoint: r.autockpt})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	var base int64
	if err := errors.Join(c.Exec(stampSchema), c.Row("SELECT coalesce(max(seq), 0) FROM stamp", &base)); err != nil {
		return fmt.Errorf("prepare stamps: %w", err)
	}
	insert, err := c.Prepare("INSERT INTO stamp VALUES(?, randomblob(100))")
	if err != nil {
		return fmt.Errorf("prepare stamps: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	var at []int64
	start := Clock()
	for n := int64(1); ctx.Err() == nil && (r.count == 0 || n <= r.count) && (r.stopAfter == 0 || time.Duration(Clock()-start) < r.stopAfter); n++ {
		if r.rate > 0 {
			sleepUntil(start + int64(float64(n)/r.rate*1e9))
		}
		if _, err := insert.Exec(base + n); err != nil {
			return fmt.Errorf("commit %d: %w", n, err)
		}
		at = append(at, Clock())
		r.report.Count++
		r.report.Seq = base + n
		if n%64 == 0 {
			if err := r.tell(); err != nil {
				return err
			}
		}
	}
	r.report.Values = at
	return nil
}

// runWatch looks for new numbers as fast as a reader can that leaves the other
// processes of a small machine some room. Values holds the [Clock] at which each
// number was first seen that came after it had begun; the last one is that of
// row Seq.
func runWatch(ctx context.Context, r *run) (err error) {
	c, err := Open(r.db, Settings{Busy: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	query, err := c.Prepare("SELECT coalesce(max(seq), 0) FROM stamp")
	if err != nil {
		return fmt.Errorf("prepare watch: %w", err)
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	var seen []int64
	for ctx.Err() == nil {
		var seq int64
		if err := query.QueryRow().Scan(&seq); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		now := Clock()
		for n := r.report.Seq; r.report.Count > 0 && n < seq; n++ {
			seen = append(seen, now)
		}
		r.report.Count++
		r.report.Seq = seq
		if err := r.tell(); err != nil {
			return err
		}
		sleepUntil(now + 20_000)
	}
	r.report.Values = seen
	return nil
}

// sleepUntil sleeps on this thread, exactly: the runtime's timers may be a
// millisecond late.
func sleepUntil(at int64) {
	if d := at - Clock(); d > 0 {
		t := unix.NsecToTimespec(d)
		unix.Nanosleep(&t, nil) //nolint:errcheck // a signal ends it early, which is fine
	}
}
