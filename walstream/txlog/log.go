package txlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/lsnode/lsnode/walstream"
)

// Log is a node's log of all its databases. It is safe for concurrent use.
// Open makes one.
type Log struct {
	fs          fileSystem
	segmentSize int64
	logger      *slog.Logger

	// Locks are taken in this order: that of a database's writer, write, files, mu.

	// write is held by who writes to the last segment: it orders the log.
	write struct {
		sync.Mutex
		buf   []byte   // to write a mark and a frame with one call
		mark  location // what the last mark says
		count uint64   // frames written
	}
	// files is held while files are synced, sealed, cut or removed.
	files sync.Mutex
	// mu is held for moments only, never during input or output.
	mu struct {
		sync.Mutex
		index   *index
		segs    []*segment // consecutive, the last one is written to; never empty
		durable location   // everything before it is
		failed  error
		dirty   map[string]struct{}      // appended to since the last sync began
		streams map[string]partial       // large transactions under way
		notify  map[string]chan struct{} // closed at the next change
		writers map[string]*sync.Mutex   // one appends to a database at a time
		round   *round                   // the next fsync, if someone waits for it
	}
	kick chan struct{} // wakes the syncer
	stop context.CancelFunc
	done chan struct{} // closed when the syncer has ended
}

// Open opens the log in a directory, which it makes if there is none. Only one
// process may have it open. What a crash has left at the end, incomplete or
// torn, is cut; everything that the log then holds is durable.
//
// Damage to what had been durable is a [CorruptError]: the directory is left as
// it is.
func Open(dir string, o Options) (*Log, error) {
	o = o.withDefaults(dir)
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{fs: o.fs, segmentSize: o.SegmentSize, logger: o.Logger}
	l.mu.index = newIndex()
	l.mu.dirty = map[string]struct{}{}
	l.mu.streams = map[string]partial{}
	l.mu.notify = map[string]chan struct{}{}
	l.mu.writers = map[string]*sync.Mutex{}
	if err := l.recover(); err != nil {
		for _, s := range l.mu.segs {
			err = errors.Join(err, s.release())
		}
		return nil, fmt.Errorf("open log: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.kick, l.done = stop, make(chan struct{}, 1), make(chan struct{})
	go l.syncLoop(ctx)
	return l, nil
}

// makeDir makes a directory, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return osDir(filepath.Dir(dir)).SyncDir()
}

// Close makes durable what was appended and closes the files. Calls under way
// fail with [ErrClosed]; readers that are in the middle of a walk may go on
// until they leave it.
func (l *Log) Close() error {
	err := l.Sync(context.Background())
	if errors.Is(err, ErrClosed) {
		return nil
	}
	l.write.Lock()
	defer l.write.Unlock()
	if err == nil {
		err = l.writeMark()
	}
	l.mu.Lock()
	closing := !errors.Is(l.mu.failed, ErrClosed)
	l.mu.failed = ErrClosed
	l.mu.Unlock()
	l.stop()
	<-l.done
	if !closing {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	for _, s := range l.mu.segs { // nobody changes it any more
		err = errors.Join(err, s.release())
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// Last returns the position after the last transaction of a database; zero if
// there is none. It may not be durable yet.
func (l *Log) Last(db string) walstream.Position {
	h, _ := l.LastHeader(db)
	return h.Post
}

// LastHeader returns the header of the last record of a database, which says
// the place in the primary's WAL; false if there is none.
func (l *Log) LastHeader(db string) (walstream.Header, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.mu.index.dbs[db]; st != nil && st.last.Kind != 0 {
		return st.last, true
	}
	return walstream.Header{}, false
}

// Durable returns the position up to which the log of a database is on disk.
func (l *Log) Durable(db string) walstream.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.mu.index.dbs[db]; st != nil {
		return st.durable
	}
	return walstream.Position{}
}

// First returns the position before the oldest transaction of a database that
// the log still has; [Log.Since] reads from there on.
func (l *Log) First(db string) walstream.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st := l.mu.index.dbs[db]; st != nil {
		return st.base.Post
	}
	return walstream.Position{}
}

// Databases returns the names of all databases that the log knows, sorted.
func (l *Log) Databases() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.index.names()
}

// Notify returns a channel that is closed when the log of a database changes
// next. Take it before reading up to the end, so that nothing is missed.
func (l *Log) Notify(db string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := l.mu.notify[db]
	if ch == nil {
		ch = make(chan struct{})
		l.mu.notify[db] = ch
	}
	return ch
}

// changedLocked tells of a frame in the last segment that changes what a
// database's log holds.
func (l *Log) changedLocked(db string) {
	l.tailLocked().touched[db] = struct{}{}
	l.mu.dirty[db] = struct{}{}
	if ch := l.mu.notify[db]; ch != nil {
		close(ch)
		delete(l.mu.notify, db)
	}
}

func (l *Log) tailLocked() *segment { return l.mu.segs[len(l.mu.segs)-1] }

// fail makes the log refuse everything that writes.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failed == nil {
		l.mu.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		l.logger.Error("log has failed", "error", err)
	}
	return l.mu.failed
}

// lockWriter makes the caller the only one that appends to a database.
func (l *Log) lockWriter(db string) *sync.Mutex {
	l.mu.Lock()
	w := l.mu.writers[db]
	if w == nil {
		w = new(sync.Mutex)
		l.mu.writers[db] = w
	}
	l.mu.Unlock()
	w.Lock()
	return w
}
