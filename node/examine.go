package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// examineBytes is how much of a database is read under one snapshot: a snapshot
// keeps the WAL from restarting, so none lasts long.
const examineBytes = 4 << 20

// damagedAtOnce bounds how many damaged pages are named, and repaired, at a time.
const damagedAtOnce = 4096

// examined is what reading pages from disk has found.
type examined struct {
	position walstream.Position // of the last part
	read     uint32             // pages
	total    uint32             // pages of the database
	damaged  map[uint32]string  // pages that are not what was written, with what is wrong
	more     int                // damaged pages beyond those named
}

// count returns how many pages are damaged.
func (e *examined) count() int { return len(e.damaged) + e.more }

// damage notes a page.
func (e *examined) damage(no uint32, what string) {
	if len(e.damaged) >= damagedAtOnce {
		e.more++
		return
	}
	if e.damaged == nil {
		e.damaged = map[uint32]string{}
	}
	e.damaged[no] = what
}

// settleWait bounds how long an examination waits for a copy that is repaired
// or opened.
const settleWait = 30 * time.Second

// examine reads every page of the database as it is on disk and compares it with
// what the table of page checksums says, part by part, each at a position of its
// own. After each part it calls rest with the time that the part took. A copy
// that is not settled is waited for.
func (d *database) examine(ctx context.Context, rest func(context.Context, time.Duration)) (*examined, error) {
	e := &examined{}
	waited := time.Now()
	for next := uint32(1); next == 1 || next <= e.total; {
		started := time.Now()
		after, err := d.examinePart(ctx, next, e)
		if errors.Is(err, errUnsettled) && ctx.Err() == nil && time.Since(waited) < settleWait {
			pause(ctx, retryFirst)
			continue
		}
		if err != nil {
			return e, fmt.Errorf("read %s from disk: %w", d.path, err)
		}
		next, waited = after, time.Now()
		rest(ctx, time.Since(started))
	}
	return e, nil
}

// again reads the pages that were found damaged once more.
func (d *database) again(ctx context.Context, found *examined) (left *examined, err error) {
	if found.more > 0 { // some are not known
		return d.examine(ctx, atHalfSpeed)
	}
	fenced := d.mustBeFenced()
	s, err := d.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	left = &examined{position: s.Position, total: s.Sums.PageCount()}
	buf, want := make([]byte, s.PageSize), make([]walstream.Checksum, 1)
	for no := range found.damaged {
		if s.Sums.Entries(no, want) == 0 {
			if s.PageCount >= no {
				left.damage(no, found.damaged[no])
			}
			continue
		}
		if what := examinePage(no, s.PageCount, want[0], buf, s.ReadPage); what != "" {
			left.damage(no, what)
		} else if no == 1 && fenced && d.mustBeFenced() && sqlitefile.Mark(buf) != sqlitefile.MarkFenced {
			left.damage(no, markGone)
		}
	}
	return left, nil
}

// examinePart reads the pages from first on, as many as one part has, and
// returns the page after them.
func (d *database) examinePart(ctx context.Context, first uint32, e *examined) (next uint32, err error) {
	fenced := d.mustBeFenced()
	s, err := d.snapshot(ctx)
	if err != nil {
		return first, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	size := s.PageSize
	sums := make([]walstream.Checksum, max(examineBytes/size, 1))
	sums = sums[:s.Sums.Entries(first, sums)]
	fenced = fenced && d.mustBeFenced() // it may be opened for writing meanwhile
	e.position, e.total = s.Position, s.Sums.PageCount()
	// What the kernel has in memory proves nothing about the disk.
	off, length := int64(first-1)*int64(size), int64(len(sums))*int64(size)
	if err := unix.Fadvise(int(d.file.Main().Fd()), off, length, unix.FADV_DONTNEED); err != nil {
		return first, fmt.Errorf("let go of cached pages: %w", err)
	}
	buf := make([]byte, size)
	for i, want := range sums {
		no := first + uint32(i)
		if no%256 == 0 && ctx.Err() != nil {
			return no, ctx.Err()
		}
		e.read++
		if what := examinePage(no, s.PageCount, want, buf, s.ReadPage); what != "" {
			e.damage(no, what)
		} else if no == 1 && fenced && sqlitefile.Mark(buf) != sqlitefile.MarkFenced {
			e.damage(no, markGone)
		}
	}
	if next = first + uint32(len(sums)); next > e.total && s.PageCount > e.total {
		e.damage(e.total+1, fmt.Sprintf("the database has %d pages instead of %d", s.PageCount, e.total))
	}
	d.counts.AuditedPages.Add(float64(len(sums)))
	return next, nil
}

const markGone = "the mark of a read-only copy is gone"

// examinePage says what is wrong with a page, or "".
func examinePage(no, count uint32, want walstream.Checksum, buf []byte, read func(uint32, []byte) error) string {
	if no > count {
		return "the file ends before it"
	}
	if err := read(no, buf); err != nil {
		return err.Error()
	}
	if pagesum.Page(no, buf) != want {
		return "its content is not what was written"
	}
	return ""
}

// atHalfSpeed rests for as long as the work before took.
func atHalfSpeed(ctx context.Context, took time.Duration) { pause(ctx, took) }

// mendTries bounds how often a repair is tried before the damage is left to the
// next look: about half a minute.
const mendTries = 20

// check examines the database and has what is damaged repaired. It returns what
// was found, and whether that is what it should be now.
func (n *Node) check(ctx context.Context, d *database, rest func(context.Context, time.Duration)) (found *examined, repaired bool, err error) {
	if found, err = d.examine(ctx, rest); err != nil {
		return found, false, err
	}
	d.progress.setDamaged(found.count())
	if found.count() == 0 {
		return found, false, nil
	}
	d.counts.DamagedPages.Add(float64(found.count()))
	first := slices.Min(slices.Collect(maps.Keys(found.damaged)))
	d.log.Error("damage found: something else than its database has changed the file, or the disk fails",
		"database", d.name, "path", d.path, "pages", found.count(), "first", first, "what", found.damaged[first])
	left, wait := found, retryFirst
	for range mendTries {
		if err = n.mend(ctx, d, left); err == nil {
			wait = pause(ctx, wait)
		}
		now, lerr := d.again(ctx, left)
		if lerr == nil {
			left = now
			d.progress.setDamaged(left.count())
		}
		if left.count() == 0 {
			d.log.Warn("damage is repaired", "database", d.name, "path", d.path, "pages", found.count())
			return found, true, nil
		}
		if err != nil {
			wait = pause(ctx, wait)
		}
		if err = errors.Join(err, lerr); ctx.Err() != nil {
			return found, false, ctx.Err()
		}
	}
	d.log.Error("DAMAGE IS NOT REPAIRED: it is tried again at the next look",
		"database", d.name, "path", d.path, "pages", left.count(), "error", err)
	return found, false, err
}

// mustBeFenced tells whether page 1 has to say read-only.
func (d *database) mustBeFenced() bool {
	d.content.Lock()
	defer d.content.Unlock()
	return d.opened != nil && d.capture == nil && d.replica.Fenced()
}
