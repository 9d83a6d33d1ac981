package walstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrHeader is wrapped by what [Header.Validate] returns: a header that no
// honest writer makes.
var ErrHeader = errors.New("invalid transaction header")

const (
	minPageSize = 512
	maxPageSize = 65536

	// maxHeaderSize bounds what AppendHeader appends: a name of 64 bytes and the
	// fixed fields.
	maxHeaderSize = 1 + 64 + headerFixed
	headerFixed   = 1 + 4 + 4 + 8 + 24 + 24 + placeSize
	placeSize     = 16 + 8 + 8 + 8 + 4 + 8
)

// Validate tells whether the header keeps the rules that log, wire and copies
// rely on: a valid name, a page size of SQLite's, positions that only advance.
// Errors wrap [ErrHeader]. It does not look at Post.Checksum, which may be
// known only once the pages have been walked over.
func (h *Header) Validate() error {
	switch {
	case !ValidName(h.Database):
		return fmt.Errorf("%w: database name %q", ErrHeader, h.Database)
	case h.PageSize != 0 && !validPageSize(h.PageSize):
		return fmt.Errorf("%w: page size %d", ErrHeader, h.PageSize)
	}
	switch h.Kind {
	case KindPages:
		return h.validatePages()
	case KindEpoch:
		if h.Post.Epoch <= h.Pre.Epoch || h.Post.TXID != h.Pre.TXID {
			return fmt.Errorf("%w: epoch record from %v to %v", ErrHeader, h.Pre, h.Post)
		}
	case KindBase:
		if !h.Pre.IsZero() {
			return fmt.Errorf("%w: base record with position %v before it", ErrHeader, h.Pre)
		}
	default:
		return fmt.Errorf("%w: kind %d", ErrHeader, h.Kind)
	}
	return nil
}

func (h *Header) validatePages() error {
	if h.PageSize == 0 || h.PageCount == 0 {
		return fmt.Errorf("%w: %d pages of %d bytes", ErrHeader, h.PageCount, h.PageSize)
	}
	if h.Post.TXID <= h.Pre.TXID || h.Post.Epoch < h.Pre.Epoch {
		return fmt.Errorf("%w: transaction from %v to %v", ErrHeader, h.Pre, h.Post)
	}
	return nil
}

func validPageSize(n uint32) bool {
	return n >= minPageSize && n <= maxPageSize && n&(n-1) == 0
}

// AppendHeader appends the header's encoding, which is part of the record
// format and therefore of its version; all numbers are big-endian:
//
//	length of the name (1)  name  kind (1)  page size (4)  page count (4)
//	time, Unix milliseconds (8)  position before (24)  position after (24)
//	place: boot (16)  device (8)  inode (8)  salts (8)  frame (4)  checksum (8)
func AppendHeader(b []byte, h *Header) []byte {
	be := binary.BigEndian
	b = append(b, byte(len(h.Database)))
	b = append(b, h.Database...)
	b = append(b, byte(h.Kind))
	b = be.AppendUint32(b, h.PageSize)
	b = be.AppendUint32(b, h.PageCount)
	b = be.AppendUint64(b, uint64(h.Time.UnixMilli()))
	b = appendPosition(b, h.Pre)
	b = appendPosition(b, h.Post)
	p := &h.Place
	b = append(b, p.BootID[:]...)
	b = be.AppendUint64(b, p.Device)
	b = be.AppendUint64(b, p.Inode)
	b = be.AppendUint32(b, p.Salt[0])
	b = be.AppendUint32(b, p.Salt[1])
	b = be.AppendUint32(b, p.Frame)
	b = be.AppendUint32(b, p.FrameCk[0])
	return be.AppendUint32(b, p.FrameCk[1])
}

func appendPosition(b []byte, p Position) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(p.TXID))
	return binary.BigEndian.AppendUint64(b, uint64(p.Checksum))
}

// ParseHeader is the inverse of [AppendHeader] for exactly these bytes; times
// come back in UTC. The result has been validated. Errors wrap [ErrCorrupt].
func ParseHeader(b []byte) (Header, error) {
	var h Header
	err := parseHeader(b, &h)
	return h, err
}

func parseHeader(b []byte, h *Header) error {
	if len(b) == 0 || len(b) != 1+int(b[0])+headerFixed {
		return fmt.Errorf("parse header of %d bytes: %w: wrong length", len(b), ErrCorrupt)
	}
	be, n := binary.BigEndian, int(b[0])
	h.Database = string(b[1 : 1+n])
	b = b[1+n:]
	h.Kind = Kind(b[0])
	h.PageSize = be.Uint32(b[1:])
	h.PageCount = be.Uint32(b[5:])
	h.Time = time.UnixMilli(int64(be.Uint64(b[9:]))).UTC()
	h.Pre = parsePosition(b[17:])
	h.Post = parsePosition(b[41:])
	b = b[65:]
	p := &h.Place
	copy(p.BootID[:], b)
	p.Device = be.Uint64(b[16:])
	p.Inode = be.Uint64(b[24:])
	p.Salt = [2]uint32{be.Uint32(b[32:]), be.Uint32(b[36:])}
	p.Frame = be.Uint32(b[40:])
	p.FrameCk = [2]uint32{be.Uint32(b[44:]), be.Uint32(b[48:])}
	if err := h.Validate(); err != nil {
		return fmt.Errorf("parse header: %w: %w", ErrCorrupt, err)
	}
	return nil
}

func parsePosition(b []byte) Position {
	be := binary.BigEndian
	return Position{Epoch(be.Uint64(b)), TXID(be.Uint64(b[8:])), Checksum(be.Uint64(b[16:]))}
}
