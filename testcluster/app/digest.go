package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Digest is what a database is: its pages as this package reads them by itself,
// and its content as SQLite reads it. It is meant for a database that nobody
// writes just now.
type Digest struct {
	PageSize  int              `json:"page_size"`
	PageCount uint32           `json:"page_count"`
	Checksum  string           `json:"checksum"` // of all pages, as LTX defines it; 16 hex digits
	Content   string           `json:"content"`  // SHA-256 of schema and all rows
	Rows      map[string]int64 `json:"rows"`     // by table
	Integrity string           `json:"integrity"`
}

// Digest reads the database at path in a process of its own.
func (l Launcher) Digest(ctx context.Context, path string) (Digest, error) {
	argv := append(append([]string{}, l.Args...), "digest", "--db", path)
	cmd := exec.CommandContext(ctx, l.Path, argv...)
	cmd.Env = append(os.Environ(), l.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return Digest{}, fmt.Errorf("digest %s: %w: %s", path, err, errs.String())
	}
	var first Report
	var d Digest
	lines := json.NewDecoder(bytes.NewReader(out))
	if err := errors.Join(lines.Decode(&first), lines.Decode(&d)); err != nil {
		return Digest{}, fmt.Errorf("digest %s: %w", path, err)
	}
	return d, nil
}

func runDigest(ctx context.Context, r *run) error {
	var d Digest
	// The raw files first, and closed again: closing any descriptor of them later
	// would drop the locks of this process's SQLite.
	if r.raw {
		if err := d.readPages(r.db); err != nil {
			return err
		}
	}
	if err := d.readContent(ctx, r.db); err != nil {
		return err
	}
	return r.out.Encode(d)
}

const walHeaderSize, frameHeaderSize = 32, 24

// readPages reads the pages as "WAL-mode File Format" says: the newest committed
// frame of each page, else the database file.
func (d *Digest) readPages(path string) (err error) {
	main, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read pages: %w", err)
	}
	defer main.Close()
	var head [100]byte
	if _, err := io.ReadFull(main, head[:]); err != nil {
		return fmt.Errorf("read database header: %w", err)
	}
	d.PageSize = int(binary.BigEndian.Uint16(head[16:]))
	if d.PageSize == 1 {
		d.PageSize = 65536
	}
	info, err := main.Stat()
	if err != nil {
		return fmt.Errorf("read pages: %w", err)
	}
	d.PageCount = uint32(info.Size() / int64(d.PageSize))
	frames := map[uint32]int64{}
	wal, err := os.Open(path + "-wal")
	if err == nil {
		defer wal.Close()
		err = d.readFrames(wal, frames)
	}
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read WAL: %w", err)
	}
	return d.sumPages(main, wal, frames)
}

// readFrames notes where the newest committed image of each page is.
func (d *Digest) readFrames(wal *os.File, frames map[uint32]int64) error {
	var head [walHeaderSize]byte
	if n, err := io.ReadFull(wal, head[:]); n < walHeaderSize {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // no WAL yet
		}
		return err
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if binary.BigEndian.Uint32(head[:])&1 == 1 {
		order = binary.BigEndian
	}
	sum := walSum(order, [2]uint32{}, head[:24])
	if sum[0] != binary.BigEndian.Uint32(head[24:]) || sum[1] != binary.BigEndian.Uint32(head[28:]) {
		return nil // not a valid WAL: SQLite ignores it too
	}
	frame := make([]byte, frameHeaderSize+d.PageSize)
	open := map[uint32]int64{}
	for at := int64(walHeaderSize); ; at += int64(len(frame)) {
		if n, err := wal.ReadAt(frame, at); n < len(frame) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		sum = walSum(order, walSum(order, sum, frame[:8]), frame[frameHeaderSize:])
		if !bytes.Equal(frame[8:16], head[16:24]) || sum[0] != binary.BigEndian.Uint32(frame[16:]) || sum[1] != binary.BigEndian.Uint32(frame[20:]) {
			return nil
		}
		open[binary.BigEndian.Uint32(frame)] = at + frameHeaderSize
		if size := binary.BigEndian.Uint32(frame[4:]); size != 0 {
			d.PageCount = size
			for no, at := range open {
				frames[no] = at
			}
			clear(open)
		}
	}
}

func walSum(order binary.ByteOrder, s [2]uint32, b []byte) [2]uint32 {
	for i := 0; i+8 <= len(b); i += 8 {
		s[0] += order.Uint32(b[i:]) + s[1]
		s[1] += order.Uint32(b[i+4:]) + s[0]
	}
	return s
}

func (d *Digest) sumPages(main, wal *os.File, frames map[uint32]int64) error {
	table := crc64.MakeTable(crc64.ISO)
	var sum uint64
	page := make([]byte, 4+d.PageSize)
	for no := uint32(1); no <= d.PageCount; no++ {
		if int64(no-1)*int64(d.PageSize) == 1<<30 {
			continue // the page of the lock bytes
		}
		binary.BigEndian.PutUint32(page, no)
		from, at := main, int64(no-1)*int64(d.PageSize)
		if frame, ok := frames[no]; ok {
			from, at = wal, frame
		}
		if _, err := from.ReadAt(page[4:], at); err != nil {
			return fmt.Errorf("read page %d: %w", no, err)
		}
		if no == 1 {
			page[4+18] = 2 // a fenced copy is the same database
		}
		sum ^= 1<<63 | crc64.Checksum(page, table)
	}
	d.Checksum = fmt.Sprintf("%016x", sum|1<<63)
	return nil
}

// readContent hashes the schema and every value of every row.
func (d *Digest) readContent(ctx context.Context, path string) (err error) {
	c, err := Open(path, Settings{Busy: 5 * time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := errors.Join(c.Exec("BEGIN"), c.Row("PRAGMA integrity_check", &d.Integrity)); err != nil {
		return fmt.Errorf("check integrity: %w", err)
	}
	h := sha256.New()
	if _, err := hashRows(c, h, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2"); err != nil {
		return err
	}
	var tables []string
	rows, err := c.Query("SELECT name FROM sqlite_schema WHERE type='table' AND rootpage<>0 ORDER BY 1")
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return errors.Join(err, rows.Close())
		}
		tables = append(tables, name)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	d.Rows = map[string]int64{}
	for _, name := range tables {
		if d.Rows[name], err = hashRows(c, h, fmt.Sprintf("SELECT * FROM %q ORDER BY rowid", name)); err != nil {
			return fmt.Errorf("read table %s: %w", name, err)
		}
	}
	d.Content = hex.EncodeToString(h.Sum(nil))
	return nil
}

func hashRows(c *Conn, h hash.Hash, query string) (n int64, err error) {
	rows, err := c.Query(query)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	values := make([]sql.RawBytes, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	var length [8]byte
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return 0, err
		}
		for _, v := range values {
			size := uint64(len(v))
			if v == nil {
				size = 1<<64 - 1
			}
			binary.BigEndian.PutUint64(length[:], size)
			h.Write(length[:])
			h.Write(v)
		}
		n++
	}
	return n, rows.Err()
}
