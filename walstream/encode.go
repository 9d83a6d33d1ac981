package walstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"
)

// recordPayload is how many bytes of pages Encode puts into one record. A
// transaction below it is one record.
const recordPayload = 256 << 10

// Encode writes a transaction as one or more records of about 256 KiB at most
// (one page more, if pages are large) and hands each to emit, which must not
// keep it. Memory is bounded whatever the transaction's size.
//
// t.Post.Checksum is read after the pages have been walked over, so that the
// walk may set it. Errors of the walk and of emit are returned as they are;
// what was emitted before one is not a transaction.
func Encode(t *Txn, emit func(record []byte) error) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("encode transaction: %w", err)
	}
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.begin(t, 0)
	for p, err := range t.Pages {
		if err != nil {
			return err
		}
		if len(e.buf)-e.body >= recordPayload {
			if err := emit(e.finish(t, false)); err != nil {
				return err
			}
			e.begin(t, e.part+1)
		}
		if err := e.add(t, p); err != nil {
			return fmt.Errorf("encode transaction: %w", err)
		}
	}
	return emit(e.finish(t, true))
}

// EncodeOne writes a transaction as one record if that is no longer than max
// bytes, or than [MaxRecordSize] where max is more; otherwise it returns false,
// having stopped walking over the pages. The record is the caller's. For
// t.Post.Checksum and errors see [Encode].
func EncodeOne(t *Txn, max int) ([]byte, bool, error) {
	if err := t.Validate(); err != nil {
		return nil, false, fmt.Errorf("encode transaction: %w", err)
	}
	max = min(max, MaxRecordSize)
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.begin(t, 0)
	for p, err := range t.Pages {
		if err != nil {
			return nil, false, err
		}
		if err := e.add(t, p); err != nil {
			return nil, false, fmt.Errorf("encode transaction: %w", err)
		}
		if len(e.buf) > max || len(e.buf)-e.body > maxPayload {
			return nil, false, nil
		}
	}
	if len(e.buf) > max {
		return nil, false, nil
	}
	return append([]byte(nil), e.finish(t, true)...), true, nil
}

// encoders keeps encoders for reuse: a compressor's table alone is 128 KiB.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encoder builds one record at a time in buf.
type encoder struct {
	lz4   lz4.Compressor
	buf   []byte
	body  int // where the pages begin in buf
	part  int
	maxNo uint32 // of the transaction
}

func (e *encoder) begin(t *Txn, part int) {
	if part == 0 {
		e.maxNo = 0
	}
	e.part = part
	var head [RecordHeaderSize]byte
	e.buf = append(e.buf[:0], head[:]...)
	e.buf = AppendHeader(e.buf, &t.Header)
	e.body = len(e.buf)
}

var errPage = errors.New("invalid page")

// add appends one page, compressed if that makes it smaller.
func (e *encoder) add(t *Txn, p Page) error {
	switch {
	case t.Kind != KindPages:
		return fmt.Errorf("%w: in a record of kind %d", errPage, t.Kind)
	case len(p.Data) != int(t.PageSize):
		return fmt.Errorf("%w: %d has %d bytes, page size is %d", errPage, p.No, len(p.Data), t.PageSize)
	case p.No <= e.maxNo || p.No > t.PageCount:
		return fmt.Errorf("%w: %d after %d of %d", errPage, p.No, e.maxNo, t.PageCount)
	}
	e.maxNo = p.No
	e.buf = binary.BigEndian.AppendUint32(e.buf, p.No)
	e.buf = binary.BigEndian.AppendUint32(e.buf, t.PageSize)
	start := len(e.buf)
	e.buf = slices.Grow(e.buf, len(p.Data))[:start+len(p.Data)]
	// The room is one byte less than the page: the compressor gives up, returning
	// 0, where it does not fit.
	n, err := e.lz4.CompressBlock(p.Data, e.buf[start:start+len(p.Data)-1])
	if err == nil && n > 0 {
		binary.BigEndian.PutUint32(e.buf[start-4:], uint32(n)|lz4Bit)
		e.buf = e.buf[:start+n]
		return nil
	}
	copy(e.buf[start:], p.Data)
	return nil
}

// finish fills in what is known only now, and returns the record.
func (e *encoder) finish(t *Txn, last bool) []byte {
	h := t.Header
	flags := byte(0)
	if e.part == 0 {
		flags |= flagFirst
	}
	if last {
		flags |= flagLast
	} else {
		h.Post.Checksum = 0
	}
	AppendHeader(e.buf[:RecordHeaderSize], &h)
	b, be := e.buf, binary.BigEndian
	copy(b, recordMagic)
	b[4], b[5] = RecordVersion, flags
	be.PutUint16(b[6:], uint16(e.body-RecordHeaderSize))
	be.PutUint32(b[8:], uint32(e.part))
	be.PutUint32(b[12:], NameHash(h.Database))
	be.PutUint32(b[16:], uint32(len(b)-RecordHeaderSize))
	be.PutUint32(b[20:], crc32.Checksum(b[RecordHeaderSize:], castagnoli))
	be.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	return b
}
