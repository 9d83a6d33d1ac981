package sqlitedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// ErrClosed is wrapped by the errors of a DB that has been closed.
var ErrClosed = errors.New("database is closed")

// Options say how [Open] treats a file.
type Options struct {
	// Convert puts a database that is in another journal mode in WAL mode. Default
	// false: it is refused.
	Convert bool
	// BusyTimeout is how long a SQLite connection waits for another one's lock.
	// Default 2 s.
	BusyTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 2 * time.Second
	}
	return o
}

// DB is the one owner of what this process has open of a database. Its methods
// may be called by several goroutines.
type DB struct {
	path     string // as given
	real     string // without symbolic links: SQLite puts -wal and -shm beside that
	pageSize uint32
	identity Identity
	busy     time.Duration

	main, wal, shm *os.File // never closed while a connection is open
	index          *sqlitefile.Index
	writing        chan struct{} // one token: whoever has it may take the write lock

	mu struct {
		sync.Mutex
		conns  map[*Conn]struct{} // all that are open
		keeper *Conn              // keeps the files in use by SQLite, too
		closed bool
	}
}

// Open opens a database. Errors are a [*Refusal] if the file is no fit
// database. The caller sees to it that this process has nothing else open of
// it, and has opened nothing of it outside SQLite while SQLite had.
func Open(ctx context.Context, path string, o Options) (_ *DB, err error) {
	o = o.withDefaults()
	db := &DB{path: path, busy: o.BusyTimeout, writing: make(chan struct{}, 1)}
	db.mu.conns = map[*Conn]struct{}{}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := db.openMain(); err != nil {
		return nil, err
	}
	if err := db.openSQLite(o.Convert); err != nil {
		return nil, err
	}
	if err := db.openWAL(); err != nil {
		return nil, err
	}
	return db, nil
}

// Path returns the path that was opened.
func (db *DB) Path() string { return db.path }

// Files returns what a [sqlitefile.Writer] works on; the DB stays their owner.
func (db *DB) Files() sqlitefile.Files {
	return sqlitefile.Files{Main: db.Main(), Wal: db.Wal(), Shm: db.Shm(), Index: db.Index(), PageSize: db.PageSize()}
}

// PageSize returns the page size in bytes.
func (db *DB) PageSize() uint32 { return db.pageSize }

// Main returns the database file, for reading. Nobody but the DB closes it.
func (db *DB) Main() *os.File { return db.main }

// Wal returns the -wal file. Nobody but the DB closes it.
func (db *DB) Wal() *os.File { return db.wal }

// Shm returns the -shm file, through which locks are taken. Nobody but the DB
// closes it.
func (db *DB) Shm() *os.File { return db.shm }

// Index returns the mapped wal-index.
func (db *DB) Index() *sqlitefile.Index { return db.index }

// Recover lets SQLite rebuild a wal-index whose header is torn, as any reader
// does that finds it so. The caller does not hold the write lock.
func (db *DB) Recover(ctx context.Context) (err error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.BeginRead(); err != nil {
		return fmt.Errorf("recover wal-index of %s: %w", db.path, err)
	}
	return c.EndRead()
}

// Close closes all connections and then the files. Nothing is checkpointed, and
// the WAL stays. No connection, Snapshot or lock may be in use. A second Close
// does nothing.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.closed {
		return nil
	}
	db.mu.closed = true
	var errs []error
	for c := range db.mu.conns {
		if err := c.c.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close connection to %s: %w", db.path, err))
		}
	}
	clear(db.mu.conns)
	if len(errs) > 0 {
		// A connection that stays open keeps its locks only while the descriptors do
		// too: better to leak than to let the WAL be reset under it.
		return errors.Join(errs...)
	}
	if db.index != nil {
		errs = append(errs, db.index.Close())
	}
	for _, f := range []*os.File{db.shm, db.wal, db.main} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// WALBytes returns the length of the -wal file.
func (db *DB) WALBytes() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(db.wal.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", db.wal.Name(), err)
	}
	return st.Size, nil
}
