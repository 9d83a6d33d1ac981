package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lsnode/lsnode/walstream"
	"github.com/lsnode/lsnode/walstream/sqlitedb"
)

// The state file: two slots of 128 bytes at 0 and 4096, written in turn, so that
// a torn write leaves the other one. Numbers are big-endian.
//
//	magic 8 │ version 2 │ flags 2 │ zeros 4 │ sequence 8 │ epoch 8 │ TXID 8 │
//	checksum 8 │ boot ID 16 │ device 8 │ inode 8 │ zeros 44 │ CRC-32C of all that 4
//
// The valid slot with the higher sequence counts. The CRC stays where it is in
// every version, so that a torn slot is not taken for one of another version.
const (
	stateMagic    = "LSNAPPLY"
	stateVersion  = 1
	stateSlot     = 128
	stateDistance = 4096
	flagClean     = 1
	flagUnfenced  = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errStateVersion is what a state file of a later lsnode gives.
var errStateVersion = errors.New("state file has a version that is not known")

// state is what is recorded about a copy. It is comparable.
type state struct {
	position walstream.Position // durable in the database
	clean    bool               // nothing was applied or written after it
	unfenced bool               // applications may have written after it
	file     sqlitedb.Identity  // of which file, in which boot
}

func (s *state) append(b []byte, sequence uint64) []byte {
	start := len(b)
	b = append(b, stateMagic...)
	b = binary.BigEndian.AppendUint16(b, stateVersion)
	var flags uint16
	if s.clean {
		flags |= flagClean
	}
	if s.unfenced {
		flags |= flagUnfenced
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, 0, 0, 0, 0)
	p := s.position
	for _, v := range [...]uint64{sequence, uint64(p.Epoch), uint64(p.TXID), uint64(p.Checksum)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = append(b, s.file.BootID[:]...)
	b = binary.BigEndian.AppendUint64(b, s.file.Device)
	b = binary.BigEndian.AppendUint64(b, s.file.Inode)
	b = append(b, make([]byte, start+stateSlot-4-len(b))...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseState reads a slot; ok is false if it is not valid.
func parseState(b []byte) (s state, sequence uint64, ok bool, err error) {
	if len(b) < stateSlot || string(b[:8]) != stateMagic {
		return state{}, 0, false, nil
	}
	if crc32.Checksum(b[:stateSlot-4], castagnoli) != binary.BigEndian.Uint32(b[stateSlot-4:]) {
		return state{}, 0, false, nil
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != stateVersion {
		return state{}, 0, false, fmt.Errorf("%w: %d", errStateVersion, v)
	}
	flags := binary.BigEndian.Uint16(b[10:])
	s = state{
		clean:    flags&flagClean != 0,
		unfenced: flags&flagUnfenced != 0,
		position: walstream.Position{
			Epoch:    walstream.Epoch(binary.BigEndian.Uint64(b[24:])),
			TXID:     walstream.TXID(binary.BigEndian.Uint64(b[32:])),
			Checksum: walstream.Checksum(binary.BigEndian.Uint64(b[40:])),
		},
		file: sqlitedb.Identity{
			BootID: [16]byte(b[48:64]),
			Device: binary.BigEndian.Uint64(b[64:]),
			Inode:  binary.BigEndian.Uint64(b[72:]),
		},
	}
	return s, binary.BigEndian.Uint64(b[16:]), true, nil
}

// stateFile is the state on disk. It is used by one goroutine at a time.
type stateFile struct {
	f        *os.File
	last     state
	sequence uint64 // of last; 0: nothing is recorded
}

// openState opens or makes a state file and reads what it records.
func openState(path string) (_ *stateFile, err error) {
	_, serr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s := &stateFile{f: f}
	for slot := range int64(2) {
		var b [stateSlot]byte
		if _, rerr := f.ReadAt(b[:], slot*stateDistance); rerr != nil && rerr != io.EOF {
			err = errors.Join(err, rerr)
			continue
		}
		got, sequence, ok, perr := parseState(b[:])
		err = errors.Join(err, perr)
		if ok && sequence > s.sequence {
			s.last, s.sequence = got, sequence
		}
	}
	if err == nil && serr != nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read state %s: %w", path, err), f.Close())
	}
	return s, nil
}

// record makes a state durable. After an error the one before still is.
func (s *stateFile) record(now state) error {
	if s.sequence > 0 && now == s.last {
		return nil
	}
	b := now.append(make([]byte, 0, stateSlot), s.sequence+1)
	if _, err := s.f.WriteAt(b, int64((s.sequence+1)%2)*stateDistance); err != nil {
		return fmt.Errorf("record state: %w", err)
	}
	if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
		return fmt.Errorf("record state: %w", err)
	}
	s.last = now
	s.sequence++
	return nil
}

func (s *stateFile) close() error { return s.f.Close() }

func syncDir(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
