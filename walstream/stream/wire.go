package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/lsnode/lsnode/walstream"
)

// maxMessage bounds a live message and the payload of a frame of the pull
// protocol: the longest record with what surrounds it.
const maxMessage = walstream.MaxRecordSize + 1024

// Damaged bytes and later versions are told by the sentinels of the records:
// walstream.ErrCorrupt, walstream.ErrVersion.

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// appendPosition appends 24 bytes: epoch, TXID, checksum, big-endian like all
// numbers of this package.
func appendPosition(b []byte, p walstream.Position) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(p.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(p.TXID))
	return binary.BigEndian.AppendUint64(b, uint64(p.Checksum))
}

// appendName appends a string of at most 255 bytes, its length before it.
func appendName(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

// reader takes values off a byte slice. After the first that isn't there it
// returns zeros, and err is set; it wraps walstream.ErrCorrupt.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.err = fmt.Errorf("%w: %d bytes missing", walstream.ErrCorrupt, n-len(r.b))
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) position() walstream.Position {
	return walstream.Position{
		Epoch:    walstream.Epoch(r.u64()),
		TXID:     walstream.TXID(r.u64()),
		Checksum: walstream.Checksum(r.u64()),
	}
}

// database reads a database's name with its length before it.
func (r *reader) database() string {
	s := string(r.take(int(r.u8())))
	if r.err == nil && !walstream.ValidName(s) {
		r.err = fmt.Errorf("%w: database name %q", walstream.ErrCorrupt, s)
	}
	return s
}

// end returns the first error, or one if bytes are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%w: %d bytes too many", walstream.ErrCorrupt, len(r.b))
	}
	return r.err
}
