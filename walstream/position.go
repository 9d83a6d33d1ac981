package walstream

import (
	"cmp"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"
)

// TXID counts the commits of a database: 1, 2, 3 …, across epochs without a
// gap. Zero means "none".
type TXID uint64

// String returns 16 hex digits, so that names sort as numbers do.
func (t TXID) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// ParseTXID is the inverse of [TXID.String].
func ParseTXID(s string) (TXID, error) {
	n, err := parseHex16(s)
	return TXID(n), err
}

// Epoch is the number of a primary's reign. Epochs only grow for the life of a
// cluster's data. Zero means "none".
type Epoch uint64

// String returns 16 hex digits, so that names sort as numbers do.
func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// ParseEpoch is the inverse of [Epoch.String].
func ParseEpoch(s string) (Epoch, error) {
	n, err := parseHex16(s)
	return Epoch(n), err
}

// Checksum is the checksum of one page or, XORed over all pages, of a whole
// database, as the LTX format defines it: CRC-64/ISO with the highest bit set.
// Page 1 is normalised first (byte 18 is 2); the lock-byte page is left out.
// Zero means "none".
type Checksum uint64

// ChecksumFlag is set in every checksum, so that none is zero.
const ChecksumFlag Checksum = 1 << 63

// String returns 16 hex digits.
func (c Checksum) String() string { return fmt.Sprintf("%016x", uint64(c)) }

// ParseChecksum is the inverse of [Checksum.String].
func ParseChecksum(s string) (Checksum, error) {
	n, err := parseHex16(s)
	return Checksum(n), err
}

// XOR returns the checksum with the checksum of one page put in or taken out.
func (c Checksum) XOR(page Checksum) Checksum { return ChecksumFlag | (c ^ page) }

// Position says where the log of a database stands: after which transaction,
// logged in which epoch, with what content. It is comparable; the zero value
// means "nothing yet".
type Position struct {
	Epoch    Epoch
	TXID     TXID
	Checksum Checksum
}

// IsZero tells whether there is nothing yet.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions by (epoch, TXID): the higher one is more advanced.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Epoch, q.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(p.TXID, q.TXID)
}

// String returns "EPOCH/TXID/CHECKSUM", each as 16 hex digits.
func (p Position) String() string {
	return p.Epoch.String() + "/" + p.TXID.String() + "/" + p.Checksum.String()
}

// MarshalText returns [Position.String], so that logs and JSON show it as people
// read it.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of [Position.MarshalText].
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}

// ParsePosition is the inverse of [Position.String].
func ParsePosition(s string) (Position, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Position{}, fmt.Errorf("parse position %q: not of the form EPOCH/TXID/CHECKSUM", s)
	}
	var n [3]uint64
	for i, part := range parts {
		v, err := parseHex16(part)
		if err != nil {
			return Position{}, fmt.Errorf("parse position %q: %w", s, err)
		}
		n[i] = v
	}
	return Position{Epoch(n[0]), TXID(n[1]), Checksum(n[2])}, nil
}

// ErrBookmark is wrapped by what [ParseBookmark] returns for text that no node
// has made.
var ErrBookmark = errors.New("not a bookmark")

const bookmarkPrefix = "lsb1-"

var bookmarkEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// Bookmark returns the position as opaque text that an application hands
// around to read its own writes on another node. It carries a check sum of its
// own, so that a cut or mistyped one is refused.
func (p Position) Bookmark() string {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(p.TXID))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Checksum))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return bookmarkPrefix + strings.ToLower(bookmarkEncoding.EncodeToString(b))
}

// ParseBookmark is the inverse of [Position.Bookmark]; letters may be of
// either case.
func ParseBookmark(s string) (Position, error) {
	text, ok := strings.CutPrefix(strings.ToLower(s), bookmarkPrefix)
	if !ok {
		return Position{}, fmt.Errorf("parse %q: %w: it must begin with %q", s, ErrBookmark, bookmarkPrefix)
	}
	b, err := bookmarkEncoding.DecodeString(strings.ToUpper(text))
	if err != nil || len(b) != 28 {
		return Position{}, fmt.Errorf("parse %q: %w: wrong length or letters", s, ErrBookmark)
	}
	if crc32.Checksum(b[:24], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[24:]) {
		return Position{}, fmt.Errorf("parse %q: %w: check sum differs", s, ErrBookmark)
	}
	return Position{
		Epoch:    Epoch(binary.BigEndian.Uint64(b)),
		TXID:     TXID(binary.BigEndian.Uint64(b[8:])),
		Checksum: Checksum(binary.BigEndian.Uint64(b[16:])),
	}, nil
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidName tells whether a database may have this name: 1 to 64 letters,
// digits, dots, underscores and hyphens, and neither "." nor "..".
func ValidName(name string) bool {
	return namePattern.MatchString(name) && name != "." && name != ".."
}

func parseHex16(s string) (uint64, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("parse %q: want 16 hex digits", s)
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %q: want 16 hex digits", s)
	}
	return n, nil
}
