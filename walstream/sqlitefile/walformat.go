package sqlitefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Sizes in the -wal file.
const (
	WALHeaderSize   = 32
	FrameHeaderSize = 24
)

const (
	walMagic   = 0x377f0682 // its lowest bit says that checksums are big-endian
	walVersion = 3007000
)

// ErrWALHeader is wrapped by what [ParseWALHeader] returns for bytes that are no
// valid header: SQLite then takes the WAL for empty.
var ErrWALHeader = errors.New("not a valid WAL header")

// Cksum is a running checksum of a WAL, as the header and every frame carry it.
// It is comparable.
type Cksum [2]uint32

// Salt is the pair of numbers that is new in each generation of a WAL. It is
// comparable; both numbers are read as big-endian, wherever they are stored.
type Salt [2]uint32

// Checksum adds data, whose length must be a multiple of 8 (a remainder is left
// out), to a running checksum. big tells in which byte order data is read as
// numbers: [WALHeader.BigEndian].
func Checksum(big bool, c Cksum, data []byte) Cksum {
	s1, s2 := c[0], c[1]
	if big {
		for ; len(data) >= 8; data = data[8:] {
			v := binary.BigEndian.Uint64(data)
			s1 += uint32(v>>32) + s2
			s2 += uint32(v) + s1
		}
		return Cksum{s1, s2}
	}
	for ; len(data) >= 8; data = data[8:] {
		v := binary.LittleEndian.Uint64(data)
		s1 += uint32(v) + s2
		s2 += uint32(v>>32) + s1
	}
	return Cksum{s1, s2}
}

// NativeBigEndian tells the byte order of this host, which is the one that a WAL
// begun here has its checksums in.
func NativeBigEndian() bool {
	return binary.NativeEndian.Uint16([]byte{0, 1}) == 1
}

// WALHeader is the header of a -wal file. It is comparable.
type WALHeader struct {
	BigEndian     bool // the byte order of checksums
	PageSize      uint32
	CheckpointSeq uint32 // counts restarts; per connection, proves nothing
	Salt          Salt
	Cksum         Cksum // of the header; the first frame's checksum continues it
}

// ParseWALHeader reads and checks the first [WALHeaderSize] bytes of a -wal file.
// Errors wrap [ErrWALHeader].
func ParseWALHeader(b []byte) (WALHeader, error) {
	if len(b) < WALHeaderSize {
		return WALHeader{}, fmt.Errorf("read WAL header: %d bytes: %w", len(b), ErrWALHeader)
	}
	magic := binary.BigEndian.Uint32(b)
	if magic&^1 != walMagic {
		return WALHeader{}, fmt.Errorf("read WAL header: magic %08x: %w", magic, ErrWALHeader)
	}
	if v := binary.BigEndian.Uint32(b[4:]); v != walVersion {
		return WALHeader{}, fmt.Errorf("read WAL header: version %d: %w", v, ErrWALHeader)
	}
	h := WALHeader{
		BigEndian:     magic&1 != 0,
		PageSize:      binary.BigEndian.Uint32(b[8:]),
		CheckpointSeq: binary.BigEndian.Uint32(b[12:]),
		Salt:          Salt(be32pair(b[16:])),
		Cksum:         Cksum(be32pair(b[24:])),
	}
	if !ValidPageSize(h.PageSize) {
		return WALHeader{}, fmt.Errorf("read WAL header: page size %d: %w", h.PageSize, ErrWALHeader)
	}
	if Checksum(h.BigEndian, Cksum{}, b[:24]) != h.Cksum {
		return WALHeader{}, fmt.Errorf("read WAL header: checksum: %w", ErrWALHeader)
	}
	return h, nil
}

// Append appends the header's [WALHeaderSize] bytes and returns its checksum,
// which it computes: h.Cksum is not looked at.
func (h WALHeader) Append(b []byte) ([]byte, Cksum) {
	start, magic := len(b), uint32(walMagic)
	if h.BigEndian {
		magic |= 1
	}
	for _, v := range [...]uint32{magic, walVersion, h.PageSize, h.CheckpointSeq, h.Salt[0], h.Salt[1]} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	c := Checksum(h.BigEndian, Cksum{}, b[start:])
	b = binary.BigEndian.AppendUint32(b, c[0])
	return binary.BigEndian.AppendUint32(b, c[1]), c
}

// FrameHeader is the header of one frame. It is comparable.
type FrameHeader struct {
	PageNo    uint32
	PageCount uint32 // of the database after the commit; 0: not a commit frame
	Salt      Salt
	Cksum     Cksum // of the WAL header and all frames up to this one
}

// IsCommit tells whether the frame is the last of its transaction.
func (f FrameHeader) IsCommit() bool { return f.PageCount != 0 }

// ParseFrameHeader reads the [FrameHeaderSize] bytes before a page in the -wal.
// It checks nothing: that takes the salts of the WAL and the checksum of the
// frame before, see [FrameHeader.Next]. b too short gives the zero header.
func ParseFrameHeader(b []byte) FrameHeader {
	if len(b) < FrameHeaderSize {
		return FrameHeader{}
	}
	return FrameHeader{
		PageNo:    binary.BigEndian.Uint32(b),
		PageCount: binary.BigEndian.Uint32(b[4:]),
		Salt:      Salt(be32pair(b[8:])),
		Cksum:     Cksum(be32pair(b[16:])),
	}
}

// Next returns the checksum that this frame must have after a frame (or WAL
// header) with the checksum prev, its page being page. The frame is valid if
// its page number is not 0, its salt is the WAL header's, and Cksum equals this.
func (f FrameHeader) Next(big bool, prev Cksum, page []byte) Cksum {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], f.PageNo)
	binary.BigEndian.PutUint32(b[4:], f.PageCount)
	return Checksum(big, Checksum(big, prev, b[:]), page)
}

// Append appends the header's [FrameHeaderSize] bytes as they are.
func (f FrameHeader) Append(b []byte) []byte {
	for _, v := range [...]uint32{f.PageNo, f.PageCount, f.Salt[0], f.Salt[1], f.Cksum[0], f.Cksum[1]} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// FrameOffset returns where in the -wal the header of a frame begins. Frames
// count from 1; FrameOffset(n+1) is how long a WAL of n frames is.
func FrameOffset(frame, pageSize uint32) int64 {
	return WALHeaderSize + int64(frame-1)*int64(pageSize+FrameHeaderSize)
}

func be32pair(b []byte) [2]uint32 {
	return [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

// hostFromBE turns a number that lies in memory as big-endian bytes and was
// loaded as a word of this host into its value, and back.
func hostFromBE(v uint32) uint32 {
	if NativeBigEndian() {
		return v
	}
	return bits.ReverseBytes32(v)
}
