package txlog

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/lsnode/lsnode/walstream"
)

// location is a place in the log: segment number and offset in its file.
// Locations grow as the log does. The zero value lies before all of it.
type location struct {
	seg uint64
	off int64
}

func (a location) compare(b location) int {
	if c := cmp.Compare(a.seg, b.seg); c != 0 {
		return c
	}
	return cmp.Compare(a.off, b.off)
}

func (a location) before(b location) bool { return a.compare(b) < 0 }

// A segment file is a header, roster frames, then records and other control
// frames, and once sealed a footer (see footer.go). All numbers are big-endian,
// all CRCs CRC-32C:
//
//	 0           8        12       16         24               32        36
//	┌───────────┬────────┬────────┬──────────┬────────────────┬─────────┐
//	│ "LSNODLOG"│version │ rosters│ number   │ end of records │CRC of   │
//	│           │        │        │          │ of the previous│ 0–31    │
//	└───────────┴────────┴────────┴──────────┴────────────────┴─────────┘
//
// The end of the previous segment's records tells a footer torn by a crash
// from a record torn by one; the number of roster frames, whether the segment
// was made completely.
const (
	segmentMagic   = "LSNODLOG"
	segmentVersion = 1
	segmentHeader  = 36
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segmentHead is a segment's header.
type segmentHead struct {
	no      uint64
	rosters uint32
	prevEnd int64
}

func appendSegmentHead(b []byte, h segmentHead) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = be.AppendUint32(b, segmentVersion)
	b = be.AppendUint32(b, h.rosters)
	b = be.AppendUint64(b, h.no)
	b = be.AppendUint64(b, uint64(h.prevEnd))
	return be.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parseSegmentHead(b []byte) (segmentHead, error) {
	switch {
	case len(b) < segmentHeader:
		return segmentHead{}, fmt.Errorf("segment header: %w", walstream.ErrTorn)
	case string(b[:8]) != segmentMagic, crc32.Checksum(b[:32], castagnoli) != be.Uint32(b[32:]):
		return segmentHead{}, fmt.Errorf("segment header: %w", walstream.ErrCorrupt)
	case be.Uint32(b[8:]) != segmentVersion:
		return segmentHead{}, fmt.Errorf("segment header: %w: %d", walstream.ErrVersion, be.Uint32(b[8:]))
	}
	h := segmentHead{be.Uint64(b[16:]), be.Uint32(b[12:]), int64(be.Uint64(b[24:]))}
	if h.prevEnd < 0 {
		return segmentHead{}, fmt.Errorf("segment header: %w", walstream.ErrCorrupt)
	}
	return h, nil
}

// A control frame stands between records:
//
//	 0        4    5    6      8           12                  16
//	┌────────┬────┬────┬──────┬───────────┬───────────────────┬──────┐
//	│ "LSLC" │ver.│type│ zero │ body len  │CRC of 0–11 + body │ body │
//	└────────┴────┴────┴──────┴───────────┴───────────────────┴──────┘
const (
	controlMagic   = "LSLC"
	controlVersion = 1
	controlHeader  = 16
	maxControlBody = 1024

	// controlMark says up to which location the log is durable. A bad record
	// before it is corruption, after it a torn tail.
	controlMark = 1
	// controlVoid voids the records of one database from a location to its own.
	controlVoid = 2
	// controlRoster, at the beginning of a segment, is the header of the last
	// transaction before it of one database, so that older segments can go.
	controlRoster = 3

	markSize = controlHeader + 16
)

func appendControl(b []byte, kind byte, body []byte) []byte {
	start := len(b)
	b = append(b, controlMagic...)
	b = append(b, controlVersion, kind, 0, 0)
	b = be.AppendUint32(b, uint32(len(body)))
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, body)
	b = be.AppendUint32(b, sum)
	return append(b, body...)
}

// controlSize returns the length of the control frame that begins with b.
func controlSize(b []byte) (int, error) {
	if len(b) < controlHeader {
		return 0, fmt.Errorf("control frame: %w", walstream.ErrTorn)
	}
	n := be.Uint32(b[8:])
	if string(b[:4]) != controlMagic || n > maxControlBody {
		return 0, fmt.Errorf("control frame: %w", walstream.ErrCorrupt)
	}
	return controlHeader + int(n), nil
}

// parseControl checks exactly one control frame.
func parseControl(b []byte) (kind byte, body []byte, err error) {
	n, err := controlSize(b)
	switch {
	case err != nil:
		return 0, nil, err
	case n > len(b):
		return 0, nil, fmt.Errorf("control frame: %w", walstream.ErrTorn)
	case n < len(b):
		return 0, nil, fmt.Errorf("control frame: %w: too long", walstream.ErrCorrupt)
	}
	body = b[controlHeader:]
	if crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, body) != be.Uint32(b[12:]) {
		return 0, nil, fmt.Errorf("control frame: %w: check sum differs", walstream.ErrCorrupt)
	}
	if b[4] != controlVersion || b[5] == 0 || b[5] > controlRoster {
		return 0, nil, fmt.Errorf("control frame: %w: version %d, type %d", walstream.ErrVersion, b[4], b[5])
	}
	return b[5], body, nil
}

func appendMark(b []byte, durable location) []byte {
	var body [16]byte
	putLocation(body[:], durable)
	return appendControl(b, controlMark, body[:])
}

func putLocation(b []byte, l location) {
	be.PutUint64(b, l.seg)
	be.PutUint64(b[8:], uint64(l.off))
}

func parseLocation(b []byte) location {
	return location{be.Uint64(b), int64(be.Uint64(b[8:]))}
}

// void is the content of a controlVoid frame.
type void struct {
	database string
	from     location         // of the first record that is void
	last     walstream.Header // of the transaction that is the last now; Kind 0: none
	forget   bool             // the database has no log any more
}

func appendVoid(b []byte, v *void) []byte {
	var loc [16]byte
	putLocation(loc[:], v.from)
	flags := byte(0)
	if v.forget {
		flags = 1
	}
	body := append(loc[:], flags, byte(len(v.database)))
	body = append(body, v.database...)
	body = appendOptionalHeader(body, &v.last)
	return appendControl(b, controlVoid, body)
}

func parseVoid(b []byte) (*void, error) {
	if len(b) < 18 || len(b) < 18+int(b[17]) || b[16] > 1 {
		return nil, fmt.Errorf("void frame: %w", walstream.ErrCorrupt)
	}
	v := &void{from: parseLocation(b), forget: b[16] == 1, database: string(b[18 : 18+int(b[17])])}
	last, rest, err := parseOptionalHeader(b[18+int(b[17]):])
	if err != nil || len(rest) > 0 || !walstream.ValidName(v.database) {
		return nil, fmt.Errorf("void frame: %w", walstream.ErrCorrupt)
	}
	v.last = last
	return v, nil
}

// appendOptionalHeader appends a header, with its length before it, or nothing
// but a zero length for the zero header.
func appendOptionalHeader(b []byte, h *walstream.Header) []byte {
	if h.Kind == 0 {
		return be.AppendUint16(b, 0)
	}
	at := len(b)
	b = walstream.AppendHeader(append(b, 0, 0), h)
	be.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

func parseOptionalHeader(b []byte) (h walstream.Header, rest []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(be.Uint16(b)) {
		return h, nil, walstream.ErrCorrupt
	}
	n := 2 + int(be.Uint16(b))
	if n > 2 {
		h, err = walstream.ParseHeader(b[2:n])
	}
	return h, b[n:], err
}
