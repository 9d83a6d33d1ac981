package pagesum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/lsnode/lsnode/walstream"
)

// The file, all numbers big-endian:
//
//	0     slot 0, 4096 bytes of which 60 are used
//	4096  slot 1
//	8192  entries, 8 bytes a page, page 1 first
//
//	slot: magic 8 │ version 2 │ 2 zeros │ page size 4 │ page count 4 │ sequence 8 │
//	      epoch 8 │ TXID 8 │ checksum 8 │ zeros 4 │ CRC-32C of the 56 bytes before it 4
//
// The valid slot with the highest sequence counts. Entries beyond its page count
// mean nothing. Entries have no check of their own: their XOR is the checksum of
// the database, which the log has too.
const (
	magic        = "LSNSUMS\x00"
	version      = 1
	slotSize     = 4096
	slotUsed     = 60
	entriesAt    = 2 * slotSize
	entrySize    = 8
	blockSize    = 4096
	blockEntries = blockSize / entrySize
)

// Errors of [Open] that callers tell apart: both mean that the table has to be
// built anew by a scan.
var (
	ErrCorrupt = errors.New("page checksum table is damaged")
	ErrVersion = errors.New("page checksum table has a version that is not known")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// slot is one of the two headers.
type slot struct {
	pageSize  uint32
	pageCount uint32
	sequence  uint64
	position  walstream.Position
}

func (s *slot) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, s.pageSize)
	b = binary.BigEndian.AppendUint32(b, s.pageCount)
	for _, v := range [...]uint64{s.sequence, uint64(s.position.Epoch), uint64(s.position.TXID), uint64(s.position.Checksum)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, 0)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseSlot reads a slot. Errors: ErrCorrupt, ErrVersion.
func parseSlot(b []byte) (slot, error) {
	if len(b) < slotUsed || string(b[:8]) != magic {
		return slot{}, fmt.Errorf("%w: no magic", ErrCorrupt)
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != version {
		return slot{}, fmt.Errorf("%w: %d", ErrVersion, v)
	}
	if crc32.Checksum(b[:slotUsed-4], castagnoli) != binary.BigEndian.Uint32(b[slotUsed-4:]) {
		return slot{}, fmt.Errorf("%w: CRC of its slot", ErrCorrupt)
	}
	return slot{
		pageSize:  binary.BigEndian.Uint32(b[12:]),
		pageCount: binary.BigEndian.Uint32(b[16:]),
		sequence:  binary.BigEndian.Uint64(b[20:]),
		position: walstream.Position{
			Epoch:    walstream.Epoch(binary.BigEndian.Uint64(b[28:])),
			TXID:     walstream.TXID(binary.BigEndian.Uint64(b[36:])),
			Checksum: walstream.Checksum(binary.BigEndian.Uint64(b[44:])),
		},
	}, nil
}

// file is the table on disk. It is used under the lock of its caller.
type file struct {
	f    *os.File
	last slot // as last written
}

// openFile opens or makes the file and reads what its newest slot names.
func openFile(path string) (_ *file, _ slot, _ []walstream.Checksum, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, slot{}, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, slot{}, nil, err
	}
	if st.Size() == 0 {
		return &file{f: f}, slot{}, nil, syncDir(path)
	}
	newest, err := readSlots(f)
	if err != nil {
		return nil, slot{}, nil, err
	}
	// The size of the file bounds what is allocated, not the number in the slot.
	// That of an empty table may end with a slot.
	if newest.pageCount > 0 && st.Size() < entriesAt+int64(newest.pageCount)*entrySize {
		return nil, slot{}, nil, fmt.Errorf("%w: %d bytes are too few for %d pages", ErrCorrupt, st.Size(), newest.pageCount)
	}
	sums, err := readEntries(f, newest.pageCount)
	if err != nil {
		return nil, slot{}, nil, err
	}
	return &file{f: f, last: newest}, newest, sums, nil
}

// readSlots returns the newest valid slot. A file in which no flush has come to
// its end yet has none: it is an empty table.
func readSlots(f *os.File) (slot, error) {
	var newest slot
	var errs [2]error
	var blank int
	for i := range errs {
		var b [slotUsed]byte
		if _, err := f.ReadAt(b[:], int64(i)*slotSize); err != nil && err != io.EOF {
			return slot{}, fmt.Errorf("read slot %d: %w", i, err)
		}
		if b == [slotUsed]byte{} {
			blank++
			continue
		}
		s, err := parseSlot(b[:])
		if errs[i] = err; err == nil && s.sequence > newest.sequence {
			newest = s
		}
	}
	if newest.sequence == 0 && blank < 2 {
		// A first slot that was torn is no loss: nothing was promised yet. But a
		// file in which neither is valid and both were written has lost its state.
		if blank == 1 && errors.Is(errs[1], ErrCorrupt) {
			return slot{}, nil
		}
		return slot{}, errors.Join(errs[0], errs[1])
	}
	return newest, nil
}

func readEntries(f *os.File, n uint32) ([]walstream.Checksum, error) {
	sums := make([]walstream.Checksum, n)
	buf := make([]byte, 64*blockSize)
	for i := 0; i < len(sums); {
		part := buf[:min(len(buf), (len(sums)-i)*entrySize)]
		if _, err := f.ReadAt(part, entriesAt+int64(i)*entrySize); err != nil {
			return nil, fmt.Errorf("read entries: %w", err)
		}
		for ; len(part) > 0; part = part[entrySize:] {
			sums[i] = walstream.Checksum(binary.BigEndian.Uint64(part))
			i++
		}
	}
	return sums, nil
}

func (f *file) writeBlock(n uint32, sums []walstream.Checksum) error {
	var buf [blockSize]byte
	for i, sum := range sums {
		binary.BigEndian.PutUint64(buf[i*entrySize:], uint64(sum))
	}
	if _, err := f.f.WriteAt(buf[:], entriesAt+int64(n)*blockSize); err != nil {
		return fmt.Errorf("write entries: %w", err)
	}
	return nil
}

// commit makes the written blocks durable, and then says so in the older slot.
func (f *file) commit(s slot) error {
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync entries: %w", err)
	}
	s.sequence = f.last.sequence + 1
	if _, err := f.f.WriteAt(s.append(make([]byte, 0, slotUsed)), int64(s.sequence%2)*slotSize); err != nil {
		return fmt.Errorf("write slot: %w", err)
	}
	if err := f.f.Sync(); err != nil {
		return fmt.Errorf("sync slot: %w", err)
	}
	f.last = s
	return nil
}

func (f *file) close() error { return f.f.Close() }

func syncDir(path string) (err error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
