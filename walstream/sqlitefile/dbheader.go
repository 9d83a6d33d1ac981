package sqlitefile

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DBHeaderSize is the length of the header at the start of page 1.
const DBHeaderSize = 100

// The write versions that byte 18 of page 1 has in a replicated database. For
// SQLite any value above 2 beside a read version that it knows means: treat the
// database as read-only.
const (
	MarkWAL    byte = 2  // an ordinary database in WAL mode
	MarkFenced byte = 76 // a fenced copy: 'L'
)

const (
	dbMagic         = "SQLite format 3\x00"
	offPageSize     = 16
	offWriteVersion = 18
	offReadVersion  = 19
	pendingByte     = 0x40000000 // where SQLite's locks on the database file begin
)

// MinPageSize and MaxPageSize bound a database's page size, a power of two.
const (
	MinPageSize = 512
	MaxPageSize = 65536
)

// ErrNotDatabase is wrapped by what [ParseDBHeader] returns for bytes that do
// not begin as a SQLite database does: another kind of file, or an encrypted
// one.
var ErrNotDatabase = errors.New("not a SQLite database, or an encrypted one")

// DBHeader is what lsnode needs of the header of page 1.
type DBHeader struct {
	PageSize      uint32 // bytes; a power of two, 512..65536
	WriteVersion  byte   // 1 rollback journal, 2 WAL, more: read-only
	ReadVersion   byte   // 1 rollback journal, 2 WAL, more: can't be read
	Reserved      byte   // bytes at the end of each page that SQLite leaves alone
	ChangeCounter uint32
	PageCount     uint32 // valid only if ChangeCounter == VersionValid
	SchemaCookie  uint32
	VersionValid  uint32 // the change counter when PageCount was written
	ApplicationID uint32
	UserVersion   uint32
}

// ParseDBHeader reads the header of a database from the first bytes of page 1,
// at least [DBHeaderSize] of them. Errors wrap [ErrNotDatabase].
func ParseDBHeader(page1 []byte) (DBHeader, error) {
	if len(page1) < DBHeaderSize {
		return DBHeader{}, fmt.Errorf("read database header: %d bytes: %w", len(page1), ErrNotDatabase)
	}
	if string(page1[:len(dbMagic)]) != dbMagic {
		return DBHeader{}, fmt.Errorf("read database header: wrong magic: %w", ErrNotDatabase)
	}
	size := uint32(binary.BigEndian.Uint16(page1[offPageSize:]))
	if size == 1 {
		size = MaxPageSize
	}
	if !ValidPageSize(size) {
		return DBHeader{}, fmt.Errorf("read database header: page size %d: %w", size, ErrNotDatabase)
	}
	return DBHeader{
		PageSize:      size,
		WriteVersion:  page1[offWriteVersion],
		ReadVersion:   page1[offReadVersion],
		Reserved:      page1[20],
		ChangeCounter: binary.BigEndian.Uint32(page1[24:]),
		PageCount:     binary.BigEndian.Uint32(page1[28:]),
		SchemaCookie:  binary.BigEndian.Uint32(page1[40:]),
		UserVersion:   binary.BigEndian.Uint32(page1[60:]),
		ApplicationID: binary.BigEndian.Uint32(page1[68:]),
		VersionValid:  binary.BigEndian.Uint32(page1[92:]),
	}, nil
}

// ValidPageSize tells whether a database may have this page size.
func ValidPageSize(size uint32) bool {
	return size >= MinPageSize && size <= MaxPageSize && size&(size-1) == 0
}

// Mark returns the write version in byte 18 of page 1: [MarkWAL],
// [MarkFenced], or what another program wrote. It is 0 if page1 is too short.
func Mark(page1 []byte) byte {
	if len(page1) <= offWriteVersion {
		return 0
	}
	return page1[offWriteVersion]
}

// SetMark changes byte 18 of page 1 in place. page1 too short is left alone.
func SetMark(page1 []byte, mark byte) {
	if len(page1) > offWriteVersion {
		page1[offWriteVersion] = mark
	}
}

// Normalise changes page 1 in place into what is hashed, logged and shipped:
// its mark is [MarkWAL].
func Normalise(page1 []byte) { SetMark(page1, MarkWAL) }

// LockBytePage returns the number of the page that holds SQLite's lock bytes, at
// offset 1 GiB. It never holds content, and is no part of any transaction or
// checksum. pageSize must be valid.
func LockBytePage(pageSize uint32) uint32 { return pendingByte/pageSize + 1 }
