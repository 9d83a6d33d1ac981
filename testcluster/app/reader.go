package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// lookQuery asks in one statement, so of one snapshot: the sum of all money and
// what it must be, the sum of the writers' last numbers, for how many writers
// the register and the last number differ, and the largest number of rows that
// a writer has.
const lookQuery = `SELECT (SELECT sum(balance) FROM account) || '|' || (SELECT value FROM meta WHERE name='total')
 || '|' || (SELECT coalesce(sum(seq),0) FROM last)
 || '|' || (SELECT count(*) FROM last l WHERE l.seq<>(SELECT max(seq) FROM register r WHERE r.worker=l.worker))`

// look is what a reader saw in one snapshot.
type look struct {
	sum, total, seq, torn int64
}

func parseLook(line string) (l look, err error) {
	if _, err := fmt.Sscanf(line, "%d|%d|%d|%d", &l.sum, &l.total, &l.seq, &l.torn); err != nil {
		return l, fmt.Errorf("read answer %q: %w", line, err)
	}
	return l, nil
}

// check tells what did not hold in one snapshot.
func (l look) check() error {
	switch {
	case l.sum != l.total:
		return fmt.Errorf("the accounts hold %d together, not %d", l.sum, l.total)
	case l.torn != 0:
		return fmt.Errorf("for %d writers the register and the last number differ", l.torn)
	}
	return nil
}

// client is one way to use SQLite from another process. An error is final.
type client interface {
	// look answers lookQuery.
	look() (string, error)
	// reopen closes the connection and opens a new one.
	reopen() error
	// close closes the connection and waits until it is closed.
	close() error
}

// runReader looks at the database again and again. Any error, a sum that does
// not hold, and anything that goes back is a failure.
func runReader(ctx context.Context, r *run) (err error) {
	if err := r.waitForTables(ctx); err != nil {
		return err
	}
	c, err := newClient(r.client, r.db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	start := time.Now()
	for n := int64(0); ctx.Err() == nil && (r.count == 0 || n < r.count); n++ {
		r.pace(ctx, start, n)
		if r.fresh > 0 && n%r.fresh == r.fresh-1 {
			if err := c.reopen(); err != nil {
				return fmt.Errorf("open again after %d reads: %w", n, err)
			}
		}
		begun := time.Now()
		line, err := c.look()
		if err != nil {
			return fmt.Errorf("read %d: %w", n, err)
		}
		l, err := parseLook(line)
		if err == nil {
			err = l.check()
		}
		if err != nil {
			return fmt.Errorf("read %d: %w", n, err)
		}
		if r.forward && l.seq < r.report.Seq {
			return fmt.Errorf("read %d: went back from %d to %d", n, r.report.Seq, l.seq)
		}
		r.succeeded(time.Since(begun), l.seq)
		if err := r.tell(); err != nil {
			return err
		}
	}
	return nil
}

// waitForTables waits until the copy is there, if the reader is told to.
func (r *run) waitForTables(ctx context.Context) error {
	for r.reopen && ctx.Err() == nil {
		c, err := Open(r.db, Settings{Busy: time.Second})
		if err == nil {
			var n int
			err = errors.Join(c.Row("SELECT count(*) FROM last", &n), c.Close())
		}
		if err == nil {
			return nil
		}
		if !isMissing(err) && !strings.Contains(err.Error(), "no such table") {
			return fmt.Errorf("wait for tables: %w", err)
		}
		wait(ctx, 10*time.Millisecond)
	}
	return nil
}

// runHold holds one read transaction open until it is told to end. What it
// sees must not change; afterwards the same connection must see the present.
func runHold(ctx context.Context, r *run) (err error) {
	if err := r.waitForTables(ctx); err != nil {
		return err
	}
	c, err := Open(r.db, Settings{Busy: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	const content = "SELECT count(*) || '|' || total(crc) || '|' || total(length(payload)) FROM register"
	var first, now, held, rows string
	if err := errors.Join(c.Exec("BEGIN"), c.Row(lookQuery, &first), c.Row(content, &held)); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	for ended := false; !ended; {
		wait(ctx, 50*time.Millisecond)
		ended = ctx.Err() != nil
		if err := errors.Join(c.Row(lookQuery, &now), c.Row(content, &rows)); err != nil {
			return fmt.Errorf("read in the transaction: %w", err)
		}
		if now != first || rows != held {
			return fmt.Errorf("one transaction saw %s (%s) and then %s (%s)", first, held, now, rows)
		}
		r.report.Count++
		if err := r.tell(); err != nil {
			return err
		}
	}
	if err := errors.Join(c.Exec("COMMIT"), c.Row(lookQuery, &now)); err != nil {
		return fmt.Errorf("read after the transaction: %w", err)
	}
	was, err := parseLook(first)
	if err != nil {
		return err
	}
	is, err := parseLook(now)
	if err == nil {
		err = is.check()
	}
	if err == nil && is.seq < was.seq {
		err = fmt.Errorf("went back from %d to %d after the transaction", was.seq, is.seq)
	}
	r.report.Seq = is.seq
	return err
}
