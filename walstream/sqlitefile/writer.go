package sqlitefile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTornIndex is returned by [Writer.Acquire] when the header of the wal-index
// is not whole: a writer died while it wrote it, or the index is empty. The
// write lock is not held then. Any SQLite connection recovers the index when it
// next begins a read; after that Acquire will do.
var ErrTornIndex = errors.New("wal-index has no valid header")

// ErrWALDiffers is wrapped by what [Writer.Acquire] returns when the -wal does
// not end as the wal-index says: it was cut, or replaced, by something that is
// not SQLite. Nothing may be appended then.
var ErrWALDiffers = errors.New("WAL is not what its index says")

// writeBatch is how many bytes of frames are gathered before they are written.
const writeBatch = 256 << 10

// Files are what a [Writer] works on. It neither opens nor closes them.
type Files struct {
	Main, Wal, Shm *os.File // opened for reading and writing
	Index          *Index   // of Shm
	PageSize       uint32
}

// Writer appends transactions to a WAL as SQLite's own writer does: frames,
// then the hash table, then the header of the wal-index, which makes the
// transaction visible to every reader at once.
//
//	Acquire ─▶ Page, Page, … Commit ─▶ … ─▶ Restart ─▶ Page … ─▶ Release
//	                        └ Abort
//
// The frame that would commit is written only in Commit: whatever happens
// before, nobody, not even a recovery after a crash, takes what was written so
// far for a transaction.
//
// A Writer is used by one goroutine at a time.
type Writer struct {
	f    Files
	held bool        // the write lock
	hdr  IndexHeader // the committed one; nobody else changes it while held

	// The transaction that is being written.
	buf     []byte   // frames not yet in the file; the last one still without checksum
	pages   []uint32 // the pages of the frames in buf
	written uint32   // the last frame in the file and in the hash table
	cksum   Cksum    // of the last frame that is sealed
	dirty   bool     // something of it may be in the file or the hash table
	ending  bool     // its commit frame may be in the file
}

// NewWriter returns a writer that does not hold the write lock yet.
func NewWriter(f Files) *Writer { return &Writer{f: f} }

// Acquire takes the write lock, waiting for a transaction that is being
// written until ctx ends, and makes sure that the index is whole. Errors:
// [ErrTornIndex], [ErrWALDiffers], ctx's. On error the lock is not held.
func (w *Writer) Acquire(ctx context.Context) error {
	if w.held {
		return nil
	}
	if err := Lock(ctx, w.f.Shm, LockWrite, 1, true); err != nil {
		return fmt.Errorf("take write lock: %w", err)
	}
	return w.begin()
}

// TryAcquire is Acquire that returns false instead of waiting.
func (w *Writer) TryAcquire() (bool, error) {
	if w.held {
		return true, nil
	}
	ok, err := TryLock(w.f.Shm, LockWrite, 1, true)
	if err != nil || !ok {
		return false, err
	}
	if err := w.begin(); err != nil {
		return false, err
	}
	return true, nil
}

// begin checks what is there while the write lock is held; on error it is given
// up.
func (w *Writer) begin() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, Unlock(w.f.Shm, LockWrite, 1))
		}
	}()
	h, ok := w.f.Index.Header()
	if !ok {
		return fmt.Errorf("read wal-index of %s: %w", w.f.Main.Name(), ErrTornIndex)
	}
	if h.Version != indexVersion {
		return fmt.Errorf("read wal-index of %s: unknown version %d", w.f.Main.Name(), h.Version)
	}
	if h.MaxFrame > 0 {
		if err := w.checkEnd(h); err != nil {
			return fmt.Errorf("check WAL of %s: %w", w.f.Main.Name(), err)
		}
	}
	w.f.Index.fixBackfill(h.MaxFrame)
	if err := w.f.Index.cleanup(h.MaxFrame); err != nil {
		return err
	}
	w.held, w.hdr = true, h
	w.reset()
	return nil
}

// checkEnd compares the last committed frame in the file with the index.
func (w *Writer) checkEnd(h IndexHeader) error {
	if h.PageSize != w.f.PageSize {
		return fmt.Errorf("page size %d, want %d: %w", h.PageSize, w.f.PageSize, ErrWALDiffers)
	}
	var b [FrameHeaderSize]byte
	if _, err := w.f.Wal.ReadAt(b[:], FrameOffset(h.MaxFrame, h.PageSize)); err != nil {
		return fmt.Errorf("frame %d: %w: %w", h.MaxFrame, ErrWALDiffers, err)
	}
	if f := ParseFrameHeader(b[:]); f.Salt != h.Salt || f.Cksum != h.Cksum || !f.IsCommit() {
		return fmt.Errorf("frame %d: %w", h.MaxFrame, ErrWALDiffers)
	}
	return nil
}

// Held tells whether the write lock is held.
func (w *Writer) Held() bool { return w.held }

// Header returns what is committed. It is current while the lock is held.
func (w *Writer) Header() IndexHeader { return w.hdr }

// PageCount returns the size of the database after the last commit, in pages.
func (w *Writer) PageCount() (uint32, error) {
	if w.hdr.PageCount != 0 {
		return w.hdr.PageCount, nil
	}
	st, err := w.f.Main.Stat() // no frame was ever seen: the file says it
	if err != nil {
		return 0, fmt.Errorf("read size of database: %w", err)
	}
	return uint32(st.Size() / int64(w.f.PageSize)), nil
}

// ReadPage reads the newest committed image of a page into buf, which is as
// long as a page. A page beyond the end of the file reads as zeros. The write
// lock is held: nobody else can restart the WAL.
func (w *Writer) ReadPage(no uint32, buf []byte) error {
	frame, err := w.f.Index.Lookup(no, w.hdr.MaxFrame)
	if err != nil {
		return err
	}
	if frame != 0 {
		if _, err := w.f.Wal.ReadAt(buf, FrameOffset(frame, w.f.PageSize)+FrameHeaderSize); err != nil {
			return fmt.Errorf("read page %d from frame %d: %w", no, frame, err)
		}
		return nil
	}
	n, err := w.f.Main.ReadAt(buf, int64(no-1)*int64(w.f.PageSize))
	if errors.Is(err, io.EOF) {
		clear(buf[n:])
		err = nil
	}
	if err != nil {
		return fmt.Errorf("read page %d: %w", no, err)
	}
	return nil
}

// Page adds a page to the transaction. data is copied. After an error the
// transaction must be given up with Abort.
func (w *Writer) Page(no uint32, data []byte) error {
	if !w.held || no == 0 || uint32(len(data)) != w.f.PageSize {
		return fmt.Errorf("write page %d of %d bytes: not a page, or write lock not held", no, len(data))
	}
	if w.next() == 0 {
		return fmt.Errorf("write page %d: WAL is full", no)
	}
	frame := FrameHeaderSize + int(w.f.PageSize)
	if len(w.pages) > 0 {
		w.seal(0)
	} else if w.written == 0 {
		if err := w.startWAL(); err != nil {
			return err
		}
	}
	if len(w.buf)+frame > max(writeBatch, frame) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = FrameHeader{PageNo: no, Salt: w.hdr.Salt}.Append(w.buf)
	w.buf = append(w.buf, data...)
	w.pages = append(w.pages, no)
	return nil
}

// Commit ends the transaction, which has at least one page: the database is
// pageCount pages long after it. With sync it is durable before it is visible.
// On error nothing is visible, and the transaction must be given up with Abort.
func (w *Writer) Commit(pageCount uint32, sync bool) (IndexHeader, error) {
	if len(w.pages) == 0 || pageCount == 0 {
		return w.hdr, fmt.Errorf("commit: %d pages, database of %d pages", len(w.pages), pageCount)
	}
	w.seal(pageCount)
	w.ending = true
	if err := w.flush(); err != nil {
		return w.hdr, err
	}
	if sync {
		if err := w.SyncWAL(); err != nil {
			return w.hdr, err
		}
	}
	h := w.hdr
	h.PageSize, h.MaxFrame, h.PageCount, h.Cksum = w.f.PageSize, w.written, pageCount, w.cksum
	h.Change++
	if err := w.f.Index.publish(h); err != nil {
		return w.hdr, err
	}
	w.hdr = h
	w.reset()
	return h, nil
}

// Abort gives up the transaction. If it failed in Commit, what it left in the
// file is made invalid, so that no recovery can take it for a commit.
func (w *Writer) Abort() error {
	dirty, ending := w.dirty, w.ending
	w.reset()
	if !dirty {
		return nil
	}
	err := w.f.Index.cleanup(w.hdr.MaxFrame)
	if !ending {
		return err
	}
	off := FrameOffset(w.hdr.MaxFrame+1, w.f.PageSize)
	st, serr := w.f.Wal.Stat()
	if serr != nil || st.Size() <= off {
		return errors.Join(err, serr)
	}
	_, werr := w.f.Wal.WriteAt(make([]byte, FrameHeaderSize), off)
	return errors.Join(err, werr)
}

// SyncWAL makes all that was committed durable.
func (w *Writer) SyncWAL() error {
	if err := unix.Fdatasync(int(w.f.Wal.Fd())); err != nil {
		return fmt.Errorf("sync WAL: %w", err)
	}
	return nil
}

// Release gives up the write lock; a transaction that was not committed is
// given up first.
func (w *Writer) Release() error {
	if !w.held {
		return nil
	}
	err := w.Abort()
	w.held = false
	return errors.Join(err, Unlock(w.f.Shm, LockWrite, 1))
}

// reset forgets the transaction in hand.
func (w *Writer) reset() {
	w.buf, w.pages = w.buf[:0], w.pages[:0]
	w.written, w.cksum, w.dirty, w.ending = w.hdr.MaxFrame, w.hdr.Cksum, false, false
}

// next is the number that the next frame gets; 0 if there is none left.
func (w *Writer) next() uint32 { return w.written + uint32(len(w.pages)) + 1 }

// seal gives the last frame in buf its checksum, and its commit mark if
// pageCount is not 0.
func (w *Writer) seal(pageCount uint32) {
	frame := w.buf[len(w.buf)-FrameHeaderSize-int(w.f.PageSize):]
	binary.BigEndian.PutUint32(frame[4:], pageCount)
	c := Checksum(w.hdr.BigEndian, w.cksum, frame[:8])
	w.cksum = Checksum(w.hdr.BigEndian, c, frame[FrameHeaderSize:])
	binary.BigEndian.PutUint32(frame[16:], w.cksum[0])
	binary.BigEndian.PutUint32(frame[20:], w.cksum[1])
}

// flush writes the frames in buf, all sealed, and notes them in the hash table.
func (w *Writer) flush() error {
	if len(w.pages) == 0 {
		return nil
	}
	// Room in the index comes first: the frames may end in a commit mark.
	if err := w.f.Index.grow(w.next() - 1); err != nil {
		return err
	}
	w.dirty = true
	if _, err := w.f.Wal.WriteAt(w.buf, FrameOffset(w.written+1, w.f.PageSize)); err != nil {
		return fmt.Errorf("write WAL: %w", err)
	}
	for _, no := range w.pages {
		if err := w.f.Index.add(w.written+1, no); err != nil {
			return err
		}
		w.written++
	}
	w.buf, w.pages = w.buf[:0], w.pages[:0]
	return nil
}

// startWAL writes the header of a new generation and makes it durable before
// any frame: a frame that reached the disk before its header could be taken for
// one of the generation before.
func (w *Writer) startWAL() error {
	h := WALHeader{BigEndian: NativeBigEndian(), PageSize: w.f.PageSize}
	var old [WALHeaderSize]byte
	if _, err := w.f.Wal.ReadAt(old[:], 0); err == nil {
		if o, err := ParseWALHeader(old[:]); err == nil {
			h.CheckpointSeq = o.CheckpointSeq + 1
		}
	}
	// Salts of an index that nobody has used yet may be the file's old ones, with
	// which frames of a dead writer could still be valid: always new ones.
	h.Salt = nextSalt(w.hdr.Salt)
	b, c := h.Append(old[:0])
	if _, err := w.f.Wal.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write WAL header: %w", err)
	}
	if err := w.SyncWAL(); err != nil {
		return err
	}
	// Not yet published: what is committed is still nothing.
	w.hdr.Salt, w.hdr.BigEndian, w.hdr.PageSize, w.hdr.Cksum = h.Salt, h.BigEndian, h.PageSize, c
	w.cksum = c
	return nil
}
