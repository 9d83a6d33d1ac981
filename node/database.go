package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lsnode/lsnode/node/guard"
	"github.com/lsnode/lsnode/node/metrics"
	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/apply"
	"github.com/lsnode/lsnode/walstream/capture"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
	"github.com/lsnode/lsnode/walstream/txlog"
)

var (
	// errAbsent says that there is no file where a database is expected.
	errAbsent = errors.New("there is no file yet")
	// errForeign says that the file at a copy's path is no copy that this node
	// has made or captured.
	errForeign = errors.New("a file is in the way that is not this cluster's copy as far as this node knows: " +
		"move it away, or start with --replace, which keeps it aside")
)

// shared is what all databases of a node use together.
type shared struct {
	log        *slog.Logger
	txlog      *txlog.Log
	gate       *gate
	quarantine Quarantine
	node       string        // this node's name
	guard      *guard.Client // nil: none
	watcher    *capture.Watcher
	create     apply.CreateOptions
	fileMode   os.FileMode
	fileGroup  int
	replace    bool // files in the way of copies are put aside
}

// database is one database on this node: its file, its table of page checksums
// and what is known of both. One role at a time moves it; the server of pulls
// may take snapshots meanwhile.
type database struct {
	*shared
	name, path string
	dir        string // DATA-DIR/state/NAME
	progress   *progress
	counts     *metrics.Database
	reported   time.Time // when a repair's progress was logged last; of the role

	// content is held while what the file holds, or which file it is, changes on a
	// follower, and while a snapshot begins.
	content sync.Mutex
	opened  *opened          // guarded by content; nil: not open
	capture *capture.Capture // guarded by content; set while primary
	counted counted          // guarded by content
	lent    sync.WaitGroup   // snapshots in use by the server of pulls
	fsyncs  rounds           // of the database's own files

	compared bool // what a reboot has left of the file was compared with the table

	// The parts of opened, for the role that moves the database.
	file    *sqlitedb.DB
	table   *pagesum.Table
	replica *apply.Replica
}

// opened is what exists while a database is open.
type opened struct {
	stop context.CancelFunc // ends the replica's upkeep
	done chan struct{}      // closed when it has ended
}

// open opens the file with all that belongs to it, unless it is open, and
// brings the table of page checksums up to the log's end. errAbsent: there is no
// file. convert allows to put an ordinary database into WAL mode.
func (d *database) open(ctx context.Context, convert bool) (err error) {
	d.content.Lock()
	defer d.content.Unlock()
	if d.opened != nil {
		return nil
	}
	if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: %w", d.path, errAbsent)
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	file, err := sqlitedb.Open(ctx, d.path, sqlitedb.Options{Convert: convert})
	if err != nil {
		return err
	}
	table, err := d.openTable(ctx, file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	replica, err := apply.Open(apply.Config{
		DB: file, Table: table, SyncLog: d.txlog.Sync, Logger: d.log,
		StatePath: d.appliedPath(), FileMode: d.fileMode, FileGroup: d.fileGroup,
	})
	if err != nil {
		return errors.Join(err, table.Close(), file.Close())
	}
	d.file, d.table, d.replica = file, table, replica
	d.compared = !replica.Rebooted()
	d.startUpkeep()
	return nil
}

// startUpkeep lets the replica checkpoint the copy until close.
func (d *database) startUpkeep() {
	ctx, stop := context.WithCancel(context.Background())
	o := &opened{stop: stop, done: make(chan struct{})}
	replica := d.replica
	go func() {
		defer close(o.done)
		_ = replica.Run(ctx) // ends with ctx only
	}()
	d.opened = o
}

// close closes everything, in the order that keeps SQLite's locks whole until
// its connections are gone. It may be opened again.
func (d *database) close(ctx context.Context) error {
	d.content.Lock()
	defer d.content.Unlock()
	if d.opened == nil {
		return nil
	}
	d.opened.stop()
	<-d.opened.done
	d.lent.Wait()
	d.countLocked()
	d.counted.replica = apply.Stats{}
	err := errors.Join(d.replica.Close(ctx), d.table.Close(), d.file.Close())
	d.opened, d.file, d.table, d.replica = nil, nil, nil, nil
	return err
}

func (d *database) appliedPath() string { return filepath.Join(d.dir, "applied") }

func (d *database) tablePath() string { return filepath.Join(d.dir, "pages") }

// openTable opens the table of page checksums at the log's end. One that can't
// be brought there is made anew, empty: whoever needs it then scans the file.
func (d *database) openTable(ctx context.Context, file *sqlitedb.DB) (*pagesum.Table, error) {
	table, err := pagesum.Open(d.tablePath(), file.PageSize())
	if errors.Is(err, pagesum.ErrPageSize) || errors.Is(err, pagesum.ErrCorrupt) || errors.Is(err, pagesum.ErrVersion) {
		d.log.Warn("the table of page checksums is made anew", "database", d.name, "reason", err)
		if err := removeFile(d.tablePath()); err != nil {
			return nil, err
		}
		table, err = pagesum.Open(d.tablePath(), file.PageSize())
	}
	if err != nil {
		return nil, err
	}
	err = d.replayInto(table)
	switch {
	case errors.Is(err, txlog.ErrNotOnLine), errors.Is(err, txlog.ErrTruncated):
		table.Reset()
		return table, nil
	case err != nil:
		return nil, errors.Join(err, table.Close())
	}
	if end := d.txlog.Last(d.name); !end.IsZero() && table.Checksum() != end.Checksum {
		d.log.Warn("the table of page checksums does not agree with the log", "database", d.name, "position", end)
		table.Reset()
	}
	return table, nil
}

// replayInto sets the table's entries for every page that the log changed since
// the table was flushed. After a crash some of them are in it already.
func (d *database) replayInto(table *pagesum.Table) error {
	end := d.txlog.Last(d.name)
	if end.IsZero() || table.Position() == end {
		return nil
	}
	for txn, err := range d.txlog.Since(d.name, table.Position()) {
		if err != nil {
			return fmt.Errorf("bring page checksums up to the log: %w", err)
		}
		var pages uint32
		if txn.Kind == walstream.KindPages {
			pages = txn.PageCount
		} else {
			pages = table.PageCount()
		}
		update := table.Begin(pages, nil)
		for page, err := range txn.Pages {
			if err != nil {
				return fmt.Errorf("bring page checksums up to the log: %w", err)
			}
			update.Set(page.No, pagesum.Page(page.No, page.Data))
		}
		update.Commit(txn.Post)
	}
	return nil
}

// fence closes the database to writers, if its file is there: it waits for a
// write transaction that is under way, until ctx ends.
func (d *database) fence(ctx context.Context) error {
	err := d.openCopy(ctx)
	if errors.Is(err, errAbsent) {
		return d.guard.Closed(d.name)
	}
	if err != nil {
		return err
	}
	if err := d.suspectUnmarked(); err != nil {
		return err
	}
	return d.shut(ctx)
}

// shut is fence of a file that is open.
func (d *database) shut(ctx context.Context) error {
	if err := d.replica.Fence(ctx); err != nil {
		return err
	}
	return d.guard.Closed(d.name)
}

// openCopy opens a file that this node has made or captured. Another one is
// left alone, or put aside where that was asked for.
func (d *database) openCopy(ctx context.Context) error {
	if err := d.open(ctx, false); err != nil {
		return err
	}
	if !d.txlog.Last(d.name).IsZero() || d.replica.Start() != apply.StartUnknown {
		return nil
	}
	if err := d.close(ctx); err != nil {
		return err
	}
	if !d.replace {
		return fmt.Errorf("take %s: %w", d.path, errForeign)
	}
	if err := d.putAside(); err != nil {
		return err
	}
	return fmt.Errorf("open %s: %w", d.path, errAbsent)
}

// putAside renames the file and what SQLite has beside it, so that it stays a
// whole database.
func (d *database) putAside() error {
	aside := d.path + ".replaced-" + time.Now().UTC().Format("20060102T150405.000000000")
	for _, suffix := range []string{"", "-wal"} {
		if err := os.Rename(d.path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put the file aside: %w", err)
		}
	}
	if err := removeFile(d.path + "-shm"); err != nil {
		return err
	}
	d.log.Warn("put a file aside that was in the way of a copy", "database", d.name, "path", d.path, "aside", aside)
	return syncDir(filepath.Dir(d.path))
}

// unfence opens the database for writing, if it is closed. lifted tells that it
// was, and place is then where in the WAL all that was applied ends. valid is
// asked while nobody can write: errDeposed is returned if this node may not any
// more, by its lease or since its guard has closed the database in its stead.
func (d *database) unfence(ctx context.Context, valid func() bool) (place walstream.Place, lifted bool, err error) {
	if err := d.guard.Opening(guard.Database{Name: d.name, Path: d.path}); err != nil {
		return place, false, err
	}
	mark, err := d.replica.Mark()
	if err != nil {
		return place, false, err
	}
	if mark <= sqlitefile.MarkWAL && !d.replica.Fenced() {
		return place, false, nil
	}
	if err := d.replica.Fence(ctx); err != nil {
		return place, false, err
	}
	if !valid() {
		return place, false, fmt.Errorf("open %s for writing: %w", d.path, errDeposed)
	}
	place, err = d.replica.Unfence(ctx)
	return place, err == nil, err
}

// setCapture says who captures, nil for nobody.
func (d *database) setCapture(c *capture.Capture) {
	d.content.Lock()
	defer d.content.Unlock()
	d.countLocked()
	d.capture, d.counted.capture = c, capture.Stats{}
}
