package capture

import (
	"context"
	"errors"

	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// grip is what kind of read transaction holds the WAL, as far as is known.
type grip int

const (
	gripUnknown grip = iota // on a mark or on lock 0
	gripMark                // on a mark: the WAL can't restart
	gripZero                // on lock 0: it may restart once, no frame can be copied
)

// hands holds the WAL with one of two connections at every moment: the newer
// read begins before the older one ends. Used under the Capture's turn.
type hands struct {
	db    *sqlitedb.DB
	conns [2]*sqlitedb.Conn
	held  int // which one holds the WAL; -1: none
	pin   int // the read lock that holds it instead of a connection; 0: none
	grip  grip
	exact bool // the read is at the header that was seen after it, nothing was committed between

	newer     bool // both hold it: between reach and turn
	nextGrip  grip
	nextExact bool
}

func newHands(ctx context.Context, db *sqlitedb.DB) (*hands, error) {
	h := &hands{db: db, held: -1}
	for i := range h.conns {
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		h.conns[i] = c
	}
	return h, nil
}

// reach begins the newer read and returns the header that was valid after that.
// Everything up to its MaxFrame has to be captured before turn is called. still
// tells that the newer read is exactly at that header.
func (h *hands) reach(ctx context.Context) (header sqlitefile.IndexHeader, still bool, err error) {
	// If a writer died while writing the header, the new read repairs it, unless it
	// is we who keep writers out: so the first look at it must not insist.
	before, ok := h.db.Index().Header()
	copied := h.db.Index().Backfill()
	zero := false
	if ok && copied == before.MaxFrame {
		// A checkpoint that has copied everything may still have lock 0. With our
		// shared lock on it, the new read gets it for sure.
		zero, err = sqlitefile.TryLock(h.db.Shm(), sqlitefile.LockRead(0), 1, false)
		if err != nil {
			return header, false, err
		}
		defer func() { err = errors.Join(err, sqlitefile.Unlock(h.db.Shm(), sqlitefile.LockRead(0), 1)) }()
	}
	if err := h.conns[h.free()].BeginRead(); err != nil {
		return header, false, err
	}
	h.newer = true
	if header, err = h.db.Header(ctx); err != nil {
		return header, false, errors.Join(err, h.drop())
	}
	still = ok && before == header
	h.nextExact, h.nextGrip = still, gripUnknown
	if still && copied == header.MaxFrame && zero {
		h.nextGrip = gripZero
	} else if still && copied != header.MaxFrame && copied == h.db.Index().Backfill() {
		h.nextGrip = gripMark
	}
	return header, still, nil
}

// turn ends the older read: from now on the newer one holds the WAL.
func (h *hands) turn() error {
	held, pin := h.held, h.pin
	h.held, h.grip, h.exact, h.newer, h.pin = h.free(), h.nextGrip, h.nextExact, false, 0
	return h.end(held, pin)
}

// end ends what has held the WAL before.
func (h *hands) end(held, pin int) error {
	if pin > 0 {
		return sqlitefile.Unlock(h.db.Shm(), sqlitefile.LockRead(pin), 1)
	}
	if held < 0 {
		return nil
	}
	return h.conns[held].EndRead()
}

// aside lets a checkpoint pass that waits for the read lock which we happen to
// have. It looks at the mark of a read lock only once, before it begins to wait
// for that lock, so it waits even if our read is at the newest frame by now; and
// a newer read would take the same lock. So, while everything is captured, a
// read lock that no reader uses keeps the WAL from restarting, and the read
// ends. It keeps no frame from being copied.
func (h *hands) aside() error {
	best := 0
	for i := sqlitefile.ReadLocks - 1; i > 0; i-- {
		_, held, err := sqlitefile.Holder(h.db.Shm(), sqlitefile.LockRead(i))
		if err != nil {
			return err
		}
		if _, used := h.db.Index().ReadMark(i); !held && i != h.pin && (best == 0 || !used) {
			best = i
		}
	}
	if best == 0 {
		return nil
	}
	ok, err := sqlitefile.TryLock(h.db.Shm(), sqlitefile.LockRead(best), 1, false)
	if err != nil || !ok {
		return err
	}
	held, pin := h.held, h.pin
	h.held, h.pin, h.grip = -1, best, gripMark
	return h.end(held, pin)
}

// drop ends the newer read, so that all is as before reach.
func (h *hands) drop() error {
	if !h.newer {
		return nil
	}
	h.newer = false
	return h.conns[h.free()].EndRead()
}

func (h *hands) free() int {
	if h.held == 0 {
		return 1
	}
	return 0
}

// close ends both reads and their connections.
func (h *hands) close() error {
	var errs []error
	for i, c := range h.conns {
		if c != nil {
			errs = append(errs, c.Close())
			h.conns[i] = nil
		}
	}
	if h.pin > 0 {
		errs = append(errs, sqlitefile.Unlock(h.db.Shm(), sqlitefile.LockRead(h.pin), 1))
	}
	h.held, h.pin, h.newer = -1, 0, false
	return errors.Join(errs...)
}
