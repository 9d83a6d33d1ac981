package sqlitefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errIndexDamaged is what appending to a hash table without end gives; SQLite
// calls it SQLITE_CORRUPT.
var errIndexDamaged = errors.New("wal-index is damaged")

// The methods in this file change the wal-index. The caller holds the write
// lock; for restart the checkpoint lock and read locks 1 to 4 as well.

// publish makes a header visible: the second copy, then the first, so that a
// reader that finds both equal knows them to be whole.
func (x *Index) publish(h IndexHeader) error {
	b, err := x.block(0)
	if err != nil {
		return err
	}
	if b == nil {
		return errIndexDamaged
	}
	w := encodeIndexHeader(h)
	for i, v := range w {
		atomic.StoreUint32(&b[headerWords+i], v)
	}
	for i, v := range w {
		atomic.StoreUint32(&b[i], v)
	}
	return nil
}

// restart publishes the header of a new generation, and resets what belongs to
// one. The count of copied frames goes first: should the process die before the header is
// there, the frames are merely copied again. (SQLite resets it last; a death in between leaves
// a count that hides the first frames of the new generation: see fixBackfill.)
func (x *Index) restart(h IndexHeader) error {
	b, err := x.block(0)
	if err != nil {
		return err
	}
	if b == nil {
		return errIndexDamaged
	}
	atomic.StoreUint32(&b[wordBackfill], 0)
	if err := x.publish(h); err != nil {
		return err
	}
	atomic.StoreUint32(&b[wordAttempted], 0)
	atomic.StoreUint32(&b[wordReadMark+1], 0)
	for i := 2; i < ReadLocks; i++ {
		atomic.StoreUint32(&b[wordReadMark+i], readMarkUnused)
	}
	return nil
}

// fixBackfill completes a restart in whose middle a SQLite writer died. maxFrame
// is the header's.
func (x *Index) fixBackfill(maxFrame uint32) {
	if b, err := x.block(0); err == nil && b != nil && atomic.LoadUint32(&b[wordBackfill]) > maxFrame {
		atomic.StoreUint32(&b[wordBackfill], 0)
		atomic.StoreUint32(&b[wordAttempted], 0)
	}
}

// grow makes the file long enough for a frame. It writes zeros instead of
// moving the end of the file: on a full disk that is an error here, where a hole
// would be a SIGBUS in every process that reads the database.
func (x *Index) grow(frame uint32) error {
	n, _ := frameBlock(frame)
	if b, err := x.block(n); b != nil || err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(x.shm.Fd()), &st); err != nil {
		return fmt.Errorf("grow wal-index: stat: %w", err)
	}
	zeros := make([]byte, os.Getpagesize())
	for off := st.Size; off < int64(n+1)*blockSize; {
		part := zeros[:min(int64(len(zeros))-off%int64(len(zeros)), int64(n+1)*blockSize-off)]
		if _, err := x.shm.WriteAt(part, off); err != nil {
			return fmt.Errorf("grow wal-index to block %d: %w", n, err)
		}
		off += int64(len(part))
	}
	b, err := x.block(n)
	if err == nil && b == nil {
		err = errIndexDamaged
	}
	return err
}

// add notes that a frame holds a page. Frames are added in order; grow was
// called. The number goes before the slot, so that whoever finds the slot finds
// the number.
func (x *Index) add(frame, page uint32) error {
	n, idx := frameBlock(frame)
	b, err := x.block(n)
	if err != nil {
		return err
	}
	if b == nil {
		return errIndexDamaged
	}
	if idx == 1 { // the block is new to this generation
		clearBlock(b, n, 0)
	}
	key := page * hashFactor % blockSlots
	for steps := uint32(0); loadSlot(b, key) != 0; steps++ {
		if steps >= idx {
			return fmt.Errorf("add frame %d: %w", frame, errIndexDamaged)
		}
		key = (key + 1) % blockSlots
	}
	atomic.StoreUint32(&b[pageWord(n, idx)], page)
	storeSlot(b, key, uint16(idx))
	return nil
}

// cleanup removes what is noted of frames after maxFrame: left by a writer that
// died, or by our own transaction that is given up. Later blocks are cleared
// when their first frame is added.
func (x *Index) cleanup(maxFrame uint32) error {
	if maxFrame == 0 {
		return nil
	}
	n, idx := frameBlock(maxFrame)
	b, err := x.block(n)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("clean wal-index after frame %d: %w", maxFrame, errIndexDamaged)
	}
	clearBlock(b, n, idx)
	return nil
}

// clearBlock removes the entries of a block after its frame idx.
func clearBlock(b *block, n int, idx uint32) {
	for slot := range uint32(blockSlots) {
		if uint32(loadSlot(b, slot)) > idx {
			storeSlot(b, slot, 0)
		}
	}
	last := uint32(blockFrames)
	if n == 0 {
		last = firstFrames
	}
	for i := idx + 1; i <= last; i++ {
		atomic.StoreUint32(&b[pageWord(n, i)], 0)
	}
}

// storeSlot stores two bytes atomically: the other half of the word belongs to
// the same writer.
func storeSlot(b *block, slot uint32, v uint16) {
	word, shift := slotWord(slot)
	old := atomic.LoadUint32(&b[word])
	atomic.StoreUint32(&b[word], old&^(0xffff<<shift)|uint32(v)<<shift)
}

func encodeIndexHeader(h IndexHeader) [headerWords]uint32 {
	var b [headerWords * 4]byte
	put := func(i int, v uint32) { binary.NativeEndian.PutUint32(b[4*i:], v) }
	put(0, indexVersion)
	put(2, h.Change)
	b[12] = 1
	if h.BigEndian {
		b[13] = 1
	}
	binary.NativeEndian.PutUint16(b[14:], uint16(h.PageSize&0xff00|h.PageSize>>16))
	put(4, h.MaxFrame)
	put(5, h.PageCount)
	put(6, h.Cksum[0])
	put(7, h.Cksum[1])
	put(8, hostFromBE(h.Salt[0]))
	put(9, hostFromBE(h.Salt[1]))
	c := Checksum(NativeBigEndian(), Cksum{}, b[:40])
	put(10, c[0])
	put(11, c[1])
	var w [headerWords]uint32
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}
