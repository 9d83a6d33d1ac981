package capture

import (
	"context"
	"errors"
	"fmt"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// samplePages is how many pages of the file are compared with the table at a
// start, besides page 1.
const samplePages = 256

// Resume takes hold of the WAL and proves that it continues what was captured:
// the place that was logged with the start position is still in it, with the
// same salts and the same running checksum. Then Run may begin. Without that
// proof it holds nothing and returns a [*Discontinuity]: the caller calls Rebase,
// or gives the database's content up.
//
// It ends on any error as it began, and may be tried again.
func (c *Capture) Resume(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("resume capture of %s: %w", c.cfg.Name, err)
		}
	}()
	return c.start(ctx, false, func(h sqlitefile.IndexHeader, _ *sqlitedb.Snapshot) error {
		place := c.Place()
		if err := continues(c.db, place, h); err != nil {
			return err
		}
		c.at = pointOf(place)
		if err := c.compareSample(h); err != nil {
			return err
		}
		return c.captureLocked(ctx, h)
	})
}

// Rebase takes hold of the WAL without proof: it compares every page with the
// table, ships what differs as one transaction (everything, if the table is
// empty), and returns how many pages that were. Then Run may begin.
func (c *Capture) Rebase(ctx context.Context) (pages int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("capture content of %s: %w", c.cfg.Name, err)
		}
	}()
	err = c.start(ctx, true, func(h sqlitefile.IndexHeader, s *sqlitedb.Snapshot) (err error) {
		pages, err = c.scanLocked(ctx, s, h)
		return err
	})
	return pages, err
}

// scanLocked ships what differs between a snapshot at header h and the table.
func (c *Capture) scanLocked(ctx context.Context, s *sqlitedb.Snapshot, h sqlitefile.IndexHeader) (int, error) {
	d, err := Scan(ctx, s, c.table)
	if err != nil {
		return 0, err
	}
	if d.Marked {
		return 0, ErrFenced
	}
	c.at = pointAt(h)
	if d.Empty() {
		c.reachedLocked(c.at, c.Position())
		return 0, nil
	}
	u := d.Update()
	t := walstream.Txn{Header: c.header(s.PageCount(), 1, u.Checksum(), c.at), Pages: d.Pages}
	if err := c.cfg.Sink.Ship(ctx, &t); err != nil {
		return 0, fmt.Errorf("ship %s of %s: %w", t.Post, c.cfg.Name, err)
	}
	u.Commit(t.Post)
	c.reachedLocked(c.at, t.Post)
	c.countLocked(1, d.Len())
	return d.Len(), nil
}

// start takes hold of the WAL and calls begin with the header of that moment,
// and with a snapshot at it if one is wanted.
func (c *Capture) start(ctx context.Context, snapshot bool, begin beginFunc) (err error) {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.give()
	if err := c.releaseLocked(); err != nil {
		return err
	}
	c.pending = nil
	if c.hands, err = newHands(ctx, c.db); err == nil {
		c.ckpt, err = newCheckpointer(ctx, c.db)
	}
	if err == nil {
		err = c.holdLocked(ctx, snapshot, begin)
	}
	if err != nil {
		return errors.Join(err, c.releaseLocked())
	}
	c.resumed = true
	return nil
}

type beginFunc func(sqlitefile.IndexHeader, *sqlitedb.Snapshot) error

// holdLocked begins the first read. That may be one on lock 0, under which the
// WAL restarts once, and unlike later there may be frames in it that nobody has
// captured. So without a snapshot a read lock of our own, on a mark, keeps the
// WAL until begin has read them.
func (c *Capture) holdLocked(ctx context.Context, snapshot bool, begin beginFunc) (err error) {
	mark := sqlitefile.LockRead(1)
	h, s, err := c.reachFirst(ctx, snapshot, func() error {
		if snapshot {
			return nil
		}
		return sqlitefile.Lock(ctx, c.db.Shm(), mark, 1, false)
	})
	defer func() { err = errors.Join(err, sqlitefile.Unlock(c.db.Shm(), mark, 1)) }()
	if err != nil {
		return err
	}
	if s != nil {
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	if err := c.hands.turn(); err != nil {
		return err
	}
	return begin(h, s)
}

// reachFirst begins the first read with writers held, so that it is at the
// header that it returns. Only when they are held it calls keep: a checkpoint
// that restarts the WAL holds writers while it waits for read locks, so whoever
// waits for writers must not have any.
func (c *Capture) reachFirst(ctx context.Context, snapshot bool, keep func() error) (h sqlitefile.IndexHeader, s *sqlitedb.Snapshot, err error) {
	lock, err := c.db.LockWrite(ctx)
	if err != nil {
		return h, nil, err
	}
	if _, ok := c.db.Index().Header(); !ok {
		// A writer died. SQLite needs the lock to make that good.
		err := errors.Join(lock.Release(), c.db.Recover(ctx))
		if err != nil {
			return h, nil, err
		}
		if lock, err = c.db.LockWrite(ctx); err != nil {
			return h, nil, err
		}
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if err := keep(); err != nil {
		return h, nil, err
	}
	if h, _, err = c.hands.reach(ctx); err != nil || !snapshot {
		return h, nil, err
	}
	s, err = c.db.Snapshot(ctx, true)
	return h, s, err
}

// continues proves that the place is in the WAL with the header h.
func continues(db *sqlitedb.DB, p walstream.Place, h sqlitefile.IndexHeader) error {
	id := db.Identity()
	same := p.BootID == id.BootID && p.Device == id.Device && p.Inode == id.Inode
	no := func(format string, args ...any) error {
		return &Discontinuity{What: fmt.Sprintf(format, args...), SameFile: same}
	}
	switch at := pointOf(p); {
	case p == walstream.Place{}:
		return no("no place in it was logged")
	case p.Inode != id.Inode || p.BootID == id.BootID && p.Device != id.Device:
		return no("the database is another file: inode %d, not %d", id.Inode, p.Inode)
	case at.salt == sqlitefile.Salt{}:
		return no("the WAL was empty, which it is after every restart of the application")
	case at.salt != h.Salt:
		return no("the WAL has restarted: salts %08x, not %08x", h.Salt, at.salt)
	case at.frame > h.MaxFrame:
		return no("the WAL has %d frames, not %d", h.MaxFrame, at.frame)
	case at.frame == 0:
		return nil
	default:
		f, err := frameHeader(db, at.frame)
		if err != nil {
			return err
		}
		if f.Salt != at.salt || f.Cksum != at.cksum || !f.IsCommit() {
			return no("frame %d is another one", at.frame)
		}
		return nil
	}
}

// compareSample finds out whether the database file was written over while the
// WAL was left as it was: page 1 and some others, of which no frame is in the
// WAL, must be what the table says of them.
func (c *Capture) compareSample(h sqlitefile.IndexHeader) error {
	count := c.table.PageCount()
	if h.MaxFrame > 0 {
		count = min(count, h.PageCount)
	}
	step := max(count/samplePages, 1)
	buf := c.reader.page
	for no := uint64(1); no <= uint64(count); no += uint64(step) {
		frame, err := c.db.Index().Lookup(uint32(no), h.MaxFrame)
		if err != nil {
			return err
		}
		want := c.table.Get(uint32(no))
		if frame != 0 || want == 0 {
			continue
		}
		if err := readImage(c.db, ref{no: uint32(no)}, buf); err != nil {
			return err
		}
		if pagesum.Page(uint32(no), buf) != want {
			return &Discontinuity{What: fmt.Sprintf("page %d of the file is not what was captured", no)}
		}
	}
	return nil
}

// Uncaptured counts the commits that lie in the WAL beyond a place; lsnode's own
// marks are none. If it can't be proved that the WAL continues at the place,
// proven is false, and the number is that of the commits in the WAL: there may
// have been more.
func Uncaptured(ctx context.Context, db *sqlitedb.DB, place walstream.Place) (commits int, proven bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("count commits of %s that were not captured: %w", db.Path(), err)
		}
	}()
	conn, err := db.Conn(ctx)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.BeginRead(); err != nil {
		return 0, false, err
	}
	h, err := db.Header(ctx)
	if err != nil {
		return 0, false, err
	}
	from := pointOf(place)
	err = continues(db, place, h)
	switch {
	case errors.Is(err, ErrDiscontinuous):
		from = point{}
	case err != nil:
		return 0, false, err
	default:
		proven = true
	}
	marked, err := markedAt(db, from.frame)
	if err != nil {
		return 0, false, err
	}
	commits, err = countCommits(db, from.frame, h, marked)
	return commits, proven, err
}

// markedAt tells whether page 1 said read-only after a frame of the WAL.
func markedAt(db *sqlitedb.DB, frame uint32) (bool, error) {
	last, err := db.Index().Lookup(1, frame)
	if err != nil {
		return false, err
	}
	page := make([]byte, db.PageSize())
	if err := readImage(db, ref{no: 1, frame: last}, page); err != nil {
		return false, err
	}
	return sqlitefile.Mark(page) > sqlitefile.MarkWAL, nil
}

// countCommits walks over the frames after one.
func countCommits(db *sqlitedb.DB, after uint32, h sqlitefile.IndexHeader, marked bool) (int, error) {
	s := commitScan{marked: marked}
	for frame := after + 1; frame <= h.MaxFrame; frame++ {
		f, err := frameHeader(db, frame)
		if err == nil {
			err = checkFrame(f, frame, h)
		}
		if err == nil {
			err = s.add(db, f, frame)
		}
		if err != nil {
			return 0, err
		}
	}
	return s.commits, nil
}
