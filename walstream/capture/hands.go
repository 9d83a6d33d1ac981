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
	old := h.held
	h.held, h.grip, h.exact, h.newer = h.free(), h.nextGrip, h.nextExact, false
	if old < 0 {
		return nil
	}
	return h.conns[old].EndRead()
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
	h.held, h.newer = -1, false
	return errors.Join(errs...)
}
