package sqlitedb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// chunkBytes is how much of the database file a walk reads at once.
const chunkBytes = 1 << 20

// Snapshot reads the pages of a database as of one wal-index header. It holds a
// read transaction: until Close the WAL does not restart over its frames, and
// they may keep it from becoming shorter. It is used by one goroutine at a time.
//
// The rule by which it finds a page is SQLite's: the newest frame up to the
// header's MaxFrame, else the database file, else zeros. If, under the write
// lock and after the read began, every frame was copied, then the read may be
// one that does not keep the WAL, and all is taken from the file: nobody can
// change that while the read lasts.
type Snapshot struct {
	db     *DB
	conn   *Conn
	header sqlitefile.IndexHeader
	count  uint32
	copied bool              // all is in the file
	frames map[uint32]uint32 // newest frame of each page in the WAL; built at first use
}

// Snapshot begins a snapshot of the newest commit. It takes the write lock for
// a moment, unless writeLocked says that somebody in this process who shares the
// DB holds it, and lets no commit happen during the call.
func (db *DB) Snapshot(ctx context.Context, writeLocked bool) (_ *Snapshot, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot %s: %w", db.path, err)
		}
	}()
	s := &Snapshot{db: db}
	if s.conn, err = db.Conn(ctx); err != nil {
		return nil, err
	}
	if !writeLocked {
		lock, err := db.LockWrite(ctx)
		if err != nil {
			return nil, errors.Join(err, s.conn.Close())
		}
		defer func() { err = errors.Join(err, lock.Release()) }()
	}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	return s, nil
}

// begin is called under the write lock, so that the header can't move.
func (s *Snapshot) begin(ctx context.Context) error {
	// First the header: if it is torn, a read would want the write lock to recover
	// it, which it can't get while we have it.
	h, err := s.db.Header(ctx)
	if err != nil {
		return err
	}
	if err := s.conn.BeginRead(); err != nil {
		return err
	}
	s.header, s.count = h, h.PageCount
	s.copied = s.db.index.Backfill() == h.MaxFrame
	if s.count == 0 {
		s.count, err = s.db.fileCount()
	}
	return err
}

// fileCount returns the size of the database as SQLite knows it when its WAL has
// never had a commit: page 1 says it, unless an old version of SQLite has
// written since; then the length of the file does.
func (db *DB) fileCount() (uint32, error) {
	st, err := db.main.Stat()
	if err != nil {
		return 0, err
	}
	count := uint32(st.Size() / int64(db.pageSize))
	var head [sqlitefile.DBHeaderSize]byte
	if _, err := db.main.ReadAt(head[:], 0); err != nil {
		return 0, fmt.Errorf("read page 1: %w", err)
	}
	h, err := sqlitefile.ParseDBHeader(head[:])
	if err == nil && h.ChangeCounter == h.VersionValid && h.PageCount > 0 && h.PageCount < count {
		count = h.PageCount
	}
	return count, err
}

// Header reads a consistent header of the wal-index, which another process may
// be writing at this moment.
func (db *DB) Header(ctx context.Context) (sqlitefile.IndexHeader, error) {
	for try := 0; ; try++ {
		if h, ok := db.index.Header(); ok {
			return h, nil
		}
		if try > 1000 {
			return sqlitefile.IndexHeader{}, fmt.Errorf("read wal-index of %s: %w", db.path, ErrTornIndex)
		}
		select {
		case <-ctx.Done():
			return sqlitefile.IndexHeader{}, context.Cause(ctx)
		case <-time.After(time.Duration(min(try, 10)) * 10 * time.Microsecond):
		}
	}
}

// ErrTornIndex is wrapped by errors that mean: a writer died while it changed
// the wal-index. [DB.Recover] lets SQLite repair it.
var ErrTornIndex = errors.New("the header of the wal-index is torn")

// Header returns the header of the wal-index that the snapshot is of.
func (s *Snapshot) Header() sqlitefile.IndexHeader { return s.header }

// PageSize returns the page size in bytes.
func (s *Snapshot) PageSize() uint32 { return s.db.pageSize }

// PageCount returns the size of the database in pages.
func (s *Snapshot) PageCount() uint32 { return s.count }

// ReadPage reads page no, from 1 to PageCount, into buf, which is as long as
// the page size. Page 1 is as it is in the database: its mark is not changed.
func (s *Snapshot) ReadPage(no uint32, buf []byte) error {
	if no == 0 || no > s.count || len(buf) != int(s.db.pageSize) {
		return fmt.Errorf("read page %d into %d bytes: the database has %d pages of %d bytes",
			no, len(buf), s.count, s.db.pageSize)
	}
	if err := s.mapFrames(); err != nil {
		return err
	}
	if frame, ok := s.frames[no]; ok {
		return s.readFrame(frame, buf)
	}
	return s.readFile(no, buf)
}

// Pages walks over the pages from first on, page 1 normalised, the lock-byte
// page left out. It reads the file in its own order, a large part at once.
func (s *Snapshot) Pages(first uint32) walstream.Pages {
	return func(yield func(walstream.Page, error) bool) {
		if err := s.mapFrames(); err != nil {
			yield(walstream.Page{}, err)
			return
		}
		size := s.db.pageSize
		chunk := make([]byte, max(chunkBytes/size, 1)*size)
		for no := uint64(max(first, 1)); no <= uint64(s.count); {
			n := min(uint64(len(chunk))/uint64(size), uint64(s.count)-no+1)
			part := chunk[:n*uint64(size)]
			if err := s.readFile(uint32(no), part); err != nil {
				yield(walstream.Page{}, err)
				return
			}
			for ; len(part) > 0; part = part[size:] {
				if !s.yieldPage(uint32(no), part[:size], yield) {
					return
				}
				no++
			}
		}
	}
}

func (s *Snapshot) yieldPage(no uint32, data []byte, yield func(walstream.Page, error) bool) bool {
	if no == sqlitefile.LockBytePage(s.db.pageSize) {
		return true
	}
	if frame, ok := s.frames[no]; ok {
		if err := s.readFrame(frame, data); err != nil {
			yield(walstream.Page{}, err)
			return false
		}
	}
	if no == 1 {
		sqlitefile.Normalise(data)
	}
	return yield(walstream.Page{No: no, Data: data}, nil)
}

// Close ends the read transaction.
func (s *Snapshot) Close() error { return s.conn.Close() }

// mapFrames notes the newest frame of each page, once.
func (s *Snapshot) mapFrames() error {
	if s.frames != nil {
		return nil
	}
	s.frames = map[uint32]uint32{}
	if s.copied {
		return nil
	}
	for frame := uint32(1); frame <= s.header.MaxFrame; frame++ {
		no := s.db.index.PageNo(frame)
		if no == 0 {
			s.frames = nil
			return fmt.Errorf("read wal-index: frame %d of %d has no page", frame, s.header.MaxFrame)
		}
		s.frames[no] = frame
	}
	return nil
}

func (s *Snapshot) readFrame(frame uint32, buf []byte) error {
	off := sqlitefile.FrameOffset(frame, s.db.pageSize) + sqlitefile.FrameHeaderSize
	if _, err := s.db.wal.ReadAt(buf, off); err != nil {
		return fmt.Errorf("read frame %d: %w", frame, err)
	}
	return nil
}

// readFile reads from the database file; what is beyond its end is zeros.
func (s *Snapshot) readFile(no uint32, buf []byte) error {
	n, err := s.db.main.ReadAt(buf, int64(no-1)*int64(s.db.pageSize))
	if err != nil && err != io.EOF {
		return fmt.Errorf("read page %d: %w", no, err)
	}
	clear(buf[n:])
	return nil
}
