package capture

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// Sink takes transactions, in order, one call at a time.
type Sink interface {
	// Ship takes one transaction. It may block: then capture waits, and the WAL
	// grows. The transaction and its pages are valid until Ship returns; Pages may
	// be walked several times. If it returns an error, capture stands where it
	// stood before, and the same commits come again, perhaps with newer ones.
	Ship(ctx context.Context, t *walstream.Txn) error
}

// Config says what a Capture captures, and how.
type Config struct {
	// DB is the database. It stays open for as long as the Capture is in use.
	DB *sqlitedb.DB
	// Name is what the cluster calls the database.
	Name string
	// Epoch is that of this reign: the epoch of every position after a transaction.
	Epoch walstream.Epoch
	// Start is where the node's log stands. Zero: nothing was ever captured.
	Start walstream.Position
	// Place is where in the WAL Start is. Zero: not known.
	Place walstream.Place
	// Table is at Start.
	Table *pagesum.Table
	// Sink takes what is captured.
	Sink Sink
	// Watcher wakes the Capture. Default: one of its own, while it runs.
	Watcher *Watcher
	// Logger gets what is worth knowing. Default: nothing is logged.
	Logger *slog.Logger
	// Interval is the shortest time between two captures of a database under
	// load. Default 1 ms.
	Interval time.Duration
	// Poll is how often the database is looked at though nothing has told of a
	// change. Default 1 s.
	Poll time.Duration
	// MemoryBytes bounds what is read of the WAL into memory; a transaction with
	// more is read as it is walked over. Default 4 MiB.
	MemoryBytes int
	// CheckpointFrames is how long the WAL is when capture runs checkpoints beside
	// the application. Default 600: below the 1,000 frames at which an application
	// begins to do it itself, with each of its commits.
	CheckpointFrames uint32
	// ForceFrames is how long the WAL is when writers are held for a moment, so
	// that it can restart. Default 900.
	ForceFrames uint32
	// NoCheckpoint leaves the length of the WAL to the application alone. Default
	// false.
	NoCheckpoint bool
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Interval <= 0 {
		c.Interval = time.Millisecond
	}
	if c.Poll <= 0 {
		c.Poll = time.Second
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = 4 << 20
	}
	if c.CheckpointFrames == 0 {
		c.CheckpointFrames = 600
	}
	if c.ForceFrames == 0 {
		c.ForceFrames = 900
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.DB == nil, c.Table == nil, c.Sink == nil:
		return errors.New("capture needs a database, a table and a sink")
	case !walstream.ValidName(c.Name):
		return errors.New("capture needs a name of a database")
	case c.Epoch == 0:
		return errors.New("capture needs an epoch")
	case c.Table.PageSize() != c.DB.PageSize():
		return ErrPageSize
	}
	return nil
}

// Errors of a Capture that its caller tells apart.
var (
	// ErrDiscontinuous: it can't be proved that what is in the WAL follows the
	// place that was captured last. The error is a [*Discontinuity].
	ErrDiscontinuous = errors.New("the WAL does not continue what was captured")
	// ErrFenced: page 1 carries a mark that says read-only. This node wrote none
	// while it was primary, so somebody else said that it is not.
	ErrFenced = errors.New("the database was fenced by another process")
	// ErrPageSize: the database has another page size than what was captured of
	// it. It has to be started anew.
	ErrPageSize = errors.New("the page size of the database has changed")
	// ErrReplaced: the path leads to another file, or to none: then the error also
	// wraps fs.ErrNotExist. Close the DB and open it again.
	ErrReplaced = errors.New("the database file was replaced")
	// ErrRewritten: the content of the database file was changed by something else
	// than SQLite's WAL. Close the DB and open it again, since SQLite takes the size
	// from the wal-index; then [Capture.Rebase] finds what is different now.
	ErrRewritten = errors.New("the database file was written to outside SQLite")
	// ErrNotResumed: Run needs Resume or Rebase first.
	ErrNotResumed = errors.New("capture has no place in the WAL yet")
)

// Discontinuity says what speaks against continuity. It wraps
// [ErrDiscontinuous].
type Discontinuity struct {
	What string
	// SameFile tells that it is the same file in the same boot of the host: so
	// everything that was captured before is in it, and what differs came later.
	SameFile bool
}

// Error says what differs.
func (d *Discontinuity) Error() string { return ErrDiscontinuous.Error() + ": " + d.What }

// Unwrap returns [ErrDiscontinuous].
func (d *Discontinuity) Unwrap() error { return ErrDiscontinuous }
