package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// Errors that callers branch on.
var (
	// ErrChecksum: the database after the transaction would not be what the
	// transaction says. Nothing was published; the copy needs repair.
	ErrChecksum = errors.New("checksum after the transaction differs")
	// ErrGap: the transaction does not begin where the copy stands.
	ErrGap = errors.New("transaction does not follow")
	// ErrPageSize: the copy has another page size; it has to be made anew.
	ErrPageSize = errors.New("page size differs")
	// ErrMalformed: the transaction has pages that can't be.
	ErrMalformed = errors.New("malformed transaction")
	// ErrUnsettled: what the copy holds is not known. Settle or Repair it first. It
	// wraps ErrChecksum: the answer to both is a comparison of the content.
	ErrUnsettled = fmt.Errorf("content of the copy is not known: %w", ErrChecksum)
	// ErrNotFenced: the Replica does not hold the write lock.
	ErrNotFenced = errors.New("database is not fenced by this node")
)

// Config is what a [Replica] works with.
type Config struct {
	DB    *sqlitedb.DB   // the copy. The caller closes it, after the Replica. Required
	Table *pagesum.Table // its page checksums. The caller closes it, after the Replica. Required

	// SyncLog returns once all that was appended to the log before the call is
	// durable. It is called before anything relies on it. Default: nothing.
	SyncLog func(context.Context) error
	// StatePath is the file in which the position is recorded. Required
	StatePath string
	// FileMode and FileGroup are what the copy, its -wal and its -shm get, so that
	// an application under another user can read them: it must be able to write the
	// -shm. Default 0: as they are.
	FileMode  os.FileMode
	FileGroup int

	// CheckpointFrames is how much the WAL may grow before it is copied; at four
	// times that length it is made to restart. Default 1000.
	CheckpointFrames uint32
	// IdleAfter is how long nothing is applied before what there is gets
	// checkpointed and recorded. Default 3 s.
	IdleAfter time.Duration
	// MaxPause bounds how long applying stands still, beside the fsyncs of a
	// checkpoint, for readers to leave older marks, and again for them to leave the
	// WAL, so that it can restart. Default 5 ms.
	MaxPause time.Duration
	// KeepWAL is how long in bytes the -wal file may stay when it restarts.
	// Default: eight times CheckpointFrames.
	KeepWAL int64

	Logger *slog.Logger // Default: none
}

func (c Config) withDefaults() Config {
	if c.SyncLog == nil {
		c.SyncLog = func(context.Context) error { return nil }
	}
	if c.CheckpointFrames == 0 {
		c.CheckpointFrames = 1000
	}
	if c.IdleAfter <= 0 {
		c.IdleAfter = 3 * time.Second
	}
	if c.MaxPause <= 0 {
		c.MaxPause = 5 * time.Millisecond
	}
	if c.KeepWAL <= 0 {
		c.KeepWAL = sqlitefile.FrameOffset(8*c.CheckpointFrames, c.DB.PageSize())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Start says what is known of a copy when it is opened.
type Start int

// The ways to start.
const (
	// StartUnknown: nothing is recorded for this file. It needs a scan or a repair.
	StartUnknown Start = iota
	// StartUnfenced: it was unfenced at the recorded position or later, and
	// applications may have written since. What of it is captured the log knows.
	StartUnfenced
	// StartClean: the copy is exactly at the recorded position.
	StartClean
	// StartCrashed: in the same boot. The copy is at the recorded position or later,
	// not beyond the log: apply the log's rest as one transaction.
	StartCrashed
	// StartRebooted: like StartCrashed, but the copy may be beyond the log: compare
	// its content with the checksums afterwards.
	StartRebooted
)

// String names the way for people.
func (s Start) String() string {
	switch s {
	case StartUnknown:
		return "unknown"
	case StartUnfenced:
		return "after being unfenced"
	case StartClean:
		return "clean"
	case StartCrashed:
		return "after a crash"
	case StartRebooted:
		return "after a reboot"
	}
	return fmt.Sprintf("Start(%d)", int(s))
}

// Replica is a live copy of a database to which transactions are applied. Its
// methods may be called by several goroutines; Apply waits for Apply.
type Replica struct {
	c        Config
	files    sqlitefile.Files
	conn     *sqlitedb.Conn // checkpoints; used by Run only, and by Close after it
	bound    *sqlitedb.Conn // reads, to bound a checkpoint; likewise
	start    Start
	rebooted bool          // what is recorded was in another boot
	kick     chan struct{} // tells Run that the WAL is long or something was applied

	apply struct {
		sync.Mutex                     // held while frames are written; the fields below
		w          *sqlitefile.Writer  // holds the write lock while fenced
		lock       *sqlitedb.WriteLock // of this process; held with it
		update     *pagesum.Update     // memory, used again
		page1      []byte              // likewise
		clean      bool                // the record says that nothing is applied any more: fence undoes it
		settled    bool                // the content is known to be that of the position
		follows    bool                // settled, or the log's rest applied to it makes it so
	}
	record struct {
		sync.Mutex // held while a position is recorded; taken before apply
		state      *stateFile
	}
	mu struct {
		sync.Mutex
		applied walstream.Position // visible
		durable walstream.Position // recorded
		fenced  bool               // the write lock is held, see apply.lock
		changed chan struct{}      // closed at the next change of applied; nil: no one waits
		stats   Stats
	}
}

// Open prepares a copy for applying and reads what is recorded about it. It
// neither locks nor changes the database: that begins with Fence.
func Open(c Config) (_ *Replica, err error) {
	c = c.withDefaults()
	if c.Table.PageSize() != c.DB.PageSize() {
		return nil, fmt.Errorf("open replica %s: %w: table %d, database %d", c.DB.Path(), ErrPageSize, c.Table.PageSize(), c.DB.PageSize())
	}
	r := &Replica{c: c, kick: make(chan struct{}, 1)}
	r.files = c.DB.Files()
	r.apply.w = sqlitefile.NewWriter(r.files)
	r.apply.page1 = make([]byte, c.DB.PageSize())
	if err := r.setOwner(); err != nil {
		return nil, fmt.Errorf("open replica %s: %w", c.DB.Path(), err)
	}
	if r.record.state, err = openState(c.StatePath); err != nil {
		return nil, fmt.Errorf("open replica %s: %w", c.DB.Path(), err)
	}
	s, id := r.record.state.last, c.DB.Identity()
	r.start = startOf(s, r.record.state.sequence > 0, id)
	r.rebooted = r.record.state.sequence > 0 && s.file.BootID != id.BootID
	if r.start != StartUnknown {
		r.mu.applied, r.mu.durable = s.position, s.position
	}
	r.apply.clean = s.clean
	r.apply.settled = r.start == StartClean
	r.apply.follows = r.start == StartClean || r.start == StartCrashed || r.start == StartRebooted
	for _, conn := range []**sqlitedb.Conn{&r.conn, &r.bound} {
		if *conn, err = c.DB.Conn(context.Background()); err != nil {
			return nil, errors.Join(fmt.Errorf("open replica: %w", err), r.closeFiles())
		}
	}
	// Not left to how SQLite was built: a checkpoint must fsync.
	if err := r.conn.Exec("PRAGMA synchronous=NORMAL"); err != nil {
		return nil, errors.Join(fmt.Errorf("open replica: %w", err), r.closeFiles())
	}
	return r, nil
}

func startOf(s state, recorded bool, id sqlitedb.Identity) Start {
	switch {
	case !recorded, s.position.IsZero(), s.file.Device != id.Device, s.file.Inode != id.Inode:
		return StartUnknown
	case s.unfenced:
		return StartUnfenced
	case s.clean:
		return StartClean
	case s.file.BootID == id.BootID:
		return StartCrashed
	}
	return StartRebooted
}

// setOwner gives the three files the mode and group of the configuration.
func (r *Replica) setOwner() error {
	for _, f := range []*os.File{r.files.Main, r.files.Wal, r.files.Shm} {
		if err := setOwner(f, r.c.FileMode, r.c.FileGroup); err != nil {
			return err
		}
	}
	return nil
}

func setOwner(f *os.File, mode os.FileMode, group int) error {
	if group != 0 {
		if err := f.Chown(-1, group); err != nil {
			return fmt.Errorf("set group: %w", err)
		}
	}
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return nil
}

// Start tells what was known of the copy when it was opened.
func (r *Replica) Start() Start { return r.start }

// Rebooted tells whether the host has booted since the position was recorded:
// then the copy may be behind or beyond the log, unless Start is StartClean.
func (r *Replica) Rebooted() bool { return r.rebooted }

// Applied returns the position that readers see. After an unclean start it is
// the recorded one until the log's rest is applied.
func (r *Replica) Applied() walstream.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.applied
}

// Durable returns the position that is recorded, and durable in the database.
func (r *Replica) Durable() walstream.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.durable
}

// Changed returns a channel that is closed when the applied position next
// changes.
func (r *Replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.changed == nil {
		r.mu.changed = make(chan struct{})
	}
	return r.mu.changed
}

// Settle declares that the copy's content is that of pos, as the caller knows
// from elsewhere: it was captured, seeded or scanned. The table has the
// checksums of that content.
func (r *Replica) Settle(pos walstream.Position) {
	r.apply.Lock()
	defer r.apply.Unlock()
	r.c.Table.Begin(r.c.Table.PageCount(), nil).Commit(pos)
	r.apply.settled, r.apply.follows = true, true
	r.setApplied(pos)
}

func (r *Replica) setApplied(pos walstream.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.applied = pos
	if r.mu.changed != nil {
		close(r.mu.changed)
		r.mu.changed = nil
	}
}

// Sync makes what is applied durable and records its position. It waits for no
// reader and copies nothing.
func (r *Replica) Sync(ctx context.Context) error { return r.recordPosition(ctx, false) }

// Close records the position as that of a clean end, and gives up the write
// lock: the mark stays. Run has returned. The Replica is of no use afterwards.
func (r *Replica) Close(ctx context.Context) error {
	var errs []error
	r.apply.Lock()
	fenced, settled := r.apply.w.Held(), r.apply.settled && !r.apply.clean
	r.apply.Unlock()
	if fenced && settled {
		errs = append(errs, r.recordPosition(ctx, true))
	}
	r.apply.Lock()
	defer r.apply.Unlock()
	errs = append(errs, r.releaseLocked(), r.closeFiles())
	return errors.Join(errs...)
}

func (r *Replica) closeFiles() error {
	var errs []error
	for _, conn := range []*sqlitedb.Conn{r.conn, r.bound} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(append(errs, r.record.state.close())...)
}

// recordPosition makes the applied position durable, in the order that the
// package comment gives. clean: nothing will be written any more.
func (r *Replica) recordPosition(ctx context.Context, clean bool) error {
	r.record.Lock()
	defer r.record.Unlock()
	r.apply.Lock()
	held, settled, pos := r.apply.w.Held(), r.apply.settled, r.Applied()
	r.apply.Unlock()
	if !held {
		return fmt.Errorf("record position of %s: %w", r.c.DB.Path(), ErrNotFenced)
	}
	if !settled {
		return nil // what was recorded is still the best that is known
	}
	s := state{position: pos, clean: clean, file: r.c.DB.Identity()}
	if r.record.state.sequence > 0 && s == r.record.state.last {
		return nil
	}
	if err := r.c.SyncLog(ctx); err != nil {
		return fmt.Errorf("record position of %s: sync log: %w", r.c.DB.Path(), err)
	}
	if err := unix.Fdatasync(int(r.files.Wal.Fd())); err != nil {
		return fmt.Errorf("record position of %s: sync WAL: %w", r.c.DB.Path(), err)
	}
	// Others may go on applying: then the table is flushed at a later position.
	if err := r.c.Table.FlushCurrent(func(walstream.Position) error { return r.c.SyncLog(ctx) }); err != nil {
		return fmt.Errorf("record position of %s: %w", r.c.DB.Path(), err)
	}
	if err := r.record.state.record(s); err != nil {
		return fmt.Errorf("%s: %w", r.c.DB.Path(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.durable = pos
	return nil
}
