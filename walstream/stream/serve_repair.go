package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/pagesum"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

// repair compares the client's table of page checksums with that of a snapshot
// and sends the pages that differ.
func (s *Server) repair(ctx context.Context, l *link, q *repairRequest) (err error) {
	db := q.database
	select {
	case s.repairs <- struct{}{}:
		defer func() { <-s.repairs }()
	default:
		return fmt.Errorf("repair %s: %w: %d repairs under way", db, ErrBusy, s.cfg.MaxRepairs)
	}
	snap, err := s.cfg.Snapshot(ctx, db)
	if err != nil {
		return fmt.Errorf("open snapshot of %s: %w", db, err)
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	if !sqlitefile.ValidPageSize(snap.PageSize) || snap.Sums.PageCount() != snap.PageCount {
		return fmt.Errorf("snapshot of %s: %d pages of %d bytes, table of %d", db, snap.PageCount, snap.PageSize, snap.Sums.PageCount())
	}
	d := &donor{l: l, snap: snap, until: time.Now().Add(s.cfg.SnapshotAge << min(q.expired, maxDoublings)), buf: make([]byte, snap.PageSize)}
	if err := d.run(ctx, db); err != nil {
		return fmt.Errorf("repair %s: %w", db, err)
	}
	return nil
}

// maxDoublings bounds how much longer a snapshot is held for a client for whom
// others have expired.
const maxDoublings = 8

// donor sends one client what differs from one snapshot.
type donor struct {
	l     *link
	snap  *Snapshot
	until time.Time // when the snapshot is given up

	buf   []byte // one page
	batch []byte // the pages frame being filled
	lz4   lz4.Compressor
}

func (d *donor) run(ctx context.Context, db string) error {
	h := walstream.Header{
		Database: db, Kind: walstream.KindBase, Time: d.snap.Time,
		PageSize: d.snap.PageSize, PageCount: d.snap.PageCount, Post: d.snap.Position,
	}
	if err := d.l.sendNow(frameSnapshot, walstream.AppendHeader(nil, &h)); err != nil {
		return err
	}
	ranges := rangeCount(d.snap.PageCount)
	for first := uint32(0); first < ranges; {
		n := min(windowRanges, ranges-first)
		if err := d.window(ctx, first, int(n)); err != nil {
			return err
		}
		first += n
	}
	return d.l.sendNow(frameEnd, appendPosition(nil, d.snap.Position))
}

// window settles n ranges from first on: hashes, then sums, then pages.
func (d *donor) window(ctx context.Context, first uint32, n int) error {
	differ, err := d.compare(first, n)
	if err != nil {
		return err
	}
	if err := d.l.sendNow(frameDiffer, differ); err != nil {
		return err
	}
	theirs, err := d.receiveSums(first, n, differ)
	if err != nil {
		return err
	}
	for i := range n {
		if !differ.has(i) {
			continue
		}
		if err := d.sendRange(ctx, first+uint32(i), theirs[i]); err != nil {
			return err
		}
	}
	if err := d.sendBatch(); err != nil {
		return err
	}
	return d.l.sendNow(frameSettled, nil)
}

// compare receives the hashes of a window's ranges and returns which differ.
func (d *donor) compare(first uint32, n int) (bitmap, error) {
	payload, err := d.l.expect(frameCompare, 6+windowRanges*hashSize)
	if err != nil {
		return nil, err
	}
	r := &reader{b: payload}
	if f, m := r.u32(), r.u16(); r.err == nil && (f != first || int(m) != n) {
		return nil, fmt.Errorf("%w: window of %d ranges from %d, expected %d from %d", ErrRefused, m, f, n, first)
	}
	differ := newBitmap(n)
	for i := range n {
		sums, err := d.ours(first + uint32(i))
		if err != nil {
			return nil, err
		}
		if ours := rangeHash(sums); string(r.take(hashSize)) != string(ours[:]) {
			differ.set(i)
		}
	}
	return differ, r.end()
}

// ours returns the snapshot's checksums of a range. A page without one could
// pass for equal to one that the client doesn't have.
func (d *donor) ours(n uint32) ([]walstream.Checksum, error) {
	sums := rangeSums(d.snap.Sums, n)
	for i, sum := range sums {
		if no := rangeFirst(n) + uint32(i); sum == 0 && !isLockByte(no, d.snap.PageSize) {
			return nil, fmt.Errorf("page %d has no checksum in the table", no)
		}
	}
	return sums, nil
}

// receiveSums receives the client's checksums of those ranges that differ. All
// of a window's are taken before the first page is sent: nobody sends while the
// other doesn't receive.
func (d *donor) receiveSums(first uint32, n int, differ bitmap) ([][]walstream.Checksum, error) {
	theirs := make([][]walstream.Checksum, n)
	for i := range n {
		if !differ.has(i) {
			continue
		}
		payload, err := d.l.expect(frameSums, 4+rangePages*8)
		if err != nil {
			return nil, err
		}
		no, sums, err := decodeSums(payload)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if no != first+uint32(i) {
			return nil, fmt.Errorf("%w: sums of range %d, expected %d", ErrRefused, no, first+uint32(i))
		}
		theirs[i] = sums
	}
	return theirs, nil
}

// sendRange sends those pages of a range that the client lacks.
func (d *donor) sendRange(ctx context.Context, n uint32, theirs []walstream.Checksum) error {
	sums, err := d.ours(n)
	if err != nil {
		return err
	}
	for i, sum := range sums {
		no := rangeFirst(n) + uint32(i)
		if i < len(theirs) && theirs[i] == sum || isLockByte(no, d.snap.PageSize) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.addPage(no, sum); err != nil {
			return err
		}
		if len(d.batch) < frameTarget {
			continue
		}
		if err := d.sendBatch(); err != nil {
			return err
		}
		if time.Now().After(d.until) {
			return fmt.Errorf("%w at page %d", ErrExpired, no)
		}
	}
	return nil
}

// addPage puts a page into the batch, unless it isn't what the table says: such
// a page must not spread.
func (d *donor) addPage(no uint32, sum walstream.Checksum) error {
	if err := d.snap.ReadPage(no, d.buf); err != nil {
		return fmt.Errorf("read page %d: %w", no, err)
	}
	if no == 1 {
		sqlitefile.Normalise(d.buf)
	}
	if got := pagesum.Page(no, d.buf); got != sum {
		return fmt.Errorf("read page %d: its checksum is %v, the table has %v", no, got, sum)
	}
	d.batch = appendPage(d.batch, &d.lz4, no, d.buf)
	return nil
}

func (d *donor) sendBatch() error {
	if len(d.batch) == 0 {
		return nil
	}
	err := d.l.sendNow(framePages, d.batch)
	d.batch = d.batch[:0]
	return err
}

// appendSums encodes the checksums of range n: n 4, then 8 bytes each.
func appendSums(b []byte, n uint32, sums []walstream.Checksum) []byte {
	b = binary.BigEndian.AppendUint32(b, n)
	for _, sum := range sums {
		b = binary.BigEndian.AppendUint64(b, uint64(sum))
	}
	return b
}

func decodeSums(b []byte) (uint32, []walstream.Checksum, error) {
	r := &reader{b: b}
	n := r.u32()
	if len(r.b)/8 > rangePages {
		return 0, nil, fmt.Errorf("%w: %d sums", walstream.ErrCorrupt, len(r.b)/8)
	}
	sums := make([]walstream.Checksum, len(r.b)/8)
	for i := range sums {
		sums[i] = walstream.Checksum(r.u64())
	}
	return n, sums, r.end()
}
