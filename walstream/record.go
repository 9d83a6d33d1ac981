package walstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/pierrec/lz4/v4"
)

// The ways in which bytes can fail to be a record.
var (
	// ErrTorn: the bytes end before the record does.
	ErrTorn = errors.New("record is torn")
	// ErrCorrupt: the bytes are not what a writer wrote, or no record at all.
	ErrCorrupt = errors.New("record is corrupt")
	// ErrVersion: an intact record of a version that this program does not know.
	ErrVersion = errors.New("record has an unknown version")
)

// A record begins with these 28 bytes, in every version of the format; all
// numbers are big-endian, the CRCs are CRC-32C:
//
//	 0        4    5    6      8         12             16         20       24         28
//	┌────────┬────┬────┬──────┬─────────┬──────────────┬──────────┬────────┬──────────┬──────┐
//	│ "LSTX" │ver.│flag│hdrlen│ part no.│CRC of db name│ body len │body CRC│CRC of 0–23│ body │
//	└────────┴────┴────┴──────┴─────────┴──────────────┴──────────┴────────┴──────────┴──────┘
//
// The body of version 1 is the transaction's header (the same in every part,
// but Post.Checksum, which is zero in all but the last), then pages:
//
//	page number (4)  length, highest bit: LZ4 block, else raw (4)  data
const (
	// RecordHeaderSize is how many bytes [RecordSize] and [RecordDatabase] need.
	RecordHeaderSize = 28
	// MaxRecordSize bounds a record, so that no reader ever makes room for more.
	MaxRecordSize = RecordHeaderSize + maxHeaderSize + maxPayload
	// RecordVersion is the version of the format that is written.
	RecordVersion = 1

	maxPayload  = 1 << 20
	recordMagic = "LSTX"
	flagFirst   = 1
	flagLast    = 2
	pageHeader  = 8
	lz4Bit      = 1 << 31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NameHash returns what the records of a database of this name carry in their
// first bytes, see [RecordDatabase].
func NameHash(database string) uint32 { return crc32.Checksum([]byte(database), castagnoli) }

// RecordSize returns the length of the record that begins with b, of which it
// needs [RecordHeaderSize] bytes. A length is only returned if those bytes are
// intact, and never more than [MaxRecordSize].
func RecordSize(b []byte) (int, error) {
	switch {
	case len(b) < RecordHeaderSize:
		return 0, fmt.Errorf("%w: %d bytes", ErrTorn, len(b))
	case string(b[:4]) != recordMagic:
		return 0, fmt.Errorf("%w: begins with % x", ErrCorrupt, b[:4])
	case crc32.Checksum(b[:24], castagnoli) != binary.BigEndian.Uint32(b[24:]):
		return 0, fmt.Errorf("%w: check sum of its first bytes differs", ErrCorrupt)
	case b[4] != RecordVersion:
		return 0, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, b[4], RecordVersion)
	}
	if body := binary.BigEndian.Uint32(b[16:]); body <= maxHeaderSize+maxPayload {
		return RecordHeaderSize + int(body), nil
	}
	return 0, fmt.Errorf("%w: longer than %d bytes", ErrCorrupt, MaxRecordSize)
}

// RecordDatabase returns the hash of the name of the database to which the
// record belongs that begins with b, so that a reader can skip those of others
// without reading them. The first bytes must have passed [RecordSize].
func RecordDatabase(b []byte) uint32 { return binary.BigEndian.Uint32(b[12:]) }

// Record is one part of a transaction, decoded. Small transactions have one
// part, which is the first and the last. It refers to the bytes it was decoded
// from.
type Record struct {
	Header      // Post.Checksum is zero in all parts but the last
	Part   int  // 0, 1, 2 … within the transaction
	First  bool // Part is 0
	Last   bool // the transaction is complete with this part
	pages  []byte
	minNo  uint32 // lowest and highest page number; 0: no pages
	maxNo  uint32
	nPages int
}

// PageCountIn returns how many pages the part holds.
func (r *Record) PageCountIn() int { return r.nPages }

// DecodeRecord checks length, CRC and structure of exactly one record. Errors
// wrap [ErrTorn], [ErrCorrupt] or [ErrVersion]. It allocates little, whatever
// the input. The result refers to b.
func DecodeRecord(b []byte) (*Record, error) {
	r := new(Record)
	if err := r.decode(b); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

func (r *Record) decode(b []byte) error {
	size, err := RecordSize(b)
	switch {
	case err != nil:
		return err
	case len(b) < size:
		return fmt.Errorf("%w: %d of %d bytes", ErrTorn, len(b), size)
	case len(b) > size:
		return fmt.Errorf("%w: %d bytes follow it", ErrCorrupt, len(b)-size)
	}
	body := b[RecordHeaderSize:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[20:]) {
		return fmt.Errorf("%w: check sum differs", ErrCorrupt)
	}
	n := int(binary.BigEndian.Uint16(b[6:]))
	if n > len(body) {
		return fmt.Errorf("%w: header longer than the record", ErrCorrupt)
	}
	if err := parseHeader(body[:n], &r.Header); err != nil {
		return err
	}
	part := binary.BigEndian.Uint32(b[8:])
	r.Part, r.First, r.Last = int(part), b[5]&flagFirst != 0, b[5]&flagLast != 0
	r.pages = body[n:]
	switch {
	case b[5] > flagFirst|flagLast, r.First != (part == 0), part > math.MaxInt32:
		return fmt.Errorf("%w: flags %#x in part %d", ErrCorrupt, b[5], part)
	case RecordDatabase(b) != NameHash(r.Database):
		return fmt.Errorf("%w: hash of the name differs", ErrCorrupt)
	case r.Kind != KindPages && (len(r.pages) > 0 || !r.First || !r.Last):
		return fmt.Errorf("%w: pages in a record of kind %d", ErrCorrupt, r.Kind)
	}
	return r.checkPages()
}

// checkPages walks over the page headers without decoding any data.
func (r *Record) checkPages() error {
	for b := r.pages; len(b) > 0; r.nPages++ {
		if len(b) < pageHeader {
			return fmt.Errorf("%w: page header is cut", ErrCorrupt)
		}
		no, word := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		size := word &^ lz4Bit
		switch {
		case no <= r.maxNo || no > r.PageCount:
			return fmt.Errorf("%w: page %d after %d of %d", ErrCorrupt, no, r.maxNo, r.PageCount)
		case word&lz4Bit == 0 && size != r.PageSize, size > r.PageSize, int(size) > len(b)-pageHeader:
			return fmt.Errorf("%w: page %d has %d bytes", ErrCorrupt, no, size)
		}
		if r.minNo == 0 {
			r.minNo = no
		}
		r.maxNo = no
		b = b[pageHeader+size:]
	}
	return nil
}

// Pages walks over the part's pages.
func (r *Record) Pages(yield func(Page, error) bool) {
	var buf []byte
	for b := r.pages; len(b) > 0; {
		no, word := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		data := b[pageHeader : pageHeader+word&^lz4Bit]
		b = b[pageHeader+len(data):]
		if word&lz4Bit != 0 {
			if buf == nil {
				buf = make([]byte, r.PageSize)
			}
			n, err := lz4.UncompressBlock(data, buf)
			if err != nil || n != len(buf) {
				yield(Page{}, fmt.Errorf("decompress page %d: %w", no, ErrCorrupt))
				return
			}
			data = buf
		}
		if !yield(Page{No: no, Data: data}, nil) {
			return
		}
	}
}

// Decode decodes a transaction that is one record. The result refers to b.
// Errors as [DecodeRecord]; a part of a larger transaction is [ErrTorn].
func Decode(b []byte) (*Txn, error) {
	r, err := DecodeRecord(b)
	if err != nil {
		return nil, err
	}
	if !r.First || !r.Last {
		return nil, fmt.Errorf("decode record: %w: part %d of a transaction", ErrTorn, r.Part)
	}
	return &Txn{Header: r.Header, Pages: r.Pages}, nil
}

// Sequence checks that records are the parts of one transaction, complete and
// in order. The zero value expects a first part.
type Sequence struct {
	header Header
	next   int
	maxNo  uint32
}

// Add takes the next part; done tells that the transaction is complete with
// it. Errors wrap [ErrCorrupt]; the sequence is of no use after one.
func (s *Sequence) Add(r *Record) (done bool, err error) {
	if s.next == 0 {
		s.header = r.Header
	}
	want, got := s.header, r.Header
	want.Post.Checksum, got.Post.Checksum = 0, 0
	switch {
	case r.Part != s.next:
		return false, fmt.Errorf("%w: part %d, expected %d", ErrCorrupt, r.Part, s.next)
	case want != got:
		return false, fmt.Errorf("%w: part %d is of another transaction", ErrCorrupt, r.Part)
	case r.minNo != 0 && r.minNo <= s.maxNo:
		return false, fmt.Errorf("%w: page %d after %d", ErrCorrupt, r.minNo, s.maxNo)
	}
	s.next++
	s.maxNo = max(s.maxNo, r.maxNo)
	return r.Last, nil
}
