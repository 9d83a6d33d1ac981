package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the machine's monotonic clock in nanoseconds: the same for all
// processes on it.
func Clock() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // it can't fail on Linux
	}
	return t.Nano()
}

// probeBusy is short: who waits for another writer learns nothing about lsnode.
const probeBusy = 20 * time.Millisecond

// runProber tries to write, changing nothing, all the time, on a connection
// that stays open and on a fresh one, and notes every answer:
//
//	W from until   the lock was held for writing all this time
//	R from until   refused as read-only, at some instant between
//	S              a prober began: of the time before nothing is known
func runProber(ctx context.Context, r *run) (err error) {
	out, err := os.OpenFile(r.intervals, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open file of intervals: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.WriteString("S\n"); err != nil {
		return fmt.Errorf("note start: %w", err)
	}
	p := &prober{run: r}
	defer func() { err = errors.Join(err, p.long.Close()) }()
	for ctx.Err() == nil {
		note, err := p.round()
		if err != nil && !isMissing(err) {
			return err
		}
		if note != "" {
			if _, err := out.WriteString(note); err != nil {
				return fmt.Errorf("note interval: %w", err)
			}
		}
		if err := r.tell(); err != nil {
			return err
		}
		wait(ctx, 2*time.Millisecond)
	}
	return nil
}

// prober is a run with the connection that stays open; nil before the first.
type prober struct {
	*run
	long *Conn
}

// round probes once on a fresh connection and once on the long one.
func (p *prober) round() (note string, err error) {
	fresh, err := Open(p.db, Settings{Busy: probeBusy})
	if err != nil {
		return "", err
	}
	note, err = p.probe(fresh)
	if err = errors.Join(err, fresh.Close()); err != nil {
		return "", err
	}
	if p.long == nil {
		p.long, err = Open(p.db, Settings{Busy: probeBusy})
		return note, err
	}
	second, err := p.probe(p.long)
	if err != nil {
		return note, err
	}
	if strings.HasPrefix(note, "W") && !strings.HasPrefix(second, "W") {
		// SQLite remembers the mark for as long as a connection is open.
		err = p.long.Close()
		p.long = nil
		return note, err
	}
	return note + second, nil
}

// probe returns what to note; nothing if the answer says nothing.
func (r *run) probe(c *Conn) (note string, err error) {
	from := Clock()
	err = c.Exec("BEGIN IMMEDIATE")
	if err == nil {
		// On a connection that knows the database to be read-only it begins a mere
		// read; only a statement that writes, even nothing, tells.
		if err = c.Exec("UPDATE meta SET value=value WHERE name IS NULL"); err != nil {
			err = errors.Join(err, c.Exec("ROLLBACK"))
		}
	}
	answered := Clock()
	switch {
	case err == nil:
		until := Clock()
		if err := c.Exec("ROLLBACK"); err != nil {
			return "", fmt.Errorf("roll back probe: %w", err)
		}
		r.report.Count++
		return fmt.Sprintf("W %d %d\n", answered, until), nil
	case IsReadonly(err):
		r.report.Refused++
		return fmt.Sprintf("R %d %d\n", from, answered), nil
	case IsBusy(err):
		r.report.Busy++
		return "", nil
	case isMissing(err):
		return "", nil
	}
	return "", fmt.Errorf("probe: %w", err)
}

// Window is a stretch of time, on [Clock], in which a node took writes: from
// the first to the last probe that it took without one refused between.
type Window struct {
	From, Until int64
}

// Windows reads what a prober noted.
func Windows(path string) ([]Window, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read windows: %w", err)
	}
	defer f.Close()
	var found []Window
	open := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var from, until int64
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		if kind == "S" {
			open = false
			continue
		}
		if n, _ := fmt.Sscanf(rest, "%d %d", &from, &until); n != 2 {
			break // cut off by the prober's death
		}
		switch {
		case kind == "R":
			open = false
		case open:
			found[len(found)-1].Until = until
		default:
			found, open = append(found, Window{from, until}), true
		}
	}
	return found, lines.Err()
}

// Overlap returns the first two windows, one of each list, that share an
// instant.
func Overlap(a, b []Window) (x, y Window, overlap bool) {
	for _, x := range a {
		for _, y := range b {
			if x.From <= y.Until && y.From <= x.Until {
				return x, y, true
			}
		}
	}
	return Window{}, Window{}, false
}
