package pagesum

import (
	"encoding/binary"
	"hash/crc64"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitefile"
)

var isoTable = crc64.MakeTable(crc64.ISO)

// markOffset is where page 1 carries the mark that differs between a database
// and its fenced copies.
const markOffset = 18

// Page returns the checksum of one page, as LTX's ChecksumPage does. Page 1
// counts as if its mark were that of an ordinary WAL database, whatever it is;
// data is not changed. The lock-byte page, which is no part of a database's
// checksum, gives 0. The page size is taken from the length of data.
func Page(no uint32, data []byte) walstream.Checksum {
	if sqlitefile.ValidPageSize(uint32(len(data))) && no == sqlitefile.LockBytePage(uint32(len(data))) {
		return 0
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], no)
	crc := crc64.Update(0, isoTable, head[:])
	if no == 1 && len(data) > markOffset {
		crc = crc64.Update(crc, isoTable, data[:markOffset])
		crc = crc64.Update(crc, isoTable, []byte{sqlitefile.MarkWAL})
		data = data[markOffset+1:]
	}
	return walstream.ChecksumFlag | walstream.Checksum(crc64.Update(crc, isoTable, data))
}
